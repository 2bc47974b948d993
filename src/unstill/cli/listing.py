"""`unstill models` and `unstill methods`: what there is."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Annotated, Any, cast

import typer


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def models(as_json: Json = False) -> None:
    """List the models that go by a name; any diffusers folder or hub id works too."""
    from unstill.models.registry import MODELS

    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(model) for model in MODELS], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for column in ("takes", "makes", "size", "needs", "methods", "weights", "their licence"):
        table.add_column(column)
    for m in MODELS:
        makes, kinds = f"{m.frames} frames, {m.size[1]}x{m.size[0]}", "all" if m.condition else "start, step"
        table.add_row(m.name, m.input, makes, m.parameters, m.needs, kinds, m.weights or "in the package", m.licence)
    Console().print(table)


def methods(as_json: Json = False) -> None:
    """List the methods, their parameters and defaults."""
    from unstill.cli.options import method_classes, plain

    found: list[dict[str, Any]] = []
    for name, cls in method_classes().items():
        parameters = {
            field.name: "required" if field.default is dataclasses.MISSING else plain(field.default)
            for field in dataclasses.fields(cast(Any, cls))
        }
        about = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        found.append({"name": name, "about": about, "parameters": parameters, "presets": list(cls.presets)})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False)
    for method in found:
        console.print(f"[bold]{method['name']}[/bold]")
        console.print(Padding(method["about"], (0, 0, 0, 2)))
        settings = ", ".join(f"{key}={typed(value)}" for key, value in method["parameters"].items())
        console.print(Padding(f"{settings}; presets: {', '.join(method['presets'])}", (0, 0, 1, 2)), style="dim")


def typed(value: Any) -> str:
    """A value as one would type it after `key=`."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)
