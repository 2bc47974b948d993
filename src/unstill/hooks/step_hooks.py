"""What methods do to a scheduler while it samples: the levels it visits, and each of its steps."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

from unstill.families.base import Adapter
from unstill.forward_process import ForwardProcess
from unstill.hooks.scheduler_hooks import Arguments, stand_at
from unstill.methods.base import Method, NextSample, Run
from unstill.noise_schedule import Grid, before_step, install


def schedule(run: Run, scheduler: Any) -> None:
    """Lets the methods change what `scheduler.set_timesteps` has just set; the scheduler visits the result."""
    run.states.clear()
    own = run.grid = Grid.of(scheduler)
    for method in run.methods:
        run.grid = method.on_schedule(run, run.grid)
    if run.grid is not own:
        install(scheduler, run.grid)


def correct(adapter: Adapter, run: Run, methods: Sequence[Method], arguments: Arguments) -> torch.Tensor | None:
    """
    Lets `methods` replace the model output among the arguments of `scheduler.step`; gives the next sample, as the
    pipeline holds it, if one of them knows it.
    """
    if not methods:
        return None
    output = adapter.step_to_video(arguments["model_output"], run.frames)
    sample = adapter.step_to_video(arguments["sample"], run.frames)
    fixed = output.shape[2] - run.frames  # some pipelines drop the conditioning frames before the step, some after it
    corrected = own = output[:, :, fixed:].float()
    for method in methods:
        result = method.on_step(run, corrected, sample[:, :, fixed:].float(), arguments["timestep"])
        if isinstance(result, NextSample):
            video = torch.cat([sample[:, :, :fixed], result.sample.to(sample)], 2)
            return adapter.step_from_video(video)
        corrected = result
    if corrected is not own:
        video = torch.cat([output[:, :, :fixed], corrected.to(output)], 2)
        arguments["model_output"] = adapter.step_from_video(video)
        if adapter.two_pass_step:
            arguments["pred_original_sample"] = arguments["model_output"]
    return None


def solve(run: Run, scheduler: Any, call: Callable[[], Any]) -> Any:
    """The scheduler's own step: `call()`."""
    if run.solver is None:
        before_step(scheduler, run.grid, run.step)
        return call()
    # Solvers look levels up by value and count them. Pipelines index them by step, so they come back afterwards.
    install(scheduler, run.solver.grid)
    stand_at(scheduler, run.step + run.solver.offset)
    result = call()
    install(scheduler, run.grid)
    stand_at(scheduler, run.step + 1)
    return result


class ScheduleOnly:
    """Hooks of a scheduler that a pipeline has copied from the hooked one: the copy visits the same noise levels."""

    def __init__(self, methods: tuple[Method, ...]) -> None:
        self._methods = methods

    def on_set_timesteps(self, scheduler: Any) -> None:
        self._run = Run(process=ForwardProcess.of(scheduler), methods=self._methods)
        schedule(self._run, scheduler)

    def on_step(self, scheduler: Any, arguments: Arguments, call: Callable[[], Any]) -> Any:
        before_step(scheduler, self._run.grid, self._run.step)
        self._run.step += 1
        return call()

    def copied(self) -> Self:
        return type(self)(self._methods)
