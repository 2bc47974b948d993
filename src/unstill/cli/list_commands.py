"""`unstill models` and `unstill methods`: print the registries."""

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
    """List the registered models; --model takes any diffusers folder or hub id, too."""
    from unstill.families.registry import ADAPTERS, MODELS

    sees_image = {model.name: bool(ADAPTERS[model.pipeline].denoisers) for model in MODELS}
    if as_json:
        entries = [{**dataclasses.asdict(model), "condition": sees_image[model.name]} for model in MODELS]
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False)
    for model in MODELS:
        usable = "all methods" if sees_image[model.name] else "methods of start and step"
        console.print(
            f"[bold]{model.name}[/bold]  {model.input} to {model.frames} frames, "
            f"{model.size[1]}x{model.size[0]}; {usable}"
        )
        source = "weights in the package" if model.weights is None else model.weights
        about = f"{model.parameters} parameters, {model.needs}; {source}: {model.licence}"
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
    """A method as `--json` prints it, in the order of the printed list."""
    from unstill.methods.registry import changes_of, how_of, plain, summary_of
    from unstill.parameters import parameters_of

    parameters = parameters_of(cls).values()
    return {
        "name": name,
        "summary": summary_of(cls),
        "use_when": cls.use_when,
        "changes": changes_of(cls),
        "cost": cls.cost,
        "parameters": {
            parameter.name: "required" if parameter.required else plain(parameter.default) for parameter in parameters
        },
        "presets": list(cls.presets),
        "refused": {pipeline: reason for pipeline, reason in refusals.items() if reason},
        "how": how_of(cls),
    }


def by_reason(refused: dict[str, str]) -> dict[str, list[str]]:
    """Pipelines by the reason of the refusal, in which `it` stands for the name of the pipeline."""
    shared: dict[str, list[str]] = {}
    for pipeline, reason in refused.items():
        shared.setdefault(re.sub(rf"\b{pipeline}\b", "it", reason), []).append(pipeline.removesuffix("Pipeline"))
    return shared


def typed(value: Any) -> str:
    """A value in the syntax of `key=value`."""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)
