"""
Every pipeline as its users run it: saved, offloaded, compiled, with several prompts and videos, in bfloat16.

Where diffusers refuses such a call by itself, `Case.fails` holds its answer, and the plain pipeline is heard to give
it.
"""

import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import unstill
from tests.pipelines import CASES, Case, picture, pipeline, sample
from unstill.hooks.scheduler_hooks import is_hooked
from unstill.methods.base import Method, Run


every_pipeline = pytest.mark.parametrize("name", CASES)
DENOISERS = ("unet", "transformer", "transformer_2")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seen(Method):
    """Changes nothing, keeps what it saw."""

    starts: list[torch.Tensor]
    steps: list[torch.Tensor]

    def on_start(self, run: Run, latents: torch.Tensor) -> torch.Tensor:
        self.starts.append(latents.clone())
        return latents

    def on_step(self, run: Run, output: torch.Tensor, sample: torch.Tensor, t: Any) -> torch.Tensor:
        self.steps.extend((output, sample))
        return output


def methods(case: Case) -> tuple[Method, ...]:
    """Together they use every hook: levels, first latents, steps and, where there is one, the condition."""
    chosen: list[Method] = [
        unstill.EarlyStart(**case.level),
        unstill.ProgressiveNoise(alpha=0.5),
        unstill.NoiseRectification(period=(0, 1), posterior="mode"),
    ]
    if case.condition:
        chosen.append(unstill.ConditioningAugmentation(level=0.3))
    return tuple(chosen)


def improved(name: str, pipe: Any, *more: Method, **changes: Any) -> torch.Tensor:
    """What the pipeline samples with methods."""
    case = CASES[name]
    with unstill.apply(pipe, *methods(case), *more, **({} if case.image else {"image": picture()})):
        return sample(case, pipe, **changes)


@cache
def plain_sample(name: str) -> torch.Tensor:
    return sample(CASES[name], pipeline(name))


@cache
def improved_sample(name: str) -> torch.Tensor:
    video = improved(name, pipeline(name))
    assert video.isfinite().all() and not torch.equal(video, plain_sample(name))
    return video


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(2)]


def refused(name: str, check: str, call: Callable[[], torch.Tensor]) -> bool:
    """Whether diffusers does not do this, and is heard to say so by the plain pipeline that `call` calls."""
    answer = CASES[name].fails.get(check)
    if answer is None:
        return False
    if answer:
        with pytest.raises((ValueError, IndexError, RuntimeError, TypeError), match=answer):
            call()
    else:
        assert len(call()) == 1
    return True


@pytest.fixture
def own_draws(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    I2VGenXL draws its image latents from the global generator, whoever's turn it is, LTX's pipeline with conditions
    those of all videos from the first generator.
    """
    if name in ("I2VGenXLPipeline", "LTXConditionPipeline"):
        monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.fixture
def pipe(name: str) -> Iterator[Any]:
    """A pipeline of its own networks' making, whose embeddings are repeated as those of a prompt would be."""
    pipe, encode = copy.copy(pipeline(name)), getattr(pipeline(name), "encode_prompt", None)

    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        copies = kwargs.get("num_videos_per_prompt", 1)
        return tuple(x if x is None else x.repeat_interleave(copies, 0) for x in encode(*args, **kwargs))

    if not CASES[name].repeats:
        pipe.encode_prompt = encode_prompt
    if name == "Kandinsky5I2VPipeline":  # which in the end evens out the brightness of all videos of a call together
        pipe.normalize_first_frame = lambda latents: latents
    return pipe


# --- saved -----------------------------------------------------------------------------------------------------------


@every_pipeline
def test_what_is_saved_is_the_plain_pipeline(name: str, tmp_path: Path) -> None:
    pipe = pipeline(name)
    pipe.save_pretrained(tmp_path / "plain")
    with unstill.apply(pipe, *methods(CASES[name]), **({} if CASES[name].image else {"image": picture()})):
        pipe.save_pretrained(tmp_path / "improved")
    plain, saved = (
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}
        for folder in ("plain", "improved")
    )
    assert plain == saved

    unsaved = {key: part for key, part in pipe.components.items() if not hasattr(part, "save_pretrained")}
    # Weights of a file lie at addresses at which some kernels round differently; those of a copy do not.
    again = copy.deepcopy(type(pipe).from_pretrained(tmp_path / "improved", **unsaved))
    again.set_progress_bar_config(disable=True)
    assert not is_hooked(again.scheduler) and type(again.scheduler) is type(pipe.scheduler)
    same = torch.equal(sample(CASES[name], again), plain_sample(name))
    assert same == ("saved" not in CASES[name].fails)


# --- offloaded and compiled ------------------------------------------------------------------------------------------


@every_pipeline
def test_offloaded(name: str) -> None:
    """accelerate's hooks, which bring a component in for its calls, act beside those of methods."""
    moved = copy.deepcopy(pipeline(name))
    moved.enable_model_cpu_offload(device="cpu")
    hooks = {key: getattr(moved, key)._hf_hook for key in DENOISERS if getattr(moved, key, None) is not None}
    entered = []
    for key, hook in hooks.items():
        assert isinstance(hook, accelerate.hooks.CpuOffload)
        hook.pre_forward = lambda *args, key=key, own=hook.pre_forward, **kwargs: (
            entered.append(key),
            own(*args, **kwargs),
        )[1]
    assert torch.equal(improved(name, moved), improved_sample(name))
    assert entered
    assert all(isinstance(getattr(moved, key)._hf_hook, accelerate.hooks.CpuOffload) for key in hooks)
    assert torch.equal(sample(CASES[name], moved), plain_sample(name))


COMPILED: set[type] = set()
"""Classes of transformers of which a test has compiled one as a whole."""


def compile_only_inputs(denoiser: torch.nn.Module) -> None:
    """A compiled `denoiser` runs as it is from its first operation on: what comes after that is nothing to methods."""
    own = torch.compiler.disable(denoiser.forward)

    def forward(*args: Any, **kwargs: Any) -> Any:
        first = lambda x: x + 0 if isinstance(x, torch.Tensor) and x.is_floating_point() else x  # noqa: E731
        return own(*map(first, args), **{key: first(value) for key, value in kwargs.items()})

    denoiser.forward = forward


@every_pipeline
def test_compiled(name: str) -> None:
    """
    One transformer of each class is compiled as a whole; the others, and U-Nets, which take half a minute each, up to
    their first operation.
    """
    pipe, graphs = copy.copy(pipeline(name)), []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    for key in DENOISERS:
        if getattr(pipe, key, None) is None:
            continue
        denoiser = vars(pipe)[key] = copy.deepcopy(getattr(pipe, key))
        if key == "unet" or type(denoiser) in COMPILED and name != "WanImageToVideoPipeline":
            compile_only_inputs(denoiser)
        COMPILED.add(type(denoiser))
        denoiser.compile(backend=backend)
    assert torch.equal(sample(CASES[name], pipe), plain_sample(name))
    compiled = len(graphs)
    assert compiled
    assert torch.equal(improved(name, pipe), improved_sample(name))
    assert torch.equal(sample(CASES[name], pipe), plain_sample(name))
    if name == "WanImageToVideoPipeline":  # methods make nothing compile again, not even one that changes the image
        assert len(graphs) == compiled
    torch._dynamo.reset()


# --- several at once -------------------------------------------------------------------------------------------------


@every_pipeline
@pytest.mark.usefixtures("own_draws")
def test_a_batch_of_prompts_with_a_generator_each(name: str, pipe: Any) -> None:
    case = CASES[name]
    draw = torch.Generator().manual_seed(8)
    first = {key: value for key, value in case.call.items() if isinstance(value, torch.Tensor)}
    second = {
        key: value + 0.2 * torch.randn(value.shape, generator=draw)
        if "mask" not in key and value.is_floating_point()
        else value
        for key, value in first.items()
    }
    if "mask_video" in first:  # EasyAnimate's image: pixels outside of [0, 1] are taken to be normalised already
        second["video"] = first["video"].flip(-1)
    both = {key: torch.cat([first[key], second[key]]) for key in first}
    if "prompt_cu_seqlens" in both:  # where each prompt begins and ends among the tokens of all
        both["prompt_cu_seqlens"] = torch.tensor([0, 4, 8], dtype=torch.int32)
    if case.image_each:
        first["image"], second["image"] = case.call["image"], case.call["image"].rotate(90)
        both["image"] = [first["image"], second["image"]]
    if refused(name, "batch", lambda: sample(case, pipe, **both, generator=generators())):
        return
    together = improved(name, pipe, **both, generator=generators())
    assert len(together) == 2
    for video, changes, generator in zip(together, (first, second), generators(), strict=True):
        alone = improved(name, pipe, **changes, generator=[generator])
        torch.testing.assert_close(video, alone[0], rtol=1e-3, atol=1e-3)


@every_pipeline
@pytest.mark.usefixtures("own_draws")
def test_several_videos_of_a_prompt(name: str, pipe: Any) -> None:
    case, several = CASES[name], {CASES[name].several: 2}
    if not refused(name, "several", lambda: sample(case, pipe, **several)):
        seen = Seen(starts=[], steps=[])
        both = improved(name, pipe, seen, **several)
        channels, frames, height, width = case.latents
        assert {x.shape for x in seen.steps} == {(2, channels, frames - case.held, height, width)}
        assert not torch.equal(*seen.starts[0]) and not torch.equal(*both)
    if not refused(name, "generators", lambda: sample(case, pipe, **several, generator=generators())):
        both = improved(name, pipe, **several, generator=generators())
        # Stable Video Diffusion noises, and Kandinsky encodes, the one image of several videos by the first generator.
        known = 1 if name in ("StableVideoDiffusionPipeline", "Kandinsky5I2VPipeline") else 2
        for video, generator in list(zip(both, generators(), strict=True))[:known]:
            alone = improved(name, pipe, generator=[generator])
            torch.testing.assert_close(video, alone[0], rtol=1e-3, atol=1e-3)


# --- in half the bits ------------------------------------------------------------------------------------------------


@every_pipeline
def test_in_bfloat16(name: str) -> None:
    """Hooks compute in float32; what they leave has the type that it had."""
    case = CASES[name]
    pipe = copy.deepcopy(pipeline(name)).to(dtype=torch.bfloat16)
    call = {
        key: value.bfloat16()
        if isinstance(value, torch.Tensor) and "mask" not in key and value.is_floating_point()
        else value
        for key, value in case.call.items()
    }
    if refused(name, "bfloat16", lambda: sample(case, pipe, **call)):
        return
    plain = sample(case, pipe, **call)
    with unstill.apply(pipe):
        assert torch.equal(sample(case, pipe, **call), plain)
    seen = Seen(starts=[], steps=[])
    video = improved(name, pipe, seen, **call)
    assert video.dtype == plain.dtype and video.isfinite().all() and not torch.equal(video, plain)
    assert {x.dtype for x in (*seen.starts, *seen.steps)} == {torch.float32}
    assert torch.equal(sample(case, pipe, **call), plain)


# --- what methods keep -----------------------------------------------------------------------------------------------


def largest(pipe: Any, bytes_: int, call: Callable[[], Any]) -> int:
    """The most that new tensors of at least so many bytes take up while the denoiser is called, from `call()` on."""
    found = []

    def weigh(*_: Any) -> None:
        # What a compiler has left, and sparse tensors, have no storage.
        tensors = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
        tensors = [x for x in tensors if x.layout is torch.strided]
        sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
        found.append(sum(size for size in sizes.values() if size >= bytes_))

    handle = getattr(pipe, "unet", None) or pipe.transformer
    handle = handle.register_forward_pre_hook(weigh)
    gc.collect()
    try:
        call()
    finally:
        handle.remove()
    return max(found)


@pytest.fixture
def old_objects_unlisted() -> Iterator[None]:
    """What there is before is not listed or collected: in a process that has run many tests, that takes seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("old_objects_unlisted")
@pytest.mark.parametrize("name", ["StableVideoDiffusionPipeline", "I2VGenXLPipeline", "AnimateDiffPipeline"])
def test_methods_keep_at_most_two_tensors_of_the_size_of_the_video(name: str) -> None:
    case, pipe = CASES[name], pipeline(name)
    size = {"height": 32, "width": 32}  # with larger latents than a scheduler's tables
    bytes_ = 4 * case.latents[0] * case.latents[1] * 16 * 16
    image = {} if case.image else {"image": picture()}
    alone = largest(pipe, bytes_, lambda: sample(case, pipe, **size))
    chosen: list[Method] = [unstill.NoiseRectification(), unstill.NIVSDS(tau=0.1), unstill.FreeInit(iterations=2)]
    if case.condition:
        chosen.append(unstill.ConditioningAugmentation())
    for method in chosen:
        with unstill.hooks.sampling(pipe, method, **image) as sampler:
            kept = largest(pipe, bytes_, lambda sampler=sampler: sample(case, sampler, **size)) - alone
        assert kept <= 2 * bytes_, f"{method.name} keeps {kept / bytes_:.2f} of them"
