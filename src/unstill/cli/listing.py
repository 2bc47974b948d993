"""`unstill models` and `unstill methods`: what there is."""

from __future__ import annotations

import json
from typing import Annotated

import typer


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def models(as_json: Json = False) -> None:
    """List the models that go by a name; any diffusers folder or hub id works too."""
    import dataclasses

    from unstill.models.registry import MODELS

    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(model) for model in MODELS], indent=2))
        return
    rows = [
        (m.name, m.input, m.parameters, f"{m.size[1]}x{m.size[0]}, {m.frames} frames", m.needs, m.licence)
        for m in MODELS
    ]
    _table(("model", "takes", "denoiser", "clip", "needs", "licence of the weights"), rows)


def methods(as_json: Json = False) -> None:
    """List the methods, their parameters and defaults."""
    import dataclasses
    import inspect
    from typing import Any, cast

    from unstill.cli.options import method_classes

    found = []
    for name, cls in method_classes().items():
        parameters = {}
        for field in dataclasses.fields(cast(Any, cls)):
            default = field.default if field.default is not dataclasses.MISSING else "required"
            parameters[field.name] = (
                default if isinstance(default, (str, int, float, bool, type(None))) else str(default)
            )
        about = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        found.append({"name": name, "about": about, "parameters": parameters, "presets": list(cls.presets)})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [(m["name"], m["about"], ", ".join(f"{k}={v}" for k, v in m["parameters"].items())) for m in found]
    _table(("--method", "what it does", "parameters and defaults"), rows)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
