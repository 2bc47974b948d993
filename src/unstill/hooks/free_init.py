"""`unstill.free_init`: the iterations of FreeInit around a pipeline."""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.hooks.apply import applied_to, apply
from unstill.methods.base import Method, Run, Target
from unstill.methods.free_init import FreeInit


log = logging.getLogger(__name__)


def free_init(pipe: Any, method: FreeInit, *args: Any, num_inference_steps: int | None = None, **kwargs: Any) -> Any:
    """
    Calls a pipeline several times; each call starts from noise with the low frequencies of the previous video.

    Works with schedulers and pipelines that diffusers' `enable_free_init` does not support, and inside `apply`. Every
    iteration draws from the generator; `latents=` is used in the first one only.

    Args:
        pipe: a pipeline that `apply` supports.
        method: `FreeInit` with its parameters.
        *args: positional arguments of the pipeline's call.
        num_inference_steps: of the last (without `coarse_to_fine`: of every) iteration; default: the pipeline's.
        **kwargs: keyword arguments of the pipeline's call.

    Returns:
        What the last call of the pipeline returns.

    Raises:
        UnstillError: as `apply`, and if another method of the pipeline replaces the initial latents too.

    Example:
        ```py
        output = unstill.free_init(pipe, FreeInit(iterations=3), prompt="a boat", num_inference_steps=25)
        ```
    """
    with ExitStack() as stack:
        applied = applied_to(pipe) or stack.enter_context(apply(pipe))
        restart = FreeInitNoise(method)
        stack.enter_context(applied.also(restart))
        level = method.level_for(applied.process)
        if method.level is None and level < 1:
            log.warning(
                "FreeInit adds noise up to level=%g between the calls; at 1, %s would keep nothing of the video.",
                level,
                type(pipe.scheduler).__name__,
            )
        if num_inference_steps is None:
            num_inference_steps = inspect.signature(pipe.__call__).parameters["num_inference_steps"].default
        for iteration in range(method.iterations - 1):
            steps = method.steps(num_inference_steps, iteration)
            pipe(*args, **{**kwargs, "num_inference_steps": steps, "output_type": "latent"})
            restart.video = applied.sample
            kwargs.pop("latents", None)
        return pipe(*args, **kwargs, num_inference_steps=num_inference_steps)


@contextmanager
def sampling(
    pipe: Any, *methods: Method, image: Image.Image | torch.Tensor | None = None
) -> Iterator[Callable[..., Any]]:
    """
    `apply` for methods that may include `FreeInit`.

    Args:
        pipe: a pipeline that `apply` supports.
        *methods: at most one of them a `FreeInit`.
        image: see `apply`.

    Yields:
        The function to call instead of the pipeline.

    Raises:
        UnstillError: as `apply`, and for a second `FreeInit`.
    """
    loops = [method for method in methods if isinstance(method, FreeInit)]
    if len(loops) > 1:
        raise UnstillError("FreeInit was given twice; give it once.")
    with apply(pipe, *(method for method in methods if method not in loops), image=image):
        yield functools.partial(free_init, pipe, loops[0]) if loops else pipe


@dataclass(eq=False, slots=True)
class FreeInitNoise(Method):
    """
    The hook that replaces the initial noise in every iteration after the first.

    Attributes:
        method: FreeInit's parameters.
        video: latents of the previous iteration; consumed when its successor starts.
        initial: the noise of the first iteration.
    """

    method: FreeInit
    video: torch.Tensor | None = None
    initial: torch.Tensor | None = None

    owns = FreeInit.owns

    @property
    def name(self) -> str:
        return "FreeInit"

    def check(self, others: Sequence[Method], target: Target) -> None:
        self.method.check(others, target)

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        if self.initial is None:
            self.initial = noise
            return noise
        assert self.video is not None
        video, self.video = self.video, None
        return self.method.reinitialize(run.process, video, self.initial, noise)
