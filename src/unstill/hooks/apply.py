"""`unstill.apply`: adds methods to a diffusers pipeline and removes them again."""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.families.registry import adapter_for
from unstill.hooks.caches import check_caches
from unstill.hooks.caller import hook_pipeline, hooks_of
from unstill.hooks.checks import check_methods, pipeline_target, warn_of_handover
from unstill.hooks.condition_hooks import After, around_calls
from unstill.hooks.denoiser_hooks import around_denoiser, denoiser_names, with_hooks
from unstill.hooks.first_latents import Prepared, rewrite_first_latents
from unstill.hooks.guidance_hooks import Calls
from unstill.hooks.image_hooks import edited, edited_picture
from unstill.hooks.method_hooks import watch_block, watch_method
from unstill.hooks.scheduler_hooks import Arguments, hooked, skip_step, unhook
from unstill.hooks.step_hooks import ScheduleOnly, correct, schedule, solve
from unstill.methods.base import Method, Run


def apply(pipe: Any, *methods: Method, image: Image.Image | torch.Tensor | None = None) -> "Applied":
    """
    Applies `methods` to a diffusers pipeline: they act, in the order given, on every later call of it.

    Args:
        pipe: a pipeline of a supported class or of a subclass of one.
        *methods: with none, the pipeline's results stay the same bit for bit.
        image: the conditioning image, for methods that need its latents on a pipeline that encodes none
            (AnimateDiff); or these latents, `(1 or B, C, 1, H, W)`, normalised as the pipeline's video latents.

    Returns:
        A handle that is also a context manager. Leaving it, or `remove()`, restores the pipeline.

    Raises:
        UnstillError: an unknown pipeline, one with methods already, or methods that do not work on it or together.

    Example:
        ```py
        with unstill.apply(pipe, AnalyticInit(start=0.96, statistics="cars.safetensors"), NoiseRectification()):
            video = pipe(image, num_inference_steps=25, generator=generator).frames[0]
        ```
    """
    return Applied(pipe, methods, image)


def applied_to(pipe: Any) -> "Applied | None":
    """The handle of the methods applied to a pipeline, or `None`."""
    applied: Applied | None = hooks_of(pipe)
    return applied


class Applied:
    """
    Methods applied to a pipeline. `run` is the state of the latest pipeline call; `None` before the first one and
    without methods.

    Three calls inside the pipeline provide everything that methods need: `scheduler.set_timesteps` the noise levels,
    `prepare_latents` the initial latents, and a third one the image latents. The third call and the order of the three
    differ between pipelines; after the last of them (`Adapter.last_setup_call`) the run starts, and the initial
    latents are rewritten in place.

    Hooks act only while this pipeline is called, and in the thread of that call: the scheduler and the networks may be
    shared with other pipelines.
    """

    def __init__(
        self, pipe: Any, methods: tuple[Method, ...], image: Image.Image | torch.Tensor | None = None
    ) -> None:
        self.pipe = pipe
        self.methods = methods
        self.run: Run | None = None
        self._adapter = adapter_for(pipe)
        self._image = edited([method for method in methods if isinstance(method, Method)], image)
        if applied_to(pipe) is not None:
            raise UnstillError(
                f"This {type(pipe).__name__} has methods already; give all to one apply, or remove() those first."
            )
        if image is not None and self._adapter.image_latents_from is not None:
            raise UnstillError(
                f"{type(pipe).__name__} encodes its image itself; give the image to the pipeline's call."
            )
        if getattr(pipe, "scheduler", None) is None:
            raise UnstillError(
                f"This {type(pipe).__name__} has no scheduler, on whose noise levels methods act; load one first."
            )
        self._own_scheduler = pipe.scheduler
        self._scheduler = hooked(pipe.scheduler, self)
        self.process = self._adapter.process(self._scheduler)
        self._check()
        warn_of_handover(pipe, self._adapter, self.process, methods)

        self._lock = threading.Lock()  # held while the pipeline is called
        self._thread: int | None = None  # the thread of that call
        self._forget()
        names = {"prepare_latents", self._adapter.image_latents_from or "prepare_latents"}
        watch = watch_block if self._adapter.modular else watch_method
        self._undo = [watch(pipe, name, self._on_result) for name in names]
        self._watch_denoisers()
        pipe.scheduler = self._scheduler
        self._undo.append(hook_pipeline(pipe, self))

    def remove(self) -> None:
        """
        Restores the pipeline's class, scheduler, methods and denoisers; a second call does nothing. What other code
        has replaced since stays as it is.
        """
        if self.pipe.scheduler is self._scheduler:
            self.pipe.scheduler = self._own_scheduler
        unhook(self._scheduler)
        self._thread = None
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()

    def _check(self, image_latents: bool = True) -> None:
        target = pipeline_target(
            self.pipe,
            self._adapter,
            self.process,
            self.methods,
            order=self._scheduler.order,
            image_latents=image_latents and (self._adapter.image_latents_from is not None or self._image is not None),
        )
        check_methods(self.methods, target)

    @contextmanager
    def also(self, method: Method) -> Iterator[None]:
        """Adds one method, last in order, for the duration of the context."""
        before = self.methods
        try:
            self.methods = (*before, method)
            self._check()
            yield
        finally:
            self.methods = before

    def _watch_denoisers(self) -> None:
        for name in sorted(denoiser_names(self._adapter, self.methods)):
            network = getattr(self.pipe, name, None)
            if network is None:  # only Wan 2.2 A14B has two
                continue
            self._undo.append(around_calls(network, functools.partial(self._around_denoiser, network)))

    def _new_run(self) -> Run:
        return Run(
            process=self.process,
            methods=self.methods,
            conditioning_frames=self._adapter.conditioning_frames(self.pipe),
        )

    def _forget(self) -> None:
        """Clears the state of the previous call."""
        self._next = self._new_run()
        self._prepared: Prepared | None = None
        self._captured: Any = None  # the result of the method `Adapter.image_latents_from`
        self._latest: torch.Tensor | None = None  # the latest result of `scheduler.step`
        self._calls = Calls()

    @contextmanager
    def calling(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise UnstillError(
                f"This {type(self.pipe).__name__} with methods is being called already, and they keep the state of "
                "one call; wait for it, or apply to copy.copy(pipe) in each thread, which shares the networks."
            )
        try:
            self.run, self._thread = None, threading.get_ident()
            self._forget()
            yield
        finally:
            self._thread = self._prepared = self._captured = None
            self._lock.release()

    def call_arguments(
        self, method: Callable[..., Any], pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if methods := with_hooks(self.methods, "on_image"):
            return edited_picture(methods, method, pipe, args, kwargs)
        return args, kwargs

    @property
    def _acting(self) -> bool:
        return bool(self.methods) and self._thread == threading.get_ident()

    def own(self, scheduler: Any) -> Any:
        return self._own_scheduler if scheduler is self._scheduler else scheduler

    # Called during a pipeline call, in the order of most pipelines.

    def on_set_timesteps(self, scheduler: Any) -> None:
        if self._acting:
            schedule(self._next, scheduler)
            self._called("set_timesteps")

    def copied(self) -> ScheduleOnly | None:
        return ScheduleOnly(self.methods) if self._acting else None

    def _on_result(self, name: str, arguments: Arguments, result: Any) -> Any:
        if not self._acting:
            return result
        if name == self._adapter.image_latents_from:
            self._captured = result
        if name == "prepare_latents":
            if self.pipe.scheduler is not self._scheduler:
                raise UnstillError("The pipeline was given another scheduler after apply; remove() and apply again.")
            if getattr(self.pipe, "free_init_enabled", False):
                raise UnstillError(
                    "Methods do not work inside enable_free_init(); use disable_free_init() and FreeInit."
                )
            latents, *others = result if isinstance(result, tuple) else (result,)
            latents = latents.clone()  # rewritten in place below, and possibly the caller's own tensor
            self._prepared = Prepared(self._adapter.first_part(self.pipe, latents, arguments), arguments)
            result = (latents, *others) if isinstance(result, tuple) else latents
        self._called(name)
        return result

    def _called(self, name: str) -> None:
        if name == self._adapter.last_setup_call and self._prepared is not None:
            self.run, self._next, self._latest = self._next, self._new_run(), None
            prepared, self._prepared = self._prepared, None
            self._start(self.run, prepared)
            if not self._adapter.in_sections:  # whose image is encoded once, before the first section
                self._captured = None

    def _start(self, run: Run, prepared: Prepared) -> None:
        video = self._adapter.first_to_video(self.pipe, prepared.latents, prepared.arguments).float()
        self._set_image_latents(run, video)
        run.generator = prepared.arguments.get("generator")
        first_timestep = float(run.grid.timesteps[0])
        if self.process.inverted:  # Mochi tells its caches timesteps that go down
            first_timestep = self._scheduler.config.num_train_timesteps - first_timestep
        check_caches(self.pipe, first_timestep)
        rewrite_first_latents(self._adapter, self.pipe, run, self.methods, prepared, video)

    def _set_image_latents(self, run: Run, video: torch.Tensor) -> None:
        adapter = self._adapter
        if self._captured is not None:
            encoded = adapter.image_latents(self.pipe, self._captured, video).float()
            run.image_latents = encoded.expand(len(video), -1, -1, -1, -1)  # some pipelines hold one for all videos
        elif self._image is not None:
            size = len(video), video.shape[1], *video.shape[3:]
            run.encode_image = functools.partial(adapter.encode_image, self.pipe, self._image, size, video.device)
            run.image_latents = run.encode_image(None)
        elif adapter.image_latents_from is not None:  # some pipelines may be called without an image
            self._check(image_latents=False)

    def _around_denoiser(
        self, network: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> After | None:
        if not self._acting or self.run is None or self._calls.again:
            return None
        return around_denoiser(self._adapter, self.pipe, self.run, self.methods, self._calls, network, args, kwargs)

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        if not self._acting or (self._adapter.two_pass_step and "pred_original_sample" not in arguments):
            return call()
        run = self.run
        if run is None:
            raise UnstillError(
                f"{type(self.pipe).__name__} began to sample without a call of {self._adapter.last_setup_call}, where "
                "methods begin; call the pipeline as a whole, and with an image if it can be called without one."
            )
        if run.step == 0 and arguments["timestep"] != run.grid.timesteps[0]:
            arguments_of_call = inspect.signature(type(self.pipe).__call__).parameters
            name = "denoise_strength" if "denoise_strength" in arguments_of_call else "strength"
            raise UnstillError(
                f"{type(self.pipe).__name__} skips the first noise level of its scheduler; call it with {name}=1."
            )
        skipped_to = correct(self._adapter, self.pipe, run, with_hooks(self.methods, "on_step"), arguments)
        if skipped_to is None:
            result = solve(run, scheduler, call)
        else:
            result = skip_step(scheduler, arguments, skipped_to, run.step + 1)
        run.step += 1
        self._latest = result[0] if isinstance(result, tuple) else result.prev_sample
        return result

    @property
    def sample(self) -> torch.Tensor:
        """After the latest step, `(B, C, F, H, W)` without conditioning frames: after a call, the clean latents."""
        assert self.run is not None and self._latest is not None
        video = self._adapter.step_to_video(self.pipe, self._latest, self.run.noise.shape)
        return video[:, :, video.shape[2] - self.run.frames :].float()
