"""`unstill.apply`: puts methods into a pipeline, and takes them out again."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image

from unstill.attach.adapters import adapter_for
from unstill.attach.scheduler import Arguments, hooked, is_hooked, skip_step, stand_at
from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError
from unstill.grid import Grid, before_step, install
from unstill.methods.base import Method, NextSample, Run, Target
from unstill.process import ForwardProcess


def apply(pipe: Any, *methods: Method, image: Image.Image | torch.Tensor | None = None) -> "Applied":
    """
    Puts `methods` into a diffusers pipeline: they act, in the order given, on every later call of it.

    Args:
        pipe: a pipeline of a supported class, or of one that inherits from it.
        methods: without any, the pipeline computes bit for bit what it computes alone.
        image: the conditional image, for methods that need its latents on a pipeline that encodes none (AnimateDiff);
            or these latents, `(1 or B, C, 1, H, W)`, normalised as the pipeline's video latents.

    Returns:
        `Applied`: a handle, and a context manager. Leaving it, or `remove()`, restores the pipeline.

    Raises:
        UnstillError: unknown pipeline, one that has methods already, or methods that do not work on it or together.

    Example:
        ```py
        with unstill.apply(pipe, AnalyticInit(start=0.96, statistics="cars.safetensors"), NoiseRectification()):
            video = pipe(image, num_inference_steps=25, generator=generator).frames[0]
        ```
    """
    return Applied(pipe, methods, image)


def applied_to(pipe: Any) -> "Applied | None":
    """The methods that are in a pipeline now."""
    return getattr(pipe.scheduler, "_unstill_hooks", None)


class _First(NamedTuple):
    """What `prepare_latents` made: the tensor that the pipeline holds, and the arguments it came from."""

    latents: torch.Tensor
    arguments: Arguments


class Applied:
    """
    Methods in a pipeline. `run` is the state of the latest pipeline call, `None` before the first.

    Three calls that a pipeline makes itself tell all that methods need: `scheduler.set_timesteps` the noise levels,
    `prepare_latents` the first latents, and one that differs between pipelines the image latents. So does their order;
    after the last one (`Adapter.starts_at`) the run starts, and the first latents are rewritten in place.
    """

    def __init__(
        self, pipe: Any, methods: tuple[Method, ...], image: Image.Image | torch.Tensor | None = None
    ) -> None:
        self.pipe = pipe
        self.methods = methods
        self.run: Run | None = None
        self._adapter = adapter_for(pipe)
        self._image = image
        if is_hooked(pipe.scheduler):
            raise UnstillError(
                f"This {type(pipe).__name__} has methods already; give all to one apply, or remove() those first."
            )
        if image is not None and self._adapter.captures is not None:
            raise UnstillError(
                f"{type(pipe).__name__} encodes its image itself; give the image to the pipeline's call."
            )
        self._own_scheduler = pipe.scheduler
        self._scheduler = hooked(pipe.scheduler, self)
        self._process = ForwardProcess.of(self._scheduler, kind=self._adapter.kind)
        self._check()

        self._next = self._new_run()
        self._first: _First | None = None
        self._captured: Any = None  # what the method `Adapter.captures` has returned
        self._latest: torch.Tensor | None = None  # what `scheduler.step` has returned
        pipe.scheduler = self._scheduler
        self._undo = [self._observe(name) for name in {"prepare_latents", self._adapter.captures or "prepare_latents"}]
        if self._having("on_condition"):
            denoisers = (getattr(pipe, name, None) for name in self._adapter.denoisers)
            self._undo += [
                denoiser.register_forward_pre_hook(self._on_denoiser, with_kwargs=True).remove
                for denoiser in denoisers
                if denoiser is not None  # only Wan 2.2 A14B has two
            ]

    def remove(self) -> None:
        """Restores the pipeline's scheduler, methods and denoisers; nothing the second time."""
        if self.pipe.scheduler is self._scheduler:  # else someone has set another one, which stays
            self.pipe.scheduler = self._own_scheduler
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()

    def _check(self, image_latents: bool = True) -> None:
        target = Target(
            pipeline=type(self.pipe).__name__,
            process=self._process,
            order=self._scheduler.order,
            image_latents=image_latents and (self._adapter.captures is not None or self._image is not None),
            condition=bool(self._adapter.denoisers),
            held_frames=self._adapter.held_frames(self.pipe),
            copies=self._adapter.copies_scheduler,
        )
        for i, method in enumerate(self.methods):
            if not isinstance(method, Method):
                raise UnstillError(f"{method!r} is not a method; give an instance, such as EarlyStart(start=0.96).")
            method.check(self.methods[:i] + self.methods[i + 1 :], target)
        if (unseen := self._having("on_condition")) and not target.condition:
            raise UnstillError(
                f"{unseen[0].name} changes the image latents that the denoiser sees, and that of "
                f"{target.pipeline} sees none."
            )

    @contextmanager
    def also(self, method: Method) -> Iterator[None]:
        """One more method, last in order, for as long as the context lasts."""
        before = self.methods
        try:
            self.methods = self._next.methods = (*before, method)
            self._check()
            yield
        finally:
            self.methods = self._next.methods = before

    def _having(self, hook: str) -> list[Method]:
        return [method for method in self.methods if method.implements(hook)]

    def _new_run(self) -> Run:
        return Run(process=self._process, methods=self.methods, held=self._adapter.held_frames(self.pipe))

    def _observe(self, name: str) -> Callable[[], None]:
        """Lets `_on_result` see, and replace, what the pipeline's method `name` returns; gives the way back."""
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

    # During a call of the pipeline, in the order of most pipelines.

    def on_set_timesteps(self, scheduler: Any) -> None:
        self._next.memory.clear()
        _schedule(self._next, scheduler)
        self._called("set_timesteps")

    def copied(self) -> "_ScheduleOnly":
        return _ScheduleOnly(self.methods)

    def _on_result(self, name: str, arguments: Arguments, result: Any) -> Any:
        if name == self._adapter.captures:
            self._captured = result
        if name == "prepare_latents":
            if self.pipe.scheduler is not self._scheduler:
                raise UnstillError("The pipeline was given another scheduler after apply; remove() and apply again.")
            if getattr(self.pipe, "free_init_enabled", False):
                raise UnstillError(
                    "Methods do not work inside enable_free_init(); use disable_free_init() and FreeInit."
                )
            latents, *others = result if isinstance(result, tuple) else (result,)
            latents = latents.clone()  # it is rewritten in place, and may be the caller's own tensor
            self._first = _First(latents, arguments)
            result = (latents, *others) if isinstance(result, tuple) else latents
        self._called(name)
        return result

    def _called(self, name: str) -> None:
        if name == self._adapter.starts_at and self._first is not None:
            self.run, self._next = self._next, self._new_run()
            first, self._first = self._first, None
            self._start(self.run, first)
            self._captured = None

    def _start(self, run: Run, first: _First) -> None:
        adapter = self._adapter
        video = adapter.first_to_video(self.pipe, first.latents, first.arguments).float()
        if self._captured is not None:
            run.image_latents = adapter.image_latents(self.pipe, self._captured, video).float()
        elif self._image is not None:
            run.encode_image = functools.partial(self._encode_image, self._image, video)
            run.image_latents = run.encode_image(None)
        elif adapter.captures is not None:  # called without an image, which some pipelines may be
            self._check(image_latents=False)
        run.generator = first.arguments.get("generator")

        made = video
        if not run.grid.own:
            video = adapter.lower(self.pipe, made, run.image_latents)
        scale, offset = adapter.first_scale(self.pipe, run.image_latents)
        latents = own = video[:, :, run.held :]
        run.noise = noise = ((video - offset) / scale)[:, :, run.held :]
        run.frames = own.shape[2]
        # Who makes the first latents comes last, and builds on the noise of the others in whatever order they came.
        for method in sorted(self._having("on_noise"), key=lambda method: "latents" in method.owns):
            run.noise = method.on_noise(run, run.noise)
        if run.noise is not noise:
            latents = (scale * torch.cat([video[:, :, : run.held], run.noise], 2) + offset)[:, :, run.held :]
        for method in self._having("on_start"):
            latents = method.on_start(run, latents)
        if video is not made or latents is not own:
            video = torch.cat([video[:, :, : run.held], latents.to(video)], 2)
            first.latents.copy_(adapter.first_from_video(self.pipe, video, first.arguments))

    def _encode_image(
        self, image: Image.Image | torch.Tensor, video: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Latents of the image given to `apply`, `(B, C, 1, H, W)` at the size of the video latents."""
        if isinstance(image, torch.Tensor):
            shape = (len(video), video.shape[1], 1, *video.shape[3:])
            if image.shape not in (shape, (1, *shape[1:])):
                raise UnstillError(
                    f"The image latents given to apply are {tuple(image.shape)}, and this call needs {shape}."
                )
            return image.to(video).expand(shape)
        space, _ = self._adapter.compression(self.pipe)
        picture = resize_and_crop(image.convert("RGB"), (video.shape[3] * space, video.shape[4] * space))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        return self._adapter.encode_video(self.pipe, pixels, generator).to(video).expand(len(video), -1, -1, -1, -1)

    def _on_denoiser(self, denoiser: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A forward pre-hook: rewrites the image latents in the denoiser's input."""
        run, adapter = self.run, self._adapter
        if run is None:  # called outside of the pipeline
            return None
        name = adapter.condition_input
        x = (kwargs[name] if name in kwargs else args[0]).clone()
        batch, channels = run.noise.shape[:2]
        rows = adapter.condition_view(x, channels)
        if adapter.zero_unconditional:
            rows = rows[-batch:]
        scale = adapter.condition_scale(self.pipe)
        edited = clean = rows[:batch].float() * scale
        for method in self._having("on_condition"):
            edited = method.on_condition(run, edited)
        if edited is clean:
            return None
        for part in rows.split(batch):
            part.copy_(edited / scale)
        return (args, {**kwargs, name: x}) if name in kwargs else ((x, *args[1:]), kwargs)

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        run = self.run
        if run is None:
            raise UnstillError(f"{type(self.pipe).__name__} was not seen to start; call the pipeline as a whole.")
        if run.step == 0 and arguments["timestep"] != run.grid.timesteps[0]:
            raise UnstillError(
                f"{type(self.pipe).__name__} skips the first noise level of its scheduler; call it with strength=1."
            )
        skipped_to = self._correct(run, arguments)
        if skipped_to is None:
            result = self._solve(run, scheduler, call)
        else:
            result = skip_step(scheduler, arguments, skipped_to, run.step + 1)
        run.step += 1
        self._latest = result[0] if isinstance(result, tuple) else result.prev_sample
        return result

    def _solve(self, run: Run, scheduler: Any, call: Callable[[], Any]) -> Any:
        if run.solver is None:
            before_step(scheduler, run.grid, run.step)
            return call()
        # Solvers look levels up by value and count them. Pipelines index them by step, so they come back afterwards.
        grid, ahead = run.solver
        install(scheduler, grid)
        stand_at(scheduler, run.step + ahead)
        result = call()
        install(scheduler, run.grid)
        stand_at(scheduler, run.step + 1)
        return result

    def _correct(self, run: Run, arguments: Arguments) -> torch.Tensor | None:
        """Lets the methods replace the model output in `arguments`; the next sample, if one of them knows it."""
        methods = self._having("on_step")
        if not methods:
            return None
        adapter = self._adapter
        output = adapter.step_to_video(arguments["model_output"], run.frames)
        sample = adapter.step_to_video(arguments["sample"], run.frames)
        held = output.shape[2] - run.frames  # some pipelines drop the held frames before the step, some after it
        corrected = own = output[:, :, held:].float()
        for method in methods:
            result = method.on_step(run, corrected, sample[:, :, held:].float(), arguments["timestep"])
            if isinstance(result, NextSample):
                video = torch.cat([sample[:, :, :held], result.sample.to(sample)], 2)
                return adapter.step_from_video(video)
            corrected = result
        if corrected is not own:
            video = torch.cat([output[:, :, :held], corrected.to(output)], 2)
            arguments["model_output"] = adapter.step_from_video(video)
        return None

    @property
    def sample(self) -> torch.Tensor:
        """The sample after the latest step, `(B, C, F, H, W)` without held frames: after a call, the clean latents."""
        assert self.run is not None and self._latest is not None
        video = self._adapter.step_to_video(self._latest, self.run.frames)
        return video[:, :, video.shape[2] - self.run.frames :].float()


class _ScheduleOnly:
    """Hooks of a scheduler that a pipeline has copied from the hooked one: the copy visits the same noise levels."""

    def __init__(self, methods: tuple[Method, ...]) -> None:
        self._methods = methods

    def on_set_timesteps(self, scheduler: Any) -> None:
        self._run = Run(process=ForwardProcess.of(scheduler), methods=self._methods)
        _schedule(self._run, scheduler)

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        before_step(scheduler, self._run.grid, self._run.step)
        self._run.step += 1
        return call()

    def copied(self) -> Self:
        return type(self)(self._methods)


def _schedule(run: Run, scheduler: Any) -> None:
    """Lets the methods change what `scheduler.set_timesteps` has just set, and the scheduler visit the result."""
    own = run.grid = Grid.of(scheduler)
    for method in run.methods:
        run.grid = method.on_schedule(run, run.grid)
    if run.grid is not own:
        install(scheduler, run.grid)
