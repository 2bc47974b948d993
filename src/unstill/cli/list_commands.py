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
    from rich.padding import Padding

    console = Console(highlight=False)
    for m in MODELS:
        kinds = "all methods" if m.condition else "methods of start and step"
        console.print(f"[bold]{m.name}[/bold]  {m.input} to {m.frames} frames, {m.size[1]}x{m.size[0]}; {kinds}")
        source = "weights in the package" if m.weights is None else m.weights
        about = f"{m.parameters} parameters, {m.needs}; {source}: {m.licence}"
        console.print(Padding(about, (0, 0, 1, 2)), style="dim")


def methods(as_json: Json = False) -> None:
    """List the methods, their parameters and defaults, and the pipelines that they do not work on."""
    from unstill.families.registry import UNSUPPORTED
    from unstill.hooks.compatibility import refusals
    from unstill.methods.registry import method_classes, plain

    table = refusals()
    found: list[dict[str, Any]] = []
    for name, cls in method_classes().items():
        parameters = {
            field.name: "required" if field.default is dataclasses.MISSING else plain(field.default)
            for field in dataclasses.fields(cast(Any, cls))
        }
        about = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        refused = {pipeline: cells[cls.__name__] for pipeline, cells in table.items() if cells[cls.__name__]}
        presets = list(cls.presets)
        found.append({"name": name, "about": about, "parameters": parameters, "presets": presets, "refused": refused})
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
        console.print(Padding(f"{settings}; presets: {', '.join(method['presets'])}", (0, 0, 0, 2)), style="dim")
        refused = {pipeline: reason for pipeline, reason in method["refused"].items() if pipeline not in UNSUPPORTED}
        for reason, pipelines in by_reason(refused).items():
            where = "any pipeline" if refused.keys() | UNSUPPORTED.keys() == table.keys() else ", ".join(pipelines)
            console.print(Padding(f"not on {where}: {reason}", (0, 0, 0, 2)), style="dim")
        console.print()
    for pipeline, reason in UNSUPPORTED.items():
        console.print(f"No method works on {pipeline}: it {reason}", style="dim")


def by_reason(refused: dict[str, str]) -> dict[str, list[str]]:
    """Pipelines that share a reason, which then does not name one."""
    shared: dict[str, list[str]] = {}
    for pipeline, reason in refused.items():
        shared.setdefault(reason.replace(pipeline, "it"), []).append(pipeline.removesuffix("Pipeline"))
    return shared


def typed(value: Any) -> str:
    """A value as one would type it after `key=`."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)
