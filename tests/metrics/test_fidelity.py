"""Weight-free fidelity against independent formulas and known distortions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unstill.errors import UnstillError
from unstill.metrics import (
    first_frame_error,
    proxy_coherence,
    proxy_colour_fidelity,
    proxy_edge_fidelity,
    proxy_structure_fidelity,
    ssim,
)


DOG = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "motion.safetensors")["dog.frames"]
PROXIES = [proxy_colour_fidelity, proxy_structure_fidelity, proxy_edge_fidelity]


def noisy(frames: Tensor, strength: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    clean = frames.float() / 255
    return (clean + strength * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def test_ssim_matches_torchmetrics() -> None:
    reference = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    x, y = DOG.float() / 255, noisy(DOG, 0.1)
    _, full = reference(x.double(), y.double(), data_range=1.0, reduction="none", return_full_image=True)
    expected = full[..., 5:-5, 5:-5].mean((1, 2, 3))  # torchmetrics also counts the reflected border
    torch.testing.assert_close(ssim(x, y), expected, rtol=1e-6, atol=1e-6)


def test_ssim_matches_the_formula_in_one_window() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.random((11, 11)), generator.random((11, 11))
    bell = np.exp(-np.add.outer(np.arange(-5, 6) ** 2, np.arange(-5, 6) ** 2) / 4.5)
    bell /= bell.sum()
    mx, my = (bell * x).sum(), (bell * y).sum()
    vx, vy, c = (bell * (x - mx) ** 2).sum(), (bell * (y - my) ** 2).sum(), (bell * (x - mx) * (y - my)).sum()
    expected = (2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    got = ssim(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None])
    assert got.item() == pytest.approx(expected, rel=1e-9)


def test_colour_proxy_is_the_histogram_intersection() -> None:
    image, frame = DOG[0], DOG[3]

    def histogram(picture: Tensor) -> np.ndarray:
        pixels = picture.flatten(1).T.numpy()
        return np.histogramdd(pixels, bins=8, range=[(0, 256)] * 3)[0] / len(pixels)

    expected = np.minimum(histogram(image), histogram(frame)).sum()
    assert proxy_colour_fidelity(frame[None], image) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("proxy", PROXIES)
def test_proxies_are_one_for_a_copy_and_fall_with_noise(proxy) -> None:
    still = DOG[:1].repeat(3, 1, 1, 1)
    assert proxy(still, DOG[0]) == pytest.approx(1, abs=1e-9)
    assert proxy(still) == proxy(still, DOG[0])
    little, much = proxy(noisy(still, 0.05), DOG[0]), proxy(noisy(still, 0.2), DOG[0])
    assert 0 <= much < little < 1


def test_proxies_disagree_as_documented() -> None:
    mirrored = DOG[:1].flip(-1)
    assert proxy_colour_fidelity(mirrored, DOG[0]) == pytest.approx(1)
    assert proxy_edge_fidelity(mirrored, DOG[0]) == pytest.approx(1)
    assert proxy_structure_fidelity(mirrored, DOG[0]) < 0.5
    pixels = DOG[:1].float() / 255
    blurred = torch.nn.functional.avg_pool2d(pixels, 5, stride=1, padding=2, count_include_pad=False)
    assert proxy_edge_fidelity(blurred, DOG[0]) < 0.9 < proxy_edge_fidelity(DOG[3:], DOG[0])


def test_coherence_falls_with_flicker() -> None:
    still = DOG[:1].repeat(4, 1, 1, 1)
    assert proxy_coherence(still) == pytest.approx(1)
    assert proxy_coherence(DOG) < 1
    assert proxy_coherence(noisy(still, 0.1)) < proxy_coherence(noisy(still, 0.02))


def test_first_frame_error_is_root_mean_square() -> None:
    image = torch.full((3, 16, 16), 0.5)
    video = torch.stack([image + 0.25, image])
    assert first_frame_error(video, image) == pytest.approx(0.25)
    assert first_frame_error(DOG, DOG[0]) == 0


def test_wrong_image_is_refused() -> None:
    with pytest.raises(UnstillError, match="size of the video"):
        first_frame_error(DOG, DOG[0, :, :64])
    with pytest.raises(UnstillError, match="at least 2 frames"):
        proxy_coherence(DOG[:1])
    with pytest.raises(UnstillError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
