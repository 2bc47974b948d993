"""`unstill.free_init`: the loop of FreeInit around a pipeline."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from unstill.attach.apply import applied_to, apply
from unstill.methods.base import Method, Run, Target
from unstill.methods.free_init import FreeInit
from unstill.methods.levels import check_signal


def free_init(pipe: Any, method: FreeInit, *args: Any, num_inference_steps: int, **kwargs: Any) -> Any:
    """
    Calls a pipeline several times, each time from noise with the low frequencies of the video before.

    Also on schedulers and pipelines that diffusers' `enable_free_init` does not support, and inside `apply`. The
    generator is drawn from in every iteration, `latents=` are used in the first only.

    Args:
        pipe: a pipeline that `apply` supports.
        method: `FreeInit` with its parameters.
        num_inference_steps: steps of the last (unless `coarse_to_fine`: of every) iteration.
        *args, **kwargs: further arguments of the pipeline's call.

    Returns:
        What the last call of the pipeline returns.

    Raises:
        UnstillError: where `apply` does, or if another method of the pipeline decides the first latents.

    Example:
        ```py
        output = unstill.free_init(pipe, FreeInit(iterations=3), prompt="a boat", num_inference_steps=25)
        ```
    """
    with ExitStack() as stack:
        applied = applied_to(pipe) or stack.enter_context(apply(pipe))
        restart = _Restart(method)
        stack.enter_context(applied.also(restart))
        for iteration in range(method.iterations - 1):
            steps = method.steps(num_inference_steps, iteration)
            pipe(*args, **{**kwargs, "num_inference_steps": steps, "output_type": "latent"})
            restart.video = applied.sample
            kwargs.pop("latents", None)
        return pipe(*args, **kwargs, num_inference_steps=num_inference_steps)


@dataclass(eq=False, slots=True)
class _Restart(Method):
    """The noise of every iteration after the first."""

    method: FreeInit
    video: torch.Tensor | None = None
    initial: torch.Tensor | None = None

    owns = frozenset({"latents"})

    def check(self, others: Sequence[Method], target: Target) -> None:
        Method.check(self, others, target)
        check_signal(target.process, self.method.level, "FreeInit")

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        if self.video is None or self.initial is None:
            self.initial = noise
            return noise
        return self.method.reinitialize(run.process, self.video, self.initial, noise)
