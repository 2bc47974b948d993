"""
The methods of 2025 and 2026 where users need them: offloaded, compiled, in four steps without guidance; and that their
tests cover every pipeline that supports them.
"""

import importlib
from functools import cache
from typing import Any

import pytest
import torch

import unstill
from tests.pipelines import CASES, _made, picture, pipeline, sample
from unstill.errors import UnstillError
from unstill.hooks import adapter_for
from unstill.hooks.compatibility import refusals
from unstill.methods.base import Method
from unstill.methods.registry import method_classes


CPU = torch.device("cpu")
FOUR_STEPS = {"num_inference_steps": 4}
# Each as it acts in four steps, and as it changes nothing.
REMEDIES: dict[str, tuple[Method, Method]] = {
    "low_pass_guidance": (unstill.LowPassGuidance(factor=0.5, until=0.5), unstill.LowPassGuidance(factor=1.0)),
    "reference_bias": (unstill.ReferenceBias(gamma=2.0, steps=0.5), unstill.ReferenceBias(gamma=0.0)),
    "condition_amplitude": (unstill.ConditionAmplitude(amplitude=1.5), unstill.ConditionAmplitude(amplitude=1.0)),
    "recompress_image": (unstill.RecompressImage(crf=51), unstill.RecompressImage(crf=0)),
    "t2": (
        unstill.ConditioningAugmentation(schedule="t2", strength=0.5),
        unstill.ConditioningAugmentation(schedule="t2", strength=0.0),
    ),
    "predict_and_perturb": (
        unstill.PredictAndPerturb(repeats=2, until=0.5, tau=0.0),
        unstill.PredictAndPerturb(repeats=0),
    ),
    "image_guidance": (unstill.ImageGuidance(scale=3.0), unstill.ImageGuidance(scale=1.0)),
    "keep_variance": (unstill.FrameInit(keep_variance=True), unstill.FrameInit(spatial=0.0, keep_variance=True)),
}
# A U-Net, guidance in two calls, in rows of one call, without conditional rows of its own, and the embedded model.
PIPELINES = (
    "StableVideoDiffusionPipeline",
    "WanImageToVideoPipeline",
    "CogVideoXImageToVideoPipeline",
    "LTXImageToVideoPipeline",
    "PicoPipeline",
)


def supported(method: str) -> set[str]:
    """The rows of `tests/pipelines.py` whose pipelines take a method, by the table of what works where."""
    table = refusals()
    title = method_classes()[method].__name__
    return {name for name in CASES if not table[type(pipeline(name)).__name__][title]}


def applied(name: str, pipe: Any, *methods: Method) -> Any:
    return unstill.apply(pipe, *methods, **({} if CASES[name].image else {"image": picture()}))


@cache
def plain(name: str, unguided: bool = False) -> torch.Tensor:
    return sample(CASES[name], pipeline(name), **FOUR_STEPS, **(CASES[name].unguided if unguided else {}))


@cache
def remedied(name: str, remedy: str, unguided: bool = False) -> torch.Tensor | None:
    """What the method makes in four steps; `None` where the pipeline refuses it."""
    try:
        context = applied(name, pipeline(name), REMEDIES[remedy][0])
    except UnstillError:
        return None
    with context:
        return sample(CASES[name], pipeline(name), **FOUR_STEPS, **(CASES[name].unguided if unguided else {}))


def offloaded(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def group_offloaded(pipe: Any) -> None:
    for name in ("unet", "transformer"):
        if (network := getattr(pipe, name, None)) is not None:
            network.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def compiled(pipe: Any) -> None:
    pipe.transformer.compile(backend="eager")


@pytest.mark.parametrize("feature", [offloaded, group_offloaded, compiled])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_same_video_in_an_offloaded_and_in_a_compiled_pipeline(name: str, feature: Any) -> None:
    if feature is compiled and name == "StableVideoDiffusionPipeline":
        feature = offloaded  # its U-Net takes half a minute to compile; test_every_pipeline.py compiles its start
    pipe = _made(CASES[name].build)
    feature(pipe)
    # A compiled network may round differently; the first latents of Stable Video Diffusion are of sigma 700.
    atol = (1e-5 if feature is compiled else 0) * (100 if name.startswith("Stable") else 1)
    seen = 0
    for remedy, (method, _) in REMEDIES.items():
        expected = remedied(name, remedy)
        if expected is None:
            continue
        with applied(name, pipe, method):
            torch.testing.assert_close(sample(CASES[name], pipe, **FOUR_STEPS), expected, rtol=0, atol=atol)
        seen += 1
    torch.testing.assert_close(sample(CASES[name], pipe, **FOUR_STEPS), plain(name), rtol=0, atol=atol)
    torch._dynamo.reset()
    assert seen >= 4


@pytest.mark.parametrize("name", PIPELINES)
def test_in_four_steps_at_guidance_one(name: str) -> None:
    """Each acts and is finite; changes nothing at strength 0; and leaves nothing behind."""
    case, pipe = CASES[name], pipeline(name)
    for remedy, (_, nothing) in REMEDIES.items():
        video = remedied(name, remedy, unguided=True)
        if video is None:
            continue
        assert video.isfinite().all() and not torch.equal(video, plain(name, unguided=True)), remedy
        with applied(name, pipe, nothing):
            assert torch.equal(sample(case, pipe, **FOUR_STEPS, **case.unguided), plain(name, unguided=True)), remedy
    assert torch.equal(sample(case, pipe, **FOUR_STEPS, **case.unguided), plain(name, unguided=True))


def test_in_four_steps_at_guidance_one_all_together() -> None:
    """What a pipeline takes of them, composed with a start and a step method."""
    for name in PIPELINES:
        case, pipe = CASES[name], pipeline(name)
        mine: list[Method] = [unstill.EarlyStart(**case.level)]
        mine += [
            method
            for remedy, (method, _) in REMEDIES.items()
            if remedy not in ("predict_and_perturb", "keep_variance") and remedied(name, remedy) is not None
        ]
        with applied(name, pipe, *mine, unstill.NoiseRectification()):
            video = sample(case, pipe, **FOUR_STEPS, **case.unguided)
        assert video.isfinite().all() and not torch.equal(video, plain(name, unguided=True))
        assert torch.equal(sample(case, pipe, **FOUR_STEPS, **case.unguided), plain(name, unguided=True))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        *((name, "t2") for name, case in CASES.items() if case.condition),
        *((name, "keep_variance") for name in CASES),
        *((name, "image_guidance") for name in CASES if adapter_for(pipeline(name)).zero_unconditional),
    ],
)
def test_acts_changes_nothing_at_strength_0_and_leaves_nothing_behind(name: str, remedy: str) -> None:
    """Those whose own tests are not on every pipeline that supports them."""
    case, pipe = CASES[name], pipeline(name)
    method, nothing = REMEDIES[remedy]
    before = sample(case, pipe)
    try:
        context = applied(name, pipe, method)
    except UnstillError:
        assert name not in supported("frame_init")
        return
    with context:
        video = sample(case, pipe)
        assert torch.equal(sample(case, pipe), video)
    assert video.isfinite().all() and not torch.equal(video, before)
    if remedy == "image_guidance":  # takes the place of the pipeline's own guidance, if there is one
        before = sample(case, pipe, **case.unguided)
    changes = case.unguided if remedy == "image_guidance" else {}
    with applied(name, pipe, nothing):
        assert torch.equal(sample(case, pipe, **changes), before)
    assert torch.equal(sample(case, pipe, **changes), before)


@pytest.mark.parametrize(
    ("method", "module", "names"),
    [
        ("low_pass_guidance", "test_low_pass_guidance", "NAMES"),
        ("reference_bias", "test_reference_bias", "NAMES"),
        ("condition_amplitude", "test_condition_amplitude", "NAMES"),
        ("predict_and_perturb", "test_predict_and_perturb", "NAMES"),
    ],
)
def test_the_tests_of_a_method_are_on_every_pipeline_that_supports_it(method: str, module: str, names: str) -> None:
    tested = set(getattr(importlib.import_module(f"tests.methods.{module}"), names))
    own_refusals = {"Wan 2.2 5B"} if method == "condition_amplitude" else set()  # unlike others of its class
    assert tested >= supported(method) - own_refusals


def test_the_other_tests_are_on_every_pipeline_too() -> None:
    """By the conditions with which they choose their pipelines."""
    assert {name for name, case in CASES.items() if case.condition} == supported("conditioning_augmentation")
    guided = {name for name in CASES if adapter_for(pipeline(name)).zero_unconditional}
    assert guided == supported("image_guidance") and guided
    # Where no picture is given to the call, it is to `apply`: test_the_picture_given_to_apply.
    assert {name for name, case in CASES.items() if case.image} <= supported("recompress_image")
