"""Condition amplitude: the formula by hand, and what Wan's denoiser sees of it."""

from typing import Any

import pytest
import torch

import unstill
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.methods.condition_amplitude import ConditionAmplitude, amplify


NAMES = ("WanImageToVideoPipeline", "SkyReelsV2ImageToVideoPipeline", "Wan 2.2 A14B")


def seen_by(name: str, *methods: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The clips of image latents that the networks see, in the units of the VAE, and the video."""
    pipe, seen = pipeline(name), []
    config = pipe.vae.config
    mean, deviation = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    networks = [one for one in (pipe.transformer, pipe.transformer_2 if "A14B" in name else None) if one is not None]
    with unstill.apply(pipe, *methods):
        keep = lambda module, args, kwargs: seen.append(kwargs["hidden_states"][:, -16:] * deviation + mean)  # noqa: E731
        handles = [one.register_forward_pre_hook(keep, with_kwargs=True) for one in networks]
        video = sample(CASES[name], pipe)
        for handle in handles:
            handle.remove()
    return seen, video


@pytest.mark.parametrize("name", NAMES)
def test_every_pass_sees_the_enlarged_difference(name: str) -> None:
    clean, plain = seen_by(name)
    changed, video = seen_by(name, ConditionAmplitude(amplitude=1.5))
    clip = clean[0]
    expected = clip.clone()
    for f in range(1, clip.shape[2]):
        difference = clip[:, :, f] - clip[:, :, 0]
        expected[:, :, f] = (clip[:, :, 0] + 1.5 * (difference - difference.mean()) + difference.mean()).clamp(-6, 6)
    assert len(changed) == len(clean) == 4
    for one in changed:
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(video, plain)
    assert torch.equal(seen_by(name, ConditionAmplitude(amplitude=1.0))[1], plain)
    assert torch.equal(seen_by(name)[1], plain)


def test_only_the_first_network_of_two() -> None:
    """boundary_ratio 0.875 of two steps: the first step is the first network's, the second the other's."""
    clean, _ = seen_by("Wan 2.2 A14B")
    changed, _ = seen_by("Wan 2.2 A14B", ConditionAmplitude(amplitude=1.5, first_network_only=True))
    assert [torch.equal(a, b) for a, b in zip(clean, changed, strict=True)] == [False, False, True, True]


def test_the_clamp_and_the_mean_stay() -> None:
    clip = 8 * torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert amplify(clip, 2.0)[:, :, 1:].abs().max() == 6
    small = clip / 100
    torch.testing.assert_close(amplify(small, 0.0)[:, :, 1:].mean((1, 3, 4)), small[:, :, 1:].mean((1, 3, 4)))


def test_with_others_in_four_steps_without_guidance() -> None:
    pipe, case = pipeline("WanImageToVideoPipeline"), CASES["WanImageToVideoPipeline"]
    methods = unstill.EarlyStart(start=0.9), unstill.LowPassGuidance(), ConditionAmplitude()
    with unstill.apply(pipe, *methods):
        video = sample(case, pipe, num_inference_steps=4, guidance_scale=1.0)
    assert video.isfinite().all()


@pytest.mark.parametrize("name", ["CogVideoXImageToVideoPipeline", "StableVideoDiffusionPipeline", "WanPipeline"])
def test_other_models_are_refused(name: str) -> None:
    with pytest.raises(UnstillError, match="shows none; use LowPassGuidance or EarlyStart"):
        unstill.apply(pipeline(name), ConditionAmplitude())


def test_where_the_image_takes_the_place_of_frame_0_it_is_refused() -> None:
    """The channels that hold the clip in other Wan models are the noisy latents there."""
    with pytest.raises(UnstillError, match=r"\(Wan 2.2 5B\) puts the image in the place of frame 0"):
        unstill.apply(pipeline("Wan 2.2 5B"), ConditionAmplitude())


@pytest.mark.parametrize("amplitude", [2.5, -0.1, float("nan")])
def test_wrong_amplitudes(amplitude: float) -> None:
    with pytest.raises(UnstillError, match="an amplitude from 0 to 2, where 1 changes nothing"):
        ConditionAmplitude(amplitude=amplitude)
