"""Whether methods work on a pipeline: what `apply` checks before it changes anything."""

import logging
from collections.abc import Sequence
from typing import Any

from unstill.errors import UnstillError
from unstill.families.base import Adapter
from unstill.forward_process import ForwardProcess
from unstill.methods.base import Method, Target
from unstill.methods.checks import check_method
from unstill.noise_schedule import level_of
from unstill.statistics_hub import describe_vae


log = logging.getLogger(__name__)


def class_target(pipeline: str, adapter: Adapter, process: ForwardProcess, **changes: Any) -> Target:
    """
    What methods check, as far as the class of a pipeline tells it.

    Args:
        pipeline: name of the pipeline class.
        adapter: of that class.
        process: of the scheduler.
        **changes: fields of `Target` that depend on the pipeline itself. Without them: a solver of first order, a call
            with an image, and no conditioning frames.
    """
    facts: dict[str, Any] = {
        "order": 1,
        "image_latents": True,
        "condition": bool(adapter.denoisers),
        "conditioning_frames": 0,
        "has_audio_scheduler": adapter.has_audio_scheduler,
        "modular": adapter.modular,
        "in_sections": adapter.in_sections,
        "encodes_image": adapter.image_latents_from is not None,
        "guidance": adapter.guides_output,
        "drops_image": adapter.zero_unconditional,
        "attention": bool(adapter.attends),
        "condition_clip": adapter.has_condition_clip,
    }
    return Target(pipeline=pipeline, process=process, **(facts | changes))


def pipeline_target(
    pipe: Any, adapter: Adapter, process: ForwardProcess, methods: Sequence[Method], *, order: int, image_latents: bool
) -> Target:
    """
    What `methods` check of a pipeline.

    Args:
        pipe: the pipeline.
        adapter: of its class.
        process: of its scheduler.
        methods: all that are to act on it.
        order: model calls per noise level.
        image_latents: whether the latents of an image are there, or will be.
    """
    vae = getattr(pipe, "vae", None)
    with_statistics = any(hasattr(method, "statistics") for method in methods)
    return class_target(
        type(pipe).__name__,
        adapter,
        process,
        order=order,
        image_latents=image_latents,
        conditioning_frames=adapter.conditioning_frames(pipe),
        vae=describe_vae(vae) if vae and with_statistics else None,
    )


def check_methods(methods: Sequence[Method], target: Target) -> None:
    """
    Raises:
        UnstillError: one of `methods` is no method, is a loop around the pipeline, or does not work on `target` or
            together with the others.
    """
    for index, method in enumerate(methods):
        if not isinstance(method, Method):
            raise UnstillError(f"{method!r} is not a method; give an instance, such as EarlyStart(start=0.96).")
        if method.stage == "loop":
            raise UnstillError(
                f"{method.name} is a loop around the pipeline, not in it; call "
                f"unstill.free_init(pipe, {method.name}(), ...)."
            )
        check_method(method, (*methods[:index], *methods[index + 1 :]), target)


def warn_of_handover(pipe: Any, adapter: Adapter, process: ForwardProcess, methods: Sequence[Method]) -> None:
    """Warns of a start level so low that the first of two networks (Wan 2.2 A14B) is never called."""
    handover = adapter.handover(pipe)
    if handover is None:
        return
    for method in methods:
        level = {unit: getattr(method, unit, None) for unit in ("start", "sigma")}
        if any(level.values()) and level_of(process, **level)[0] < handover:
            log.warning(
                "%s starts below the level at which %s hands over to its second network (boundary_ratio): the "
                "first one, which was trained for high noise, is not used.",
                method.name,
                type(pipe).__name__,
            )
