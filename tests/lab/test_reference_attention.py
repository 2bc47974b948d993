"""The attention to the first frame, by blocks and levels, and the gap between videos with and without an image."""

import pytest
import torch

import unstill
from tests.pipelines import CASES, pipeline, random_pico, sample
from unstill.errors import UnstillError
from unstill.lab.image_gap import measure_image_gap
from unstill.lab.reference_attention import measure_reference_attention


@pytest.mark.parametrize(
    "name", ["WanImageToVideoPipeline", "CogVideoXImageToVideoPipeline", "LTXImageToVideoPipeline"]
)
def test_tiny_networks_attend_evenly(name: str) -> None:
    """Random weights know no first frame: their attention is near the uniform share, less that of text."""
    pipe, case = pipeline(name), CASES[name]
    plain = sample(case, pipe)
    found = measure_reference_attention(pipe, lambda: sample(case, pipe))
    assert found.mass.shape == (2, 1) and len(found.levels) == 2
    assert found.uniform == 1 / case.latents[1]
    assert ((found.mass > 0.3 * found.uniform) & (found.mass < 1.5 * found.uniform)).all()
    assert torch.equal(sample(case, pipe), plain)


def test_the_bias_is_what_the_first_frame_lacks_in_the_next_block() -> None:
    """Measured before the bias, which changes what later blocks see, and not the first block of the first step."""
    pipe = random_pico(num_layers=2)

    def call() -> None:
        image = torch.rand(1, 3, pipe.size, pipe.size, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(0)
        pipe(image, motion=None, num_frames=4, num_inference_steps=2, output_type="latent", generator=generator)

    plain = measure_reference_attention(pipe, call)
    biased = measure_reference_attention(pipe, call, unstill.ReferenceBias(gamma=5.0, steps=1.0))
    assert plain.mass.shape == (2, 2)
    assert torch.equal(biased.mass[0, 0], plain.mass[0, 0]) and not torch.equal(biased.mass[0, 1], plain.mass[0, 1])


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(UnstillError, match="is about the attention to the first frame"):
        measure_reference_attention(pipeline("Kandinsky5I2VPipeline"), lambda: None)


def test_the_gap_is_paired() -> None:
    def of_text(prompt: str, seed: int) -> torch.Tensor:
        return torch.full((2, 3, 4, 4), float(len(prompt)))

    def of_image(picture: torch.Tensor, prompt: str, seed: int) -> torch.Tensor:
        assert picture.shape == (3, 4, 4)
        return picture.expand(2, 3, 4, 4) - 0.5

    found = measure_image_gap(of_text, of_image, ["a", "bb", "cccc"], motion=lambda video: video.mean().item())
    assert found.without.value == pytest.approx(7 / 3) and found.with_image.value == pytest.approx(7 / 3 - 0.5)
    assert (found.gap.value, found.gap.low, found.gap.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert found.without.low < found.without.value < found.without.high
    with pytest.raises(UnstillError, match="give at least one"):
        measure_image_gap(of_text, of_image, [])
