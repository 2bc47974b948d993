"""How methods change sampling: the noise levels of the scheduler and the model output before each of its steps."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

from unstill.families.base import Adapter
from unstill.forward_process import ForwardProcess
from unstill.hooks.scheduler_hooks import Arguments, set_step_index
from unstill.methods.base import Method, NextSample, Run
from unstill.noise_schedule import Grid, before_step, install


def schedule(run: Run, scheduler: Any) -> None:
    """Applies `on_schedule` of the run's methods to the timesteps that `scheduler.set_timesteps` has just set."""
    run.states.clear()
    own = run.grid = Grid.of(scheduler)
    for method in run.methods:
        run.grid = method.on_schedule(run, run.grid)
    if run.grid is not own:
        install(scheduler, run.grid)


def correct(
    adapter: Adapter, pipe: Any, run: Run, methods: Sequence[Method], arguments: Arguments
) -> torch.Tensor | None:
    """
    Applies `on_step` of `methods` to the model output among the arguments of `scheduler.step`, in place.

    Args:
        adapter: the adapter of the pipeline's class.
        pipe: the pipeline.
        run: state of the current pipeline call.
        methods: those with an `on_step` hook, in order.
        arguments: of `scheduler.step`, by name.

    Returns:
        The next sample in the pipeline's layout where a method decides it, which skips the solver; else `None`.
    """
    if not methods:
        return None
    output = adapter.step_to_video(pipe, arguments["model_output"], run.noise.shape)
    sample = adapter.step_to_video(pipe, arguments["sample"], run.noise.shape)
    fixed = output.shape[2] - run.frames  # some pipelines drop the conditioning frames before the step, some after it
    corrected = own = output[:, :, fixed:].float()
    for method in methods:
        result = method.on_step(run, corrected, sample[:, :, fixed:].float(), arguments["timestep"])
        if isinstance(result, NextSample):
            video = torch.cat([sample[:, :, :fixed], result.sample.to(sample)], 2)
            return adapter.step_from_video(pipe, video, arguments["sample"])
        corrected = result
    if corrected is not own:
        video = torch.cat([output[:, :, :fixed], corrected.to(output)], 2)
        arguments["model_output"] = adapter.step_from_video(pipe, video, arguments["model_output"])
        if adapter.two_pass_step:
            arguments["pred_original_sample"] = arguments["model_output"]
    return None


def solve(run: Run, scheduler: Any, call: Callable[[], Any]) -> Any:
    """Runs the scheduler's own step, `call()`, on the noise levels that it expects."""
    if run.solver is None:
        before_step(scheduler, run.grid, run.step)
        return call()
    # The solver looks levels up by value and counts them, while the pipeline indexes them by step: the solver's grid
    # is installed for this step only.
    install(scheduler, run.solver.grid)
    set_step_index(scheduler, run.step + run.solver.offset)
    result = call()
    install(scheduler, run.grid)
    set_step_index(scheduler, run.step + 1)
    return result


class ScheduleOnly:
    """Hooks for a deep copy of the hooked scheduler (LTX 2 copies it for audio): it visits the same noise levels."""

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
