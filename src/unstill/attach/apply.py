"""`unstill.apply`: puts methods into a pipeline, and takes them out again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from ..data.images import resize_and_crop
from ..errors import UnstillError
from ..grid import Grid, before_step, install
from ..methods.base import Method, NextSample, Run, Target
from ..process import ForwardProcess
from .adapters import Adapter, adapter_for
from .scheduler import Arguments, hooked, is_hooked, step_result


def apply(pipe: Any, *methods: Method, image: Any = None) -> Applied:
    """
    Puts `methods` into a diffusers pipeline; they act in the order given, on every later call of it.

    Args:
        pipe: a pipeline of a supported class (or of a class that inherits from one).
        methods: what to apply; without any the pipeline computes exactly what it does alone.
        image (`PIL.Image.Image`, *optional*): the conditional image, for methods that need its latents on a pipeline that
            does not encode an image itself (AnimateDiff).

    Returns:
        `Applied`: a handle and context manager. Leaving it, or `.remove()`, restores the pipeline.

    Raises:
        `UnstillError`: unknown pipeline, methods that exclude each other or do not work here, a pipeline that has methods
            already.

    Example:
        ```py
        with unstill.apply(pipe, AnalyticInit(start=0.96, statistics=statistics), NoiseRectification()):
            video = pipe(image, num_inference_steps=25, generator=generator).frames[0]
        ```
    """
    return Applied(pipe, methods, image)


class Applied:
    """
    Methods in a pipeline. `run` is the state of the latest call of the pipeline, `None` before the first.

    A pipeline call is seen through three of its own calls: `scheduler.set_timesteps` (the noise levels),
    `prepare_latents` (the first latents) and the one that encodes the image. Their order differs between pipelines; after
    the last one the run starts, and the first latents are rewritten in place.
    """

    def __init__(self, pipe: Any, methods: tuple[Method, ...], image: Any = None) -> None:
        self.pipe = pipe
        self.methods = methods
        self.image = image
        self.run: Run | None = None
        self._adapter = adapter_for(pipe)
        if is_hooked(pipe.scheduler):
            raise UnstillError(
                f"This {type(pipe).__name__} has methods already; give all of them to one apply, or remove() those first."
            )
        if image is not None and self._adapter.captures is not None:
            raise UnstillError(f"{type(pipe).__name__} encodes its image itself; give it to the call of the pipeline.")
        self._original_scheduler = pipe.scheduler
        self._scheduler = hooked(pipe.scheduler, self)
        self._process = ForwardProcess.of(self._scheduler, kind=self._adapter.kind)
        self._check()

        self._next = self._new_run()
        self._captured: Any = None  # result of the pipeline's method that encodes the image
        self._first: _First | None = None
        pipe.scheduler = self._scheduler
        self._undo = [self._observe(name) for name in {"prepare_latents", self._adapter.captures} - {None}]
        if self._having("on_condition"):
            self._undo += [self._observe_denoiser(name) for name in self._adapter.denoisers]

    def remove(self) -> None:
        """Restores the pipeline: its scheduler, its methods, its denoisers. Does nothing the second time."""
        if self.pipe.scheduler is self._scheduler:  # else the user has set another one since
            self.pipe.scheduler = self._original_scheduler
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    # --- at apply -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        target = Target(
            pipeline=type(self.pipe).__name__,
            process=self._process,
            order=self._scheduler.order,
            image_latents=self._adapter.captures is not None or self.image is not None,
            condition=bool(self._adapter.denoisers),
            held_frames=self._adapter.held_frames(self.pipe),
        )
        for i, method in enumerate(self.methods):
            method.check(self.methods[:i] + self.methods[i + 1 :], target)
        if self._having("on_condition") and not target.condition:
            raise UnstillError(
                f"{type(self._having('on_condition')[0]).__name__} changes the image latents that the denoiser sees, but the "
                f"denoiser of {target.pipeline} sees none."
            )

    def _having(self, hook: str) -> list[Method]:
        return [method for method in self.methods if method.implements(hook)]

    def _observe(self, name: str) -> Callable[[], None]:
        """Lets `_on_result` see, and change, what the pipeline's method `name` returns; gives the way back."""
        attributes = vars(self.pipe)
        before = {name: attributes[name]} if name in attributes else {}
        method = getattr(self.pipe, name)
        signature = inspect.signature(method)

        @functools.wraps(method)
        def observed(*args: Any, **kwargs: Any) -> Any:
            return self._on_result(name, signature.bind(*args, **kwargs).arguments, method(*args, **kwargs))

        def undo() -> None:
            del attributes[name]
            attributes.update(before)

        attributes[name] = observed
        return undo

    def _observe_denoiser(self, name: str) -> Callable[[], None]:
        denoiser = getattr(self.pipe, name)
        if denoiser is None:  # Wan 2.1 has no transformer_2
            return lambda: None
        return denoiser.register_forward_pre_hook(self._on_denoiser, with_kwargs=True).remove

    def _new_run(self) -> Run:
        return Run(process=self._process, methods=self.methods, held=self._adapter.held_frames(self.pipe))

    # --- during a call of the pipeline ----------------------------------------------------------------------------

    def on_set_timesteps(self, scheduler: Any) -> None:
        self._next.memory.clear()
        _schedule(self._next, scheduler, self._having("on_schedule"))
        self._arrived("set_timesteps")

    def copied(self) -> _ScheduleOnly:
        return _ScheduleOnly(self._having("on_schedule"))

    def _on_result(self, name: str, arguments: Arguments, result: Any) -> Any:
        if name == self._adapter.captures:
            self._captured = result
        if name == "prepare_latents":
            if self.pipe.scheduler is not self._scheduler:
                raise UnstillError("The pipeline was given another scheduler after apply; remove() and apply again.")
            latents, *others = result if isinstance(result, tuple) else (result,)
            latents = latents.clone()  # written in place later: it may be the user's own tensor
            self._first = _First(latents, arguments)
            result = (latents, *others) if isinstance(result, tuple) else latents
        self._arrived(name)
        return result

    def _arrived(self, name: str) -> None:
        """Starts the run after the last of the three calls that lead to it."""
        if name != self._adapter.starts_at or self._first is None:
            return
        adapter, first, run = self._adapter, self._first, self._next
        self.run, self._next, self._first = run, self._new_run(), None

        video = adapter.first_to_video(self.pipe, first.latents, first.arguments).float()
        batch, channels = video.shape[:2]
        if adapter.captures is not None:
            run.image_latents = adapter.image_latents(self.pipe, self._captured, batch, channels).float()
            self._captured = None
        elif self.image is not None:
            run.image_latents = self._encode_image(video)
        run.generator = first.arguments.get("generator")
        scale, offset = adapter.first_scale(self.pipe, run.image_latents)
        noise = run.noise = ((video - offset) / scale)[:, :, run.held :]
        latents = given = video[:, :, run.held :]
        run.frames = latents.shape[2]
        for method in self._having("on_noise"):
            run.noise = method.on_noise(run, run.noise)
        if run.noise is not noise:
            latents = (scale * run.noise + offset).to(given)
        for method in self._having("on_start"):
            latents = method.on_start(run, latents)
        if latents is not given:
            video = torch.cat([video[:, :, : run.held], latents.to(video)], dim=2)
            first.latents.copy_(adapter.first_from_video(self.pipe, video, first.arguments))

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        run = self.run
        if run is None:
            raise UnstillError(f"{type(self.pipe).__name__} takes a step but was not seen to start; call the pipeline itself.")
        adapter = self._adapter
        output, sample = (adapter.step_to_video(arguments[name], run.frames) for name in ("model_output", "sample"))
        held = output.shape[2] - run.frames  # some pipelines drop the held frames before the step, some after it
        seen = output[:, :, held:].float()
        result: torch.Tensor | NextSample = seen
        for method in self._having("on_step"):
            result = method.on_step(run, result, sample[:, :, held:].float(), arguments["timestep"])
            if isinstance(result, NextSample):
                break
        run.step += 1
        if isinstance(result, NextSample):
            video = torch.cat([sample[:, :, :held], result.sample.to(sample)], dim=2)
            return step_result(scheduler, arguments, adapter.step_from_video(video), run.step)
        if result is not seen:
            video = torch.cat([output[:, :, :held], result.to(output)], dim=2)
            arguments["model_output"] = adapter.step_from_video(video)
        before_step(scheduler, run.grid, run.step - 1)
        return call()

    def _on_denoiser(
        self, denoiser: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        run, adapter = self.run, self._adapter
        if run is None:
            return args, kwargs
        name = adapter.condition_input
        x = (kwargs[name] if name in kwargs else args[0]).clone()
        batch, channels = run.noise.shape[:2]
        view = adapter.condition_view(x, channels)
        rows = view[-batch:] if adapter.zero_unconditional else view
        scale = adapter.condition_scale(self.pipe)
        clean = rows[:batch].float() * scale
        edited = clean
        for method in self._having("on_condition"):
            edited = method.on_condition(run, edited)
        if edited is clean:
            return args, kwargs
        for part in rows.split(batch):
            part.copy_(edited / scale)
        if name in kwargs:
            return args, {**kwargs, name: x}
        return (x, *args[1:]), kwargs

    def _encode_image(self, video: torch.Tensor) -> torch.Tensor:
        """Latents of the image given to `apply`, at the size of the video latents."""
        space, _ = self._adapter.compression(self.pipe)
        picture = resize_and_crop(self.image.convert("RGB"), (video.shape[3] * space, video.shape[4] * space))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        return self._adapter.encode_video(self.pipe, pixels).to(video).expand(len(video), -1, -1, -1, -1)


class _First:
    """The tensor of first latents that the pipeline holds, and the arguments `prepare_latents` was called with."""

    def __init__(self, latents: torch.Tensor, arguments: Arguments) -> None:
        self.latents = latents
        self.arguments = arguments


class _ScheduleOnly:
    """Hooks of a scheduler that the pipeline copied from the hooked one: the copy visits the same noise levels."""

    def __init__(self, methods: list[Method]) -> None:
        self._methods = methods
        self._run: Run | None = None

    def on_set_timesteps(self, scheduler: Any) -> None:
        self._run = Run(process=ForwardProcess.of(scheduler))
        _schedule(self._run, scheduler, self._methods)

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        before_step(scheduler, self._run.grid, self._run.step)
        self._run.step += 1
        return call()

    def copied(self) -> Self:
        return type(self)(self._methods)


def _schedule(run: Run, scheduler: Any, methods: list[Method]) -> None:
    """Runs `schedule` hooks on what `scheduler.set_timesteps` has just set, and makes the scheduler visit the result."""
    given = run.grid = Grid.of(scheduler)
    for method in methods:
        run.grid = method.on_schedule(run, run.grid)
    if run.grid is not given:
        install(scheduler, run.grid)
