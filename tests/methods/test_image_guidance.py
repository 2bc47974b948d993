"""Image guidance: the formula by hand on pico and Stable Video Diffusion, with and without the pipeline's guidance."""

from typing import Any

import pytest
import torch

import unstill
from tests.pipelines import CASES, _made, pipeline, random_pico, sample
from unstill.errors import UnstillError
from unstill.methods.image_guidance import ImageGuidance


def call(pipe: Any, steps: int = 3, **changes: Any) -> torch.Tensor:
    image = torch.rand(1, 3, pipe.size, pipe.size, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    given = {"motion": None, "num_frames": 4, "num_inference_steps": steps, "output_type": "latent", **changes}
    return pipe(image, generator=generator, **given).frames


def test_weights() -> None:
    method = ImageGuidance(scale=3.0)
    torch.testing.assert_close(method.weights(0, 3, 5), torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]))
    torch.testing.assert_close(method.weights(1, 3, 3), torch.tensor([1.0, 1.5, 2.0]))
    assert method.weights(2, 3, 4).tolist() == [1.0] * 4
    flat = ImageGuidance(scale=3.0, over_frames=False, over_steps=False, oscillate=True)
    assert [flat.weights(i, 20, 1).item() for i in (9, 10, 11, 12, 13)] == [3.0, 3.0, 1.0, 3.0, 1.0]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_pico_by_hand(guidance: float) -> None:
    """n + g (t - n), with n from a call without image and prompt, whatever the pipeline's own guidance."""
    method = ImageGuidance(scale=4.0)
    pipe = random_pico()
    with unstill.apply(pipe, method):
        found = call(pipe, guidance_scale=guidance, noise_aug_strength=0.2)

    by_hand, steps = random_pico(), [0]
    forward = by_hand.transformer.forward

    def guided(x: Any, label: Any, words: Any, ids: Any, **kwargs: Any) -> Any:
        none, without = x.clone(), ids.clone()
        none[:, :, x.shape[2] // 2 :] = 0
        without[:, 2] = 0
        n = forward(none, label, torch.zeros_like(words), without, return_dict=False)[0]
        t = forward(x, label, words, ids, return_dict=False)[0]
        largest = 4.0 - 3.0 * steps[0] / 2
        steps[0] += 1
        return (n + torch.linspace(1, largest, 4).view(1, 4, 1, 1, 1) * (t - n),)

    by_hand.transformer.forward = guided
    expected = call(by_hand, guidance_scale=1.0, noise_aug_strength=0.2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_of_svd_are_its_own_guidance() -> None:
    """`over_steps=False` is what `min_guidance_scale=1, max_guidance_scale=3` says, whatever else was asked for."""
    pipe, case = pipeline("StableVideoDiffusionPipeline"), CASES["StableVideoDiffusionPipeline"]
    expected = sample(case, pipe, min_guidance_scale=1.0, max_guidance_scale=3.0)
    with unstill.apply(pipe, ImageGuidance.preset("svd")):
        found = sample(case, pipe, min_guidance_scale=2.0, max_guidance_scale=5.0)
        unguided = sample(case, pipe, min_guidance_scale=1.0, max_guidance_scale=1.0)
    for video in (found, unguided):  # float32 from first latents of sigma 700
        torch.testing.assert_close(video, expected, rtol=0, atol=700 * 1e-6)


def test_a_weight_of_one_changes_nothing_and_costs_nothing() -> None:
    pipe = random_pico()
    plain, count = call(pipe, guidance_scale=1.0), [0]
    with unstill.apply(pipe, ImageGuidance(scale=1.0)):
        handle = pipe.transformer.register_forward_pre_hook(lambda *given: count.__setitem__(0, count[0] + 1))
        assert torch.equal(call(pipe, guidance_scale=1.0), plain)
    handle.remove()
    assert count == [3]
    assert torch.equal(call(pipe, guidance_scale=1.0), plain)


def test_with_others_and_compiled() -> None:
    pipe = _made(CASES["PicoPipeline"].build)
    methods = unstill.EarlyStart(sigma=20.0), unstill.LowPassGuidance(), ImageGuidance()
    with unstill.apply(pipe, *methods):
        eager = call(pipe, steps=4)
    pipe.transformer.compile(backend="eager")
    with unstill.apply(pipe, *methods):
        torch.testing.assert_close(call(pipe, steps=4), eager)


def test_models_that_always_saw_their_image_are_refused() -> None:
    with pytest.raises(UnstillError, match="trained without its image, too, and WanImageToVideoPipeline's is not"):
        unstill.apply(pipeline("WanImageToVideoPipeline"), ImageGuidance())
    with pytest.raises(UnstillError, match="a weight from 0 to 100, not 101"):
        ImageGuidance(scale=101.0)
    pipe = random_pico()
    with unstill.apply(pipe, ImageGuidance()), pytest.raises(UnstillError, match="give one above 0"):
        call(pipe, guidance_scale=0.0)
