"""
The compatibility table: every registered method checked against every pipeline class, with the pipeline's usual
scheduler.

`python -m unstill.hooks.compatibility` prints the tables of docs/pipelines.md.
"""

import re

import diffusers

from unstill.errors import UnstillError
from unstill.families.base import Adapter
from unstill.families.registry import ADAPTERS, IMAGE_INPUTS, UNSUPPORTED
from unstill.forward_process import ForwardProcess
from unstill.hooks.checks import class_target
from unstill.methods.base import Method, Target
from unstill.methods.checks import check_method
from unstill.methods.registry import method_classes
from unstill.noise_schedule import level_of


def refusals() -> dict[str, dict[str, str]]:
    """
    Checks every method against every pipeline class.

    Methods have their default parameters and a start level in the unit of the scheduler; an image is assumed.

    Returns:
        Per pipeline class, per method class: why `apply` refuses the method there, or "" where it works.
    """
    table: dict[str, dict[str, str]] = {}
    for pipeline, adapter in ADAPTERS.items():
        target = _target(pipeline, adapter)
        table[pipeline] = {name: _refusal(method, target) for name, method in examples(target.process).items()}
    for pipeline, reason in UNSUPPORTED.items():
        table[pipeline] = {cls.__name__: f"{pipeline} {reason}" for cls in method_classes().values()}
    return dict(sorted(table.items()))


def support_tables() -> str:
    """
    The table of docs/pipelines.md: one row per pipeline, one column per method, numbered reasons below, then the
    unsupported pipelines.
    """
    table = refusals()
    notes: dict[str, int] = {}
    lines = []
    for pipeline, cells in table.items():
        if pipeline in UNSUPPORTED:
            continue
        shown = []
        for reason in cells.values():
            reason = re.sub(rf"\b{pipeline}\b", "this pipeline", reason)
            reason = reason[:1].upper() + reason[1:]
            shown.append(f"no ({notes.setdefault(reason, len(notes) + 1)})" if reason else "yes")
        lines.append(f"| `{pipeline.removesuffix('Pipeline')}` | {' | '.join(shown)} |")
    methods = [cls.__name__ for cls in method_classes().values()]
    head = [f"| `...Pipeline` | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    numbered = [f"{number}. {reason}" for reason, number in notes.items()]
    refused = [f"- `{pipeline}` {reason}" for pipeline, reason in sorted(UNSUPPORTED.items())]
    return "\n".join([*head, *lines, "", *numbered, "", "No method works on these:", "", *refused])


def image_inputs() -> str:
    """The first table of docs/pipelines.md: how pipelines use an image, one row for all alike."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for pipeline, adapter in ADAPTERS.items():
        facts = (
            IMAGE_INPUTS.get(pipeline, "not at all"),
            "yes" if adapter.denoisers else "",
            "`apply(..., image=)`" if adapter.image_latents_from is None else "from the call",
            _held_frames(adapter),
        )
        rows.setdefault(facts, []).append(f"`{pipeline}`")
    head = ["pipeline", "the image enters as", "`on_condition`", "image latents for methods", "conditioning frames"]
    lines = [f"| {' | '.join((', '.join(names), *facts))} |" for facts, names in sorted(rows.items())]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


def _held_frames(adapter: Adapter) -> str:
    try:
        return str(adapter.conditioning_frames(None) or "")
    except AttributeError:  # it asks the pipeline: some checkpoints of the class hold one
        return "0 or 1"


def _target(pipeline: str, adapter: Adapter) -> Target:
    name, config = adapter.usual_scheduler
    return class_target(pipeline, adapter, adapter.process(getattr(diffusers, name)(**config)))


def examples(process: ForwardProcess) -> dict[str, Method]:
    """An instance of every method by class name, with its noise level in the unit that the scheduler has."""
    level = {"start": 0.9}
    try:
        level_of(process, **level)
    except UnstillError:
        level = {"sigma": 0.9}
    return {cls.__name__: cls.example(**level) for cls in method_classes().values()}


def _refusal(method: Method, target: Target) -> str:
    try:
        check_method(method, (), target)
    except UnstillError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(image_inputs(), support_tables(), sep="\n\n")
