"""`unstill models` and `unstill methods`: the registries, printed."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer


if TYPE_CHECKING:
    from unstill.methods.base import Method


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def models(as_json: Json = False) -> None:
    """List the models that go by a name; any diffusers folder or hub id works too."""
    from unstill.families.registry import ADAPTERS, MODELS

    sees_image = {model.name: bool(ADAPTERS[model.pipeline].denoisers) for model in MODELS}
    if as_json:
        entries = [{**dataclasses.asdict(model), "condition": sees_image[model.name]} for model in MODELS]
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False)
    for m in MODELS:
        kinds = "all methods" if sees_image[m.name] else "methods of start and step"
        console.print(f"[bold]{m.name}[/bold]  {m.input} to {m.frames} frames, {m.size[1]}x{m.size[0]}; {kinds}")
        source = "weights in the package" if m.weights is None else m.weights
        about = f"{m.parameters} parameters, {m.needs}; {source}: {m.licence}"
        console.print(Padding(about, (0, 0, 1, 2)), style="dim")


def methods(as_json: Json = False) -> None:
    """List the methods: what each does, when to use it, its parameters and presets, where it does not work."""
    from unstill.families.registry import UNSUPPORTED
    from unstill.hooks.compatibility import refusals
    from unstill.methods.registry import method_classes

    table = refusals()
    described = [
        _described(name, cls, {pipeline: cells[cls.__name__] for pipeline, cells in table.items()})
        for name, cls in method_classes().items()
    ]
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False)
    console.width = min(console.width, 80)

    def say(text: str, style: str = "") -> None:
        console.print(Padding(text, (0, 0, 0, 2)), style=style)

    for method in described:
        console.print(f"[bold]{method['name']}[/bold]")
        say(method["summary"])
        if method["use_when"]:
            say(f"Use it when your video {method['use_when']}.")
        say(f"Changes: {method['changes']}. Costs: {method['cost'] or 'not stated'}.")
        parameters = ", ".join(f"{key}={typed(value)}" for key, value in method["parameters"].items())
        say(f"Parameters: {parameters or 'none'}")
        say(f"Presets: {', '.join(method['presets'])}")
        refused = {pipeline: reason for pipeline, reason in method["refused"].items() if pipeline not in UNSUPPORTED}
        for reason, pipelines in by_reason(refused).items():
            where = "any pipeline" if refused.keys() | UNSUPPORTED.keys() == table.keys() else ", ".join(pipelines)
            say(f"Not on {where}: {reason}", style="dim")
        say(f"How: {method['how']}", style="dim")
        console.print()
    for pipeline, reason in UNSUPPORTED.items():
        console.print(f"No method works on {pipeline}: it {reason}", style="dim")


def _described(name: str, cls: type[Method], refusals: dict[str, str]) -> dict[str, Any]:
    """A method as `--json` prints it, in the order in which the list says it."""
    from unstill.methods.registry import changes_of, how_of, plain, summary_of
    from unstill.parameters import parameters_of

    parameters = parameters_of(cls).values()
    return {
        "name": name,
        "summary": summary_of(cls),
        "use_when": cls.use_when,
        "changes": changes_of(cls),
        "cost": cls.cost,
        "parameters": {one.name: "required" if one.required else plain(one.default) for one in parameters},
        "presets": list(cls.presets),
        "refused": {pipeline: reason for pipeline, reason in refusals.items() if reason},
        "how": how_of(cls),
    }


def by_reason(refused: dict[str, str]) -> dict[str, list[str]]:
    """Pipelines that share a reason, which then does not name one."""
    shared: dict[str, list[str]] = {}
    for pipeline, reason in refused.items():
        shared.setdefault(re.sub(rf"\b{pipeline}\b", "it", reason), []).append(pipeline.removesuffix("Pipeline"))
    return shared


def typed(value: Any) -> str:
    """A value as one would type it after `key=`."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)
