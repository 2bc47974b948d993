"""The filters of FreeInit and FrameInit against the released ones, and what a filter has to do beyond that."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unstill.errors import UnstillError
from unstill.methods.frequency import low_pass, mix


GOLDEN = Path(__file__).parents[1] / "golden" / "methods"
KINDS = ["butterworth", "gaussian", "ideal", "box"]
CASES = {"cube": ((8, 8, 8), 0.25, 0.25, 4), "rect": ((16, 10, 12), 0.3, 0.5, 2), "odd": ((5, 7, 9), 0.5, 0.4, 4)}


@pytest.fixture(scope="module")
def freqmix():
    return load_file(GOLDEN / "frequency.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_parity_reproduces_the_released_filters(freqmix, case, kind):
    shape, spatial, temporal, order = CASES[case]
    mask = low_pass(shape, kind, spatial, temporal, order, parity=True)
    torch.testing.assert_close(mask, freqmix[f"{case}.{kind}.mask"], rtol=0, atol=1e-7)
    mixed = mix(freqmix[f"{case}.x"], freqmix[f"{case}.noise"], mask)
    torch.testing.assert_close(mixed, freqmix[f"{case}.{kind}.out"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_the_clean_filter_is_centred_and_keeps_videos_real(freqmix, case, kind):
    shape, spatial, temporal, order = CASES[case]
    mask = low_pass(shape, kind, spatial, temporal, order)
    middle = tuple(size // 2 for size in shape)
    assert mask[middle] == 1
    # A real filter has a mask that is equal at k and -k, so that nothing imaginary is cut off.
    bins = torch.fft.ifftshift(mask)
    mirrored = bins.flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2))
    torch.testing.assert_close(bins, mirrored, rtol=0, atol=0)
    still = torch.full((1, 1, *shape), 0.7)
    torch.testing.assert_close(mix(still, torch.zeros_like(still), mask), still)


@pytest.mark.parametrize("kind", ["butterworth", "gaussian"])
def test_even_sizes_need_no_correction(kind):
    shape = (16, 10, 12)
    assert torch.equal(low_pass(shape, kind, 0.3, 0.5), low_pass(shape, kind, 0.3, 0.5, parity=True))


def test_the_ideal_filter_is_a_ball_of_the_stop_frequency():
    mask = low_pass((1, 16, 16), "ideal", 0.5, 1.0)[0]
    axis = torch.fft.fftshift(torch.fft.fftfreq(16)) * 2
    assert torch.equal(mask.bool(), axis[:, None] ** 2 + axis**2 <= 0.25)


def test_bands_add_up():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(2, 1, 3, 5, 6, 7, generator=generator)
    mask = low_pass((5, 6, 7), "gaussian", 0.4, 0.3)
    spectrum = torch.fft.ifftshift(mask) * torch.fft.fftn(low, dim=(-3, -2, -1))
    spectrum += (1 - torch.fft.ifftshift(mask)) * torch.fft.fftn(high, dim=(-3, -2, -1))
    torch.testing.assert_close(mix(low, high, mask), torch.fft.ifftn(spectrum, dim=(-3, -2, -1)).real)


def test_half_precision_is_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(2, 1, 3, 4, 6, 6, generator=generator).bfloat16()
    mask = low_pass((4, 6, 6), "butterworth", 0.25, 0.25)
    mixed = mix(low, high, mask)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, mix(low.float(), high.float(), mask).bfloat16())


@pytest.mark.parametrize("stops", [(0, 0.25), (0.25, 0)])
def test_a_stop_frequency_of_zero_passes_nothing(freqmix, stops):
    mask = low_pass((8, 8, 8), "gaussian", *stops)
    assert mask.sum() == freqmix["zero_stop.mask_sum"].item() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 8, 8), "guassian", 0.25, 0.25), "is not a filter; use one of butterworth"),
        (((8, 8), "box", 0.25, 0.25), "frames, height, width"),
        (((8, 8, 8), "box", -0.25, 0.25), "frequencies of 0 or from"),
    ],
)
def test_what_is_no_filter(arguments, message):
    with pytest.raises(UnstillError, match=message):
        low_pass(*arguments)


def test_shapes_that_do_not_match():
    video = torch.zeros(1, 4, 8, 8, 8)
    with pytest.raises(UnstillError, match="one shape"):
        mix(video, video, torch.zeros(7, 8, 8))


def test_mixing_that_keeps_the_variance():
    """L X + sqrt(1 - L^2) N in the Fourier domain; unit noises stay unit, where L X + (1 - L) N loses variance."""
    low, high = torch.randn(2, 200, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = low_pass((4, 8, 8), "gaussian", 0.5, 0.5)
    kept, plain = mix(low, high, mask, keep_variance=True), mix(low, high, mask)
    shifted = torch.fft.ifftshift(mask.double())
    dims = (-3, -2, -1)
    bands = shifted * torch.fft.fftn(low, dim=dims) + (1 - shifted.square()).sqrt() * torch.fft.fftn(high, dim=dims)
    torch.testing.assert_close(kept, torch.fft.ifftn(bands, dim=dims).real)
    assert kept.var().item() == pytest.approx(1, abs=0.02) and plain.var().item() < 0.93
    assert torch.equal(mix(low, high, torch.zeros(4, 8, 8)), high)
    torch.testing.assert_close(mix(low, high, torch.zeros(4, 8, 8), keep_variance=True), high)
