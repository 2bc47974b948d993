"""Low-pass guidance against its formula, written by hand around the networks of tiny pipelines."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

import unstill
from tests.pipelines import CASES, _made, pipeline, random_pico, sample
from unstill.errors import UnstillError
from unstill.hooks import adapter_for
from unstill.methods.low_pass_guidance import LowPassGuidance, low_pass_image


METHOD = LowPassGuidance(factor=0.5, until=0.4)  # of two steps, the first
NAMES = [name for name, case in CASES.items() if case.condition]
IN_CALLS = ("WanImageToVideoPipeline", "SkyReelsV2ImageToVideoPipeline", "Wan 2.2 A14B")
IN_ROWS = ("CogVideoXImageToVideoPipeline", "ConsisIDPipeline", "PIAPipeline", "I2VGenXLPipeline")
NOT_GUIDED_BY_OUTPUT = ("Cosmos2VideoToWorldPipeline", "Cosmos2_5_PredictBasePipeline")


@cache
def plain(name: str) -> torch.Tensor:
    return sample(CASES[name], pipeline(name))


def networks(pipe: Any) -> list[Any]:
    return [one for name in adapter_for(pipe).denoisers if (one := getattr(pipe, name, None)) is not None]


class Counted:
    """Counts the rows that networks compute, call by call."""

    def __init__(self, pipe: Any) -> None:
        self.rows: list[int] = []
        name = adapter_for(pipe).condition_input
        self._handles = [
            network.register_forward_pre_hook(
                lambda module, args, kwargs: self.rows.append(len(kwargs[name] if name in kwargs else args[0])),
                with_kwargs=True,
            )
            for network in networks(pipe)
        ]

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()


def filtered(view: torch.Tensor) -> torch.Tensor:
    """A condition view `(B, C, F, h, w)` at half its size and back; its sides are even."""
    frames = [
        interpolate(
            interpolate(f, scale_factor=0.5, mode="bilinear", antialias=True), scale_factor=2.0, mode="bilinear"
        )
        for f in view.unbind(2)
    ]
    return torch.stack(frames, 2)


def by_hand(name: str, formula: Callable[..., Any]) -> torch.Tensor:
    """A copy of the pipeline whose networks compute `formula(forward, args, kwargs, call in all)`."""
    pipe = _made(CASES[name].build)
    count = [0]
    for network in networks(pipe):
        forward = network.forward

        def own(*args: Any, forward: Any = forward, **kwargs: Any) -> Any:
            count[0] += 1
            return formula(pipe, forward, args, kwargs, count[0] - 1)

        network.forward = own
    return sample(CASES[name], pipe)


def with_filter(pipe: Any, kwargs: dict[str, Any], args: tuple[Any, ...], channels: int) -> Any:
    """The arguments with the filtered image."""
    name = adapter_for(pipe).condition_input
    x = (kwargs[name] if name in kwargs else args[0]).clone()
    view = adapter_for(pipe).condition_view(x, channels)
    view.copy_(filtered(view))
    return (args, kwargs | {name: x}) if name in kwargs else ((x, *args[1:]), kwargs)


@pytest.mark.parametrize("name", IN_CALLS)
def test_with_guidance_in_two_calls(name: str) -> None:
    """u' = (u(c) - w u(Lc)) / (1 - w) in place of u, and t(Lc) of t: guidance by w then gives the formula."""
    channels, w = CASES[name].latents[0], 5.0

    def formula(pipe: Any, forward: Any, args: Any, kwargs: Any, call: int) -> Any:
        if call > 1:
            return forward(*args, **kwargs)
        blurred_args, blurred = with_filter(pipe, kwargs, args, channels)
        if call == 0:
            return forward(*blurred_args, **blurred)
        return ((forward(*args, **kwargs)[0] - w * forward(*blurred_args, **blurred)[0]) / (1 - w),)

    with unstill.apply(pipeline(name), METHOD), Counted(pipeline(name)) as counted:
        video = sample(CASES[name], pipeline(name))
    torch.testing.assert_close(video, by_hand(name, formula), rtol=1e-5, atol=1e-5)
    assert counted.rows == [1] * 5  # three in the first step, two in the second
    assert not torch.equal(video, plain(name))


@pytest.mark.parametrize("name", IN_ROWS)
def test_with_guidance_in_rows_of_one_call(name: str) -> None:
    channels = CASES[name].latents[0]

    def formula(pipe: Any, forward: Any, args: Any, kwargs: Any, call: int) -> Any:
        if call > 0:
            return forward(*args, **kwargs)
        blurred_args, blurred = with_filter(pipe, kwargs, args, channels)
        output = forward(*args, **kwargs)
        u, _ = output[0].chunk(2)
        u_blurred, t_blurred = forward(*blurred_args, **blurred)[0].chunk(2)
        new = torch.cat([u, t_blurred + u - u_blurred])
        return (new,) if isinstance(output, tuple) else type(output)(sample=new)

    with unstill.apply(pipeline(name), METHOD), Counted(pipeline(name)) as counted:
        video = sample(CASES[name], pipeline(name))
    torch.testing.assert_close(video, by_hand(name, formula), rtol=1e-5, atol=1e-5)
    assert counted.rows == [2, 1, 2]  # rows of each call
    assert not torch.equal(video, plain(name))


@pytest.mark.parametrize("passes", ["conditional", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_acts_repeats_and_leaves_nothing_behind(name: str, passes: Any) -> None:
    case, pipe = CASES[name], pipeline(name)
    method = LowPassGuidance(factor=0.5, until=1.0, passes=passes)
    if name in NOT_GUIDED_BY_OUTPUT and passes == "conditional":
        with pytest.raises(UnstillError, match="give passes='all'"):
            unstill.apply(pipe, method)
        return
    with unstill.apply(pipe, method):
        video = sample(case, pipe)
        assert torch.equal(sample(case, pipe), video)
    assert video.isfinite().all() and not torch.equal(video, plain(name))
    with unstill.apply(pipe, LowPassGuidance(factor=1.0, passes="all" if name in NOT_GUIDED_BY_OUTPUT else passes)):
        assert torch.equal(sample(case, pipe), plain(name))
    assert torch.equal(sample(case, pipe), plain(name))


@pytest.mark.parametrize("name", ["WanImageToVideoPipeline", "CogVideoXImageToVideoPipeline"])
def test_filtering_all_passes_costs_nothing_and_differs(name: str) -> None:
    pipe, case = pipeline(name), CASES[name]
    with Counted(pipe) as before:
        sample(case, pipe)
    with unstill.apply(pipe, LowPassGuidance(factor=0.5, until=0.4, passes="all")), Counted(pipe) as counted:
        cheap = sample(case, pipe)
    assert counted.rows == before.rows
    with unstill.apply(pipe, METHOD):
        assert not torch.equal(sample(case, pipe), cheap)


@pytest.mark.parametrize("name", ["WanImageToVideoPipeline", "CogVideoXImageToVideoPipeline"])
def test_without_guidance_it_is_the_filter_alone(name: str) -> None:
    pipe, case = pipeline(name), CASES[name]
    videos = []
    for passes in ("conditional", "all"):
        with unstill.apply(pipe, LowPassGuidance(factor=0.5, until=0.4, passes=passes)), Counted(pipe) as counted:
            videos.append(sample(case, pipe, num_inference_steps=4, **case.unguided))
        assert counted.rows == [1] * 4
    assert torch.equal(*videos)


def test_a_pass_without_the_image_is_not_filtered() -> None:
    """Stable Video Diffusion and pico: the same video as with all passes, at no further call."""
    pipe, case = pipeline("StableVideoDiffusionPipeline"), CASES["StableVideoDiffusionPipeline"]
    videos = []
    for passes in ("conditional", "all"):
        with unstill.apply(pipe, LowPassGuidance(factor=0.5, passes=passes)), Counted(pipe) as counted:
            videos.append(sample(case, pipe))
        assert counted.rows == [2, 2]
    assert torch.equal(*videos)


def test_the_condition_of_other_methods_is_filtered_too() -> None:
    pipe, case = pipeline("WanImageToVideoPipeline"), CASES["WanImageToVideoPipeline"]
    noise = unstill.ConditioningAugmentation(level=0.3)
    with unstill.apply(pipe, noise):
        noised = sample(case, pipe)
    with unstill.apply(pipe, noise, LowPassGuidance(factor=1.0)):
        assert torch.equal(sample(case, pipe), noised)
    with unstill.apply(pipe, noise, METHOD, unstill.EarlyStart(start=0.9), unstill.NoiseRectification()):
        together = sample(case, pipe)
    assert together.isfinite().all() and not torch.equal(together, noised)


def test_under_compile_and_with_an_error_in_the_network() -> None:
    pipe = _made(CASES["WanImageToVideoPipeline"].build)
    case = CASES["WanImageToVideoPipeline"]
    with unstill.apply(pipe, METHOD):
        eager = sample(case, pipe)
    pipe.transformer.compile(backend="eager")
    with unstill.apply(pipe, METHOD):
        torch.testing.assert_close(sample(case, pipe), eager)
    assert torch.equal(sample(case, pipe), plain("WanImageToVideoPipeline"))

    broken = copy.copy(pipe)
    with unstill.apply(broken, METHOD):
        with pytest.raises(RuntimeError):
            sample(case, broken, prompt_embeds=torch.zeros(1, 4, 9))
        assert torch.equal(sample(case, broken), eager)


def test_pico_steps_that_are_filtered() -> None:
    pipe = random_pico()
    image = torch.rand(1, 3, pipe.size, pipe.size, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    with unstill.apply(pipe, LowPassGuidance(factor=0.5, until=0.25)):
        keep = lambda module, args: seen.append(args[0][:, :, 12:].clone())  # noqa: E731
        handle = pipe.transformer.register_forward_pre_hook(keep)
        pipe(image, guidance_scale=1.0, num_frames=2, num_inference_steps=5, output_type="latent")
    handle.remove()
    same = [torch.equal(one, seen[-1]) for one in seen]
    assert same == [False, False, True, True, True]  # 0 / 4 and 1 / 4 are at most .25
    torch.testing.assert_close(seen[0].transpose(1, 2), low_pass_image(seen[-1].transpose(1, 2), 0.5))


def test_the_filter() -> None:
    latents = torch.randn(2, 3, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(low_pass_image(latents, 0.5), filtered(latents))
    assert torch.allclose(low_pass_image(torch.ones_like(latents), 0.3), torch.ones_like(latents))
    assert low_pass_image(latents, 0.01).std(dim=(-1, -2)).max() < 1e-6  # one value per frame


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"factor": 0.0}, r"a factor in \(0, 1\]"),
        ({"factor": float("nan")}, r"a factor in \(0, 1\]"),
        ({"until": 1.5}, r"until in \[0, 1\]"),
        ({"passes": "none"}, "'conditional' or 'all'"),
    ],
)
def test_wrong_parameters(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnstillError, match=message):
        LowPassGuidance(**values)
