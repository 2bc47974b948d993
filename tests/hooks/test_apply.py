"""Methods in real diffusers pipelines (tiny, random): what reaches the sampler, what is restored, what is refused."""

import copy
import inspect
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from torch.utils._python_dispatch import TorchDispatchMode

import unstill
from tests.pipelines import CASES, easyanimate, picture, pipeline, sample, shown
from unstill.errors import UnstillError
from unstill.hooks import ADAPTERS, adapter_for
from unstill.hooks.scheduler_hooks import is_hooked
from unstill.methods.base import Method, NextSample, Run, Target
from unstill.methods.early_start import EarlyStart
from unstill.noise_schedule import level_of


every_pipeline = pytest.mark.parametrize("name", CASES)
# one pipeline for each class of scheduler
FAMILIES = [
    f"{model}Pipeline"
    for model in ("StableVideoDiffusion", "AnimateDiff", "CogVideoXImageToVideo", "WanImageToVideo", "LTXImageToVideo")
]
COSMOS_1 = "CosmosVideoToWorldPipeline", "CosmosTextToWorldPipeline"
COSMOS = *COSMOS_1, "Cosmos2VideoToWorldPipeline"
VARIANTS = [(name, variant) for name, case in CASES.items() for variant in (None, *case.schedulers)]


@pytest.fixture
def pipe(name: str) -> Any:
    return pipeline(name)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spy(Method):
    """Overrides every hook, changes nothing, keeps what it saw."""

    seen: dict[str, Any]

    def on_schedule(self, run: Run, grid: Any) -> Any:
        self.seen["grid"] = grid
        return grid

    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        self.seen["noise"] = noise
        return noise

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        self.seen["start"] = latents
        return latents

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: Any) -> torch.Tensor:
        self.seen.setdefault("steps", []).append((run.step, output, sample))
        self.seen.setdefault("timesteps", []).append(float(t))
        return output


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Condition(Method):
    seen: list[torch.Tensor]
    add: float = 0.0

    def on_condition(self, run: Run, image_latents: torch.Tensor) -> torch.Tensor:
        self.seen.append(image_latents)
        return image_latents + self.add if self.add else image_latents


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill(Method):
    value: float

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        return torch.full_like(latents, self.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Negated(Method):
    def on_noise(self, run: Run, noise: torch.Tensor) -> torch.Tensor:
        return -noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Add(Method):
    value: float
    steps: tuple[int, ...] = (0, 1)

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: Any) -> torch.Tensor:
        return output + self.value if run.step in self.steps else output


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant(Method):
    """The next sample is a constant, at the first `until` steps."""

    value: float
    until: int

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: Any) -> torch.Tensor | NextSample:
        return NextSample(torch.full_like(sample, self.value)) if run.step < self.until else output


@dataclass(frozen=True, kw_only=True, slots=True)
class Picky(Method):
    def check(self, others: Sequence[Method], target: Target) -> None:
        raise UnstillError("no")


def model_inputs(pipe: Any, call: Any) -> list[torch.Tensor]:
    """What the denoiser is given while `call()` runs."""
    inputs = []
    denoiser = getattr(pipe, "unet", None) or pipe.transformer

    def look(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((kwargs[name] if name in kwargs else args[0]).clone())

    name = adapter_for(pipe).condition_input
    handle = denoiser.register_forward_pre_hook(look, with_kwargs=True)
    call()
    handle.remove()
    return inputs


def with_scheduler(name: str, variant: str | None) -> Any:
    pipe = copy.copy(pipeline(name))  # shares the networks
    if variant is not None:
        pipe.scheduler = CASES[name].schedulers[variant]()
    return pipe


@cache
def plain_sample(name: str, variant: str | None = None) -> torch.Tensor:
    """What the pipeline samples on its own."""
    return sample(CASES[name], with_scheduler(name, variant))


@cache
def observed(name: str) -> tuple[dict[str, Any], Run]:
    """What hooks see of a call that they do not change, and the state of that call."""
    spy, pipe = Spy(seen={}), pipeline(name)
    with unstill.apply(pipe, spy) as handle:
        sample(CASES[name], pipe)
    return spy.seen, handle.run


# --- nothing changes that no method changes --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_hooks_that_change_nothing_leave_the_pipeline_bit_identical(name: str, variant: str | None) -> None:
    case, pipe = CASES[name], with_scheduler(name, variant)
    methods: list[Method] = [Spy(seen={})]
    if case.condition:
        methods.append(Condition(seen=[]))
    with unstill.apply(pipe):
        assert torch.equal(sample(case, pipe), plain_sample(name, variant))
    with unstill.apply(pipe, *methods):
        assert torch.equal(sample(case, pipe), plain_sample(name, variant))


@every_pipeline
def test_remove_restores_scheduler_attributes_and_hooks(name: str, pipe: Any) -> None:
    case = CASES[name]
    before = dict(vars(pipe))
    scheduler = pipe.scheduler
    state = copy.deepcopy(vars(scheduler))
    hooks = {key: len(m._forward_pre_hooks) for key, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
    handle = unstill.apply(pipe, EarlyStart(**case.level), *([Condition(seen=[], add=1.0)] if case.condition else []))
    sample(case, pipe)
    handle.remove()
    assert pipe.scheduler is scheduler
    assert {k: v for k, v in vars(pipe).items() if not k.startswith("_")} == {
        k: v for k, v in before.items() if not k.startswith("_")
    }
    assert hooks == {
        key: len(m._forward_pre_hooks) for key, m in pipe.components.items() if isinstance(m, torch.nn.Module)
    }
    for key, value in state.items():
        assert torch.equal(value, vars(scheduler)[key]) if isinstance(value, torch.Tensor) else True
    assert set(vars(scheduler)) == set(state)
    handle.remove()  # the second time it does nothing
    assert torch.equal(sample(case, pipe), plain_sample(name))


def test_remove_keeps_a_method_that_someone_else_had_put_on_the_instance() -> None:
    pipe = copy.copy(pipeline("AnimateDiffPipeline"))
    mine = pipe.prepare_latents
    pipe.prepare_latents = mine
    unstill.apply(pipe).remove()
    assert vars(pipe)["prepare_latents"] is mine


def test_leaving_with_an_error_restores() -> None:
    pipe = pipeline("AnimateDiffPipeline")
    scheduler = pipe.scheduler
    with pytest.raises(RuntimeError), unstill.apply(pipe, EarlyStart(start=0.9)):
        raise RuntimeError
    assert pipe.scheduler is scheduler


# --- what methods see and do -----------------------------------------------------------------------------------------


@every_pipeline
def test_hooks_see_video_latents(name: str) -> None:
    case, (seen, run) = CASES[name], observed(name)
    channels, frames, height, width = case.latents
    shape = (1, channels, frames - case.held, height, width)
    assert seen["noise"].shape == seen["start"].shape == shape
    assert [step for step, _, _ in seen["steps"]] == [0, 1]
    assert all(output.shape == x.shape == shape for _, output, x in seen["steps"])
    assert run.frames == frames - case.held and run.conditioning_frames == case.held
    assert torch.equal(seen["steps"][0][2], seen["start"])
    assert abs(run.noise.std().item() - 1) < 0.35
    if case.image:
        assert run.image_latents.shape == (1, channels, 1, height, width)
    else:
        assert run.image_latents is None


@every_pipeline
def test_first_latents_are_exactly_those_of_the_method(name: str, pipe: Any) -> None:
    case = CASES[name]
    spy = Spy(seen={})
    with unstill.apply(pipe, Fill(value=0.123), spy):
        sample(case, pipe)
    first = spy.seen["steps"][0][2]
    assert torch.equal(first, torch.full_like(first, 0.123))


@every_pipeline
def test_new_noise_is_scaled_as_the_pipeline_scales_its_own(name: str, pipe: Any) -> None:
    case, (seen, _) = CASES[name], observed(name)
    spy = Spy(seen={})
    with unstill.apply(pipe, Negated(), spy) as handle:
        sample(case, pipe)
        scale, _ = adapter_for(pipe).first_scale(pipe, handle.run.image_latents)  # of the scheduler that sampled
    torch.testing.assert_close(spy.seen["start"], seen["start"] - 2 * scale * seen["noise"])
    torch.testing.assert_close(handle.run.noise, -seen["noise"])


@every_pipeline
def test_the_callers_latents_are_not_written_to(name: str, pipe: Any) -> None:
    case, (seen, _) = CASES[name], observed(name)
    noise = seen["noise"]
    if name == "HunyuanVideoFramepackPipeline":
        assert "latents" not in inspect.signature(type(pipe).__call__).parameters
        return
    if name == "EasyAnimateInpaintPipeline":  # which takes none with a flow-matching scheduler
        with pytest.raises(UnboundLocalError, match="noise"):
            sample(case, pipe, latents=noise)
        return
    noise = torch.cat([noise[:, :, : case.held], noise], 2)
    if not name.startswith("LTX2"):  # which packs the caller's latents itself
        noise = adapter_for(pipe).first_from_video(pipe, noise, case.call).contiguous()
    latents = noise.clone()
    with unstill.apply(pipe, Fill(value=0.5)):
        sample(case, pipe, latents=latents)
    if name == "SanaImageToVideoPipeline":  # which writes the image into frame 0 of the caller's latents
        latents, noise = latents[:, :, 1:], noise[:, :, 1:]
    assert torch.equal(latents, noise)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_same_seed_twice_gives_the_same_video_and_methods_act(name: str, variant: str | None) -> None:
    case, pipe = CASES[name], with_scheduler(name, variant)
    with unstill.apply(pipe, EarlyStart(**case.level), Add(value=0.1, steps=(1,))):
        first = sample(case, pipe)
        assert torch.equal(sample(case, pipe), first)
    assert first.isfinite().all() and not torch.equal(first, plain_sample(name, variant))


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_corrected_output_is_what_the_solver_uses(name: str, variant: str | None) -> None:
    """The same numbers as when the network itself had put them out."""
    case, pipe = CASES[name], with_scheduler(name, variant)
    with unstill.apply(pipe, Add(value=0.1)):
        corrected = sample(case, pipe, **case.unguided)
    denoisers = [pipe.components.get(key) for key in ("unet", "transformer", "transformer_2")]

    def add(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        value = 0.1
        if name == "Cosmos2VideoToWorldPipeline":  # whose network predicts a flow at t = sigma / (sigma + 1)
            value /= 1 - kwargs["timestep"].max().item()
        elif name in COSMOS_1:  # where methods correct x0, of which that is c_out times the output
            sigma = math.exp(4 * kwargs["timestep"].max().item())
            value *= math.hypot(sigma, 0.5) / (sigma * 0.5)
        elif name == "LTXConditionPipeline":  # which steps by the opposite of the velocity
            value = -value
        if isinstance(output, tuple):
            return (output[0] + value, *output[1:])
        output.sample = output.sample + value
        return output

    handles = [denoiser.register_forward_hook(add, with_kwargs=True) for denoiser in denoisers if denoiser is not None]
    expected = sample(case, pipe, **case.unguided)
    for handle in handles:
        handle.remove()
    atol = 8e-5 if name in COSMOS else 1e-5  # one part in a million of its first sigma, 80
    torch.testing.assert_close(corrected, expected, rtol=1.3e-6, atol=atol)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_next_sample_skips_the_solver(name: str, variant: str | None) -> None:
    case, pipe = CASES[name], with_scheduler(name, variant)
    spy = Spy(seen={})
    with unstill.apply(pipe, spy, Constant(value=0.25, until=1)):
        final = sample(case, pipe, num_inference_steps=3)
    second = spy.seen["steps"][1][2]
    assert torch.equal(second, torch.full_like(second, 0.25))
    assert final.isfinite().all()


@every_pipeline
def test_the_denoiser_sees_the_condition_of_the_method(name: str, pipe: Any) -> None:
    case = CASES[name]
    if not case.condition:
        with pytest.raises(UnstillError, match="shows it none"):
            unstill.apply(pipe, Condition(seen=[]))
        return
    adapter, channels = adapter_for(pipe), case.latents[0]
    plain = model_inputs(pipe, lambda: sample(case, pipe))
    method = Condition(seen=[], add=0.5)
    with unstill.apply(pipe, method) as handle:
        edited = model_inputs(pipe, lambda: sample(case, pipe))
        image_latents = handle.run.image_latents
    assert 2 <= len(plain) == len(edited) <= len(method.seen)
    for seen in method.seen:  # and never what was made of it before
        torch.testing.assert_close(seen, image_latents.expand_as(seen))
    views = [[adapter.condition_view(x, channels)[-1:] for x in inputs] for inputs in (plain, edited)]
    for before, after in zip(*views, strict=True):
        torch.testing.assert_close(after - before, torch.full_like(after, 0.5 / adapter.condition_scale(pipe)))
    # and nothing else of the input has changed
    changed = (plain[0] != edited[0]).sum() / views[0][0].numel()
    assert changed in (1, len(plain[0]))


class Synchronisations(TorchDispatchMode):
    """Counts how often a number is read out of a tensor that would be on the device; tables of a process are not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default and args[0].dtype != torch.float64
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading(Method):
    """Does what no method should."""

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: Any) -> torch.Tensor:
        return output + 0.1 if output.mean() > 0 else output


@pytest.mark.parametrize("name", FAMILIES)
def test_no_step_waits_for_the_device(name: str, pipe: Any) -> None:
    """Three more steps read as many numbers back as they do without methods."""
    case = CASES[name]
    image = {} if case.image else {"image": picture()}

    def reads(steps: int) -> int:
        with Synchronisations() as counted:
            sample(case, pipe, num_inference_steps=steps)
        return counted.count

    plain = reads(6) - reads(3)
    methods = (EarlyStart(**case.level), unstill.NoiseRectification(period=(0, 1)))
    with unstill.apply(pipe, *methods, **image):
        assert reads(6) - reads(3) <= plain
    with unstill.apply(pipe, Reading()):  # which the count notices
        assert reads(6) - reads(3) == plain + 3


@pytest.mark.parametrize("name", ["AnimateDiffPipeline", "LTXImageToVideoPipeline"])
def test_a_call_that_failed_leaves_nothing_behind(name: str, pipe: Any) -> None:
    case = CASES[name]

    def fail(*args: Any) -> None:
        raise RuntimeError

    with unstill.apply(pipe, EarlyStart(**case.level), Add(value=0.1)):
        expected = sample(case, pipe)
        with pytest.raises(RuntimeError):
            sample(case, pipe, callback_on_step_end=fail)
        assert torch.equal(sample(case, pipe), expected)


@pytest.mark.parametrize(
    ("name", "longer"),
    [
        ("WanAnimatePipeline", {"pose_video": [picture()] * 17, "face_video": [picture()] * 17}),
        ("HunyuanVideoFramepackPipeline", {"num_frames": 18}),
    ],
)
def test_every_section_is_a_video_to_methods(name: str, longer: dict[str, Any]) -> None:
    case, pipe = CASES[name], pipeline(name)
    plain = sample(case, pipe, **longer)
    with unstill.apply(pipe):
        assert torch.equal(sample(case, pipe, **longer), plain)
    spy, condition = Spy(seen={}), Condition(seen=[], add=0.5)
    with unstill.apply(pipe, EarlyStart(**case.level), spy, condition) as handle:
        changed = sample(case, pipe, **longer)
        image_latents = handle.run.image_latents
    assert [step for step, _, _ in spy.seen["steps"]] == [0, 1, 0, 1]
    assert spy.seen["timesteps"][:2] == spy.seen["timesteps"][2:] and spy.seen["timesteps"][0] == pytest.approx(960)
    assert all(torch.equal(seen, image_latents) for seen in condition.seen) and len(condition.seen) >= 4
    assert not torch.equal(changed, plain) and torch.equal(sample(case, pipe, **longer), plain)
    with pytest.raises(UnstillError, match="in sections"):
        unstill.free_init(pipe, unstill.FreeInit(), **case.call)


@pytest.mark.parametrize("name", ["Cosmos2VideoToWorldPipeline", "Cosmos2_5_PredictBasePipeline"])
def test_the_held_frame_of_cosmos_is_the_image_from_any_start(name: str, pipe: Any) -> None:
    """It is stepped by what the network is made to say of it, from first latents that belong to the level."""
    case = CASES[name]
    spy = Spy(seen={})
    with unstill.apply(pipe, EarlyStart(**case.level), spy) as handle:
        final = sample(case, pipe, num_inference_steps=4)
    last = handle.run.grid.sigmas[-1].item()
    tolerance = 5 * last + 2e-3 if name.startswith("Cosmos2V") else 1e-5
    torch.testing.assert_close(final[:, :, :1], handle.run.image_latents, rtol=0, atol=tolerance)
    alpha, sigma = handle.run.process.alpha_sigma(0, step=0)
    torch.testing.assert_close(spy.seen["start"], observed(name)[0]["noise"] * (sigma if alpha == 1 else 1.0))
    with unstill.apply(pipe, Spy(seen={})), pytest.raises(UnstillError, match="give it one image or frame"):
        more = {"num_latent_conditional_frames": 2} if "video" in case.call else {"image": None}
        sample(case, pipe, video=[picture()] * 5, **more)


# --- noise levels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_early_start_begins_exactly_at_the_level(name: str, variant: str | None) -> None:
    case, pipe = CASES[name], with_scheduler(name, variant)
    spy = Spy(seen={})
    with unstill.apply(pipe, EarlyStart(**case.level), spy) as handle:
        sample(case, pipe, num_inference_steps=3)
    run = handle.run
    timestep, alpha, sigma = level_of(run.process, **case.level)
    assert run.process.alpha_sigma(spy.seen["timesteps"][0], step=0) == pytest.approx((alpha, sigma), rel=1e-6)
    assert spy.seen["timesteps"] == run.grid.timesteps.tolist()
    assert len(spy.seen["timesteps"]) == 3
    if case.level == {"start": 0.96} and run.process.kind in ("vp", "vp_sigma"):
        assert spy.seen["timesteps"][0] == 959
    if run.process.kind == "flow":
        assert run.grid.sigmas[0] == pytest.approx(0.04 if run.process.inverted else 0.96)


# --- a hooked scheduler is still the scheduler -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_hooked_scheduler_looks_like_its_own_class(name: str, pipe: Any, tmp_path: Any) -> None:
    case, scheduler = CASES[name], pipe.scheduler
    cls = type(scheduler)
    with unstill.apply(pipe, EarlyStart(**case.level)):
        hooked = pipe.scheduler
        assert is_hooked(hooked) and isinstance(hooked, cls)
        assert (type(hooked).__name__, type(hooked).__module__) == (cls.__name__, cls.__module__)
        for method in ("step", "set_timesteps"):
            assert inspect.signature(getattr(hooked, method)) == inspect.signature(getattr(scheduler, method))
        assert dict(hooked.config) == dict(scheduler.config)

        sample(case, pipe)
        pickled = pickle.loads(pickle.dumps(hooked))
        assert type(pickled) is cls and torch.equal(pickled.timesteps, hooked.timesteps)
        assert type(copy.copy(hooked)) is cls

        pipe.scheduler.save_pretrained(tmp_path / "scheduler")
        assert json.loads((tmp_path / "scheduler/scheduler_config.json").read_text())["_class_name"] == cls.__name__
        assert type(cls.from_pretrained(tmp_path / "scheduler")) is cls
        assert not is_hooked(type(pipe.scheduler).from_config(pipe.scheduler.config))


def test_a_deep_copy_visits_the_same_levels_and_takes_no_corrections() -> None:
    """As LTX2 does for its audio."""
    pipe = pipeline("AnimateDiffPipeline")
    output, x = torch.randn(2, 1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with unstill.apply(pipe, EarlyStart(start=0.5), Add(value=1.0)) as handle, handle.calling():
        twin = copy.deepcopy(pipe.scheduler)
        for scheduler in (twin, pipe.scheduler):
            scheduler.set_timesteps(4)
        assert torch.equal(twin.timesteps, pipe.scheduler.timesteps) and twin.timesteps[0] == 499
        stepped = twin.step(output, twin.timesteps[0], x).prev_sample
    # DDIM (eta = 0) to the next visited timestep
    now, after = (twin.alphas_cumprod[t] for t in twin.timesteps[:2])
    x0 = (x - (1 - now) ** 0.5 * output) / now**0.5
    torch.testing.assert_close(stepped, after**0.5 * x0 + (1 - after) ** 0.5 * output)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_unknown_pipeline_is_refused_by_name() -> None:
    class Other(diffusers.DiffusionPipeline):
        pass

    with pytest.raises(UnstillError, match=r"Other is not a supported pipeline.*AnimateDiffPipeline"):
        unstill.apply(Other())

    class WanImageToVideo3Pipeline(diffusers.DiffusionPipeline):
        pass

    with pytest.raises(UnstillError, match="of the nearest name is WanImageToVideoPipeline"):
        unstill.apply(WanImageToVideo3Pipeline())


def test_every_supported_pipeline_is_tested() -> None:
    modular = {name for name in ADAPTERS if name.endswith("ModularPipeline")}  # in test_modular.py
    assert {type(pipeline(name)).__name__ for name in CASES} == set(ADAPTERS) - modular


def test_a_subclass_of_a_known_pipeline_works() -> None:
    class Mine(diffusers.AnimateDiffPipeline):
        pass

    pipe = Mine(**pipeline("AnimateDiffPipeline").components)
    pipe.set_progress_bar_config(disable=True)
    with unstill.apply(pipe, Fill(value=0.0)):
        sample(CASES["AnimateDiffPipeline"], pipe)


def test_applying_twice_is_refused_and_changes_nothing() -> None:
    pipe = pipeline("AnimateDiffPipeline")
    with unstill.apply(pipe) as handle:
        hooked = pipe.scheduler
        with pytest.raises(UnstillError, match="has methods already"):
            unstill.apply(pipe, EarlyStart(start=0.9))
        assert pipe.scheduler is hooked
        handle.remove()
        unstill.apply(pipe).remove()


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ([EarlyStart], "is not a method"),
        ([EarlyStart(start=0.9), EarlyStart(start=0.8)], "twice"),
        ([Fill(value=0.0), Picky()], "no"),
    ],
)
def test_a_refused_combination_leaves_the_pipeline_as_it_was(methods: list[Method], reason: str) -> None:
    pipe = pipeline("AnimateDiffPipeline")
    scheduler = pipe.scheduler
    with pytest.raises(UnstillError, match=reason):
        unstill.apply(pipe, *methods)
    assert pipe.scheduler is scheduler and "prepare_latents" not in vars(pipe)


def test_a_pipeline_without_a_scheduler_is_refused() -> None:
    """One that was made to encode prompts only."""
    pipe = copy.copy(pipeline("AnimateDiffPipeline"))
    pipe.scheduler = None
    with pytest.raises(UnstillError, match="AnimateDiffPipeline has no scheduler"):
        unstill.apply(pipe)
    assert "prepare_latents" not in vars(pipe)


def test_a_scheduler_set_after_apply_is_reported_and_kept() -> None:
    case, pipe = CASES["AnimateDiffPipeline"], copy.copy(pipeline("AnimateDiffPipeline"))
    with unstill.apply(pipe, EarlyStart(start=0.9)):
        pipe.scheduler = new = case.schedulers["UniPC"]()
        with pytest.raises(UnstillError, match="another scheduler"):
            sample(case, pipe)
    assert pipe.scheduler is new


def test_a_start_in_the_middle_of_the_schedule_is_refused() -> None:
    """PIA then noises the image itself, and the first latents of a method would be lost."""
    pipe = pipeline("PIAPipeline")
    with unstill.apply(pipe, Spy(seen={})), pytest.raises(UnstillError, match="strength=1"):
        sample(CASES["PIAPipeline"], pipe, strength=0.5)


def test_the_free_init_of_diffusers_is_refused() -> None:
    pipe = copy.copy(pipeline("AnimateDiffPipeline"))
    pipe.enable_free_init()
    with unstill.apply(pipe, Spy(seen={})), pytest.raises(UnstillError, match="disable_free_init"):
        sample(CASES["AnimateDiffPipeline"], pipe)


# --- pixels ----------------------------------------------------------------------------------------------------------


@every_pipeline
def test_encode_and_decode_are_those_of_the_pipeline(name: str, pipe: Any) -> None:
    case, adapter = CASES[name], adapter_for(pipe)
    side = case.latents[2] * adapter.compression(pipe)[0]
    clip = torch.rand(case.encoded, 3, side, side, generator=torch.Generator().manual_seed(1))
    latents = adapter.encode_video(pipe, clip)
    assert latents.shape == (1, *case.latents) and latents.dtype == torch.float32
    drawn = adapter.encode_video(pipe, clip, torch.Generator().manual_seed(2))
    assert torch.equal(drawn, latents) == (name in ("PicoPipeline", *COSMOS_1))  # point posteriors

    if name == "Kandinsky5I2VPipeline":  # which evens out the brightness of its first frames in the end
        pipe = copy.copy(pipe)
        pipe.normalize_first_frame = lambda latents: latents
    # LTX's pipeline with conditions adds noise to the image, anew in every step
    exact = {"image_cond_noise_scale": 0.0} if name == "LTXConditionPipeline" else {}
    with unstill.apply(pipe, Constant(value=0.25, until=2)) as handle:
        made = sample(case, pipe, output_type="pt", **exact)[0].float()
        # Cosmos steps its held frame like any other; elsewhere it is the image in the end
        first = sample(case, pipe)[:, :, :1] if name.startswith("Cosmos") else handle.run.image_latents
    run = handle.run
    # FramePack puts the image before its last section
    before = run.conditioning_frames + (name == "HunyuanVideoFramepackPipeline")
    final = torch.cat([first] * before + [torch.full_like(run.noise, 0.25)], 2)
    decoded = adapter.decode_video(pipe, final)
    assert len(decoded) == (len(made) if name == "HunyuanVideoFramepackPipeline" else case.encoded)
    decoded = decoded[-len(made) :]  # HunyuanVideo cuts off what its image was
    atol = 1 / 255 if name in COSMOS else 1e-5  # whose checker looks at integers
    torch.testing.assert_close(decoded, made, atol=atol, rtol=1e-4)


@every_pipeline
def test_image_latents_are_those_of_a_clip_of_one_frame(name: str, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case, adapter = CASES[name], adapter_for(pipe)
    # some pipelines take the posterior's mode, some draw from it
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    space, _ = adapter.compression(pipe)
    image = picture(case.latents[2] * space)
    exact = {"noise_aug_strength": 0.0} if name == "StableVideoDiffusionPipeline" else {}
    with unstill.apply(pipe, Spy(seen={}), **({} if case.image else {"image": image})) as handle:
        given = {"video": [image]} if "video" in case.call else {"image": image}
        if "mask_video" in case.call:  # which ends with frames of nothing
            given = {"video": shown(case.encoded, image)[0]}
        if "conditions" in case.call:
            given = {"conditions": _conditions(name, (image, 0, 1.0))}
        sample(case, pipe, **(given if case.image else {}), **exact)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    if name == "AllegroPipeline":  # which encodes no single frame
        pixels = pixels.expand(case.encoded, -1, -1, -1)
    expected = adapter.encode_video(pipe, pixels)[:, :, :1]
    torch.testing.assert_close(handle.run.image_latents, expected, atol=1e-5, rtol=1e-4)


def test_inverted_scale_of_cogvideox_is_undone() -> None:
    pipe = pipeline("CogVideoXImageToVideoPipeline")
    case = CASES["CogVideoXImageToVideoPipeline"]
    seen = {}
    for inverted in (False, True):
        pipe.vae.register_to_config(invert_scale_latents=inverted)
        with unstill.apply(pipe, Spy(seen={})) as handle:
            sample(case, pipe)
        seen[inverted] = handle.run.image_latents
    pipe.vae.register_to_config(invert_scale_latents=False)
    torch.testing.assert_close(seen[True], seen[False])


def test_a_clip_that_does_not_fit_the_vae_is_refused() -> None:
    pipe = pipeline("WanImageToVideoPipeline")
    with pytest.raises(UnstillError, match=r"4 n \+ 1 frames"):
        adapter_for(pipe).encode_video(pipe, torch.rand(8, 3, 16, 16))
    pipe = pipeline("AllegroPipeline")
    with pytest.raises(UnstillError, match=r"clips of 24 \+ 16 n frames"):
        adapter_for(pipe).encode_video(pipe, torch.rand(25, 3, 16, 16))


def test_importing_is_cheap_and_lazy() -> None:
    code = (
        "import sys, time; start = time.process_time(); import unstill; took = time.process_time() - start;"
        "assert not {'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules);"
        "assert {'apply', 'EarlyStart', 'metrics'} <= set(dir(unstill)); assert took < 0.05, took"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_where_they_are_said_to_be() -> None:
    assert unstill.EarlyStart is EarlyStart and unstill.UnstillError is UnstillError
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unstill.nothing


def _conditions(name: str, *values: tuple[Any, int, float]) -> list[Any]:
    """Pictures, or lists of them, with the frame and the strength of each."""
    if name == "LTX2ConditionPipeline":
        return [LTX2VideoCondition(one, index=at, strength=strength, crf=0) for one, at, strength in values]
    return [
        LTXVideoCondition(
            **{"video" if isinstance(one, list) else "image": one}, frame_index=8 * at, strength=strength
        )
        for one, at, strength in values
    ]


WITH_CONDITIONS = ["LTXConditionPipeline", "LTX2ConditionPipeline"]


@pytest.mark.parametrize("name", WITH_CONDITIONS)
@pytest.mark.parametrize(
    "values",
    [
        [(picture(32), 1, 1.0)],
        [(picture(32), 0, 0.5)],
        [(picture(32), 0, 1.0), (picture(32), 1, 0.5)],
        [([picture(32)] * 9, 0, 1.0)],
        None,
    ],
)
def test_conditions_other_than_whole_images_are_refused(name: str, values: Any) -> None:
    case, pipe = CASES[name], pipeline(name)
    conditions = None if values is None else _conditions(name, *values)
    plain = sample(case, pipe, conditions=conditions)
    with unstill.apply(pipe):
        assert sample(case, pipe, conditions=conditions).equal(plain)
    with (
        unstill.apply(pipe, EarlyStart(**case.level)),
        pytest.raises(UnstillError, match="an image at frame 0 and.* all with strength 1|has no image"),
    ):
        sample(case, pipe, conditions=conditions)


@pytest.mark.parametrize("name", WITH_CONDITIONS)
def test_images_at_later_frames_stay_as_they_are(name: str) -> None:
    case, pipe = CASES[name], pipeline(name)
    conditions = _conditions(name, (picture(32), 0, 1.0), (picture(32).rotate(90), 1, 1.0))
    more = {} if name == "LTX2ConditionPipeline" else {"image_cond_noise_scale": 0.0}
    plain = sample(case, pipe, conditions=conditions, **more)
    assert not plain.equal(sample(case, pipe, **more))
    spy = Spy(seen={})
    with unstill.apply(pipe, spy):
        assert sample(case, pipe, conditions=conditions, **more).equal(plain)
    channels, frames, *size = case.latents
    assert spy.seen["start"].shape == (1, channels, frames - 1, *size)

    def inputs(*methods: Method) -> list[torch.Tensor]:
        with unstill.apply(pipe, *methods):
            return model_inputs(pipe, lambda: sample(case, pipe, conditions=conditions, **more))

    plainly, filled = inputs(), inputs(Fill(value=0.25))
    later = plainly[0].shape[1] // (frames + 1)  # tokens of one frame
    images = slice(0, later) if name == "LTXConditionPipeline" else slice(-later, None)
    video = slice(later, None) if name == "LTXConditionPipeline" else slice(0, -later)
    for own, changed in zip(plainly, filled, strict=True):
        assert own[:, images].equal(changed[:, images])
        assert own[:, video][:, :later].equal(changed[:, video][:, :later])  # frame 0
    assert (filled[0][:, video][:, later:] == 0.25).all()
    # Whatever decides the next sample leaves these tokens to the pipeline.
    for one, changed in zip(plainly, inputs(Add(value=0.1), Constant(value=0.5, until=1)), strict=True):
        assert one[:, images].equal(changed[:, images])
    assert (changed[:, video][:, later:] == 0.5).all()
    if name == "LTX2ConditionPipeline":  # whose attention is over all tokens, those of the images too
        with unstill.apply(pipe, unstill.ReferenceBias(gamma=-1.0)):
            assert not sample(case, pipe, conditions=conditions).equal(plain)


def test_a_pipeline_that_skips_its_first_level_is_refused_by_the_name_of_its_argument() -> None:
    case, pipe = CASES["LTXConditionPipeline"], pipeline("LTXConditionPipeline")
    with unstill.apply(pipe, EarlyStart(start=0.9)), pytest.raises(UnstillError, match="with denoise_strength=1"):
        sample(case, pipe, denoise_strength=0.5, num_inference_steps=4)


@pytest.mark.parametrize(("channels", "directly", "cached"), [(9, True, False), (12, False, True)])
def test_easyanimates_image_latents_follow_masks_of_every_kind(channels: int, directly: bool, cached: bool) -> None:
    """The mask is resized, with its first frame apart for a caching autoencoder (`cache_mag_vae`), or encoded."""
    case = CASES["EasyAnimateInpaintPipeline"]
    pipe = easyanimate(
        diffusers.EasyAnimateInpaintPipeline,
        channels,
        add_noise_in_inpaint_model=False,
        resize_inpaint_mask_directly=directly,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.register_to_config(cache_mag_vae=cached)
    seen: list[torch.Tensor] = []
    with unstill.apply(pipe, Condition(seen=seen)) as handle:
        sample(case, pipe)
    image = handle.run.image_latents
    assert image.std() > 0 and torch.allclose(seen[0], image.expand_as(seen[0]), atol=1e-6)
