"""The recompressed picture: the round trip, and what the pipelines are given."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf
from PIL import Image

import unstill
from tests.pipelines import CASES, picture, pipeline, random_pico, sample
from unstill.errors import UnstillError
from unstill.methods.recompress_image import RecompressImage, recompressed


def noisy(height: int = 64, width: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("crf", [18, 33])
def test_it_is_the_round_trip_of_diffusers(crf: int) -> None:
    own = noisy()
    expected = apply_image_conditioning_crf(np.asarray(own), crf)
    assert np.array_equal(np.asarray(recompressed(own, crf)), np.asarray(expected))


def test_coarser_is_further_off_and_odd_sizes_stay() -> None:
    own = noisy(33, 47)
    errors = [np.abs(np.asarray(recompressed(own, crf)).astype(float) - np.asarray(own)).mean() for crf in (1, 18, 45)]
    assert errors == sorted(errors) and errors[0] < errors[-1]
    assert recompressed(own, 33).size == own.size


def spied(pipe: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """What the pipeline's own call is given."""
    seen: list[Any] = []

    class Spy(type(pipe)):  # type: ignore[misc]
        def __call__(self, image: Any, **others: Any) -> None:
            seen.append(image)

    copied = object.__new__(Spy)
    vars(copied).update(vars(pipe))
    with unstill.apply(copied, RecompressImage(crf=40)):
        copied(*args, **kwargs)
    return seen


def test_pictures_lists_and_tensors_are_given_recompressed() -> None:
    pipe, own = random_pico(), noisy()
    expected = np.asarray(recompressed(own, 40))
    assert np.array_equal(np.asarray(spied(pipe, own)[0]), expected)
    assert np.array_equal(np.asarray(spied(pipe, image=[own, own])[0][1]), expected)
    tensor = torch.from_numpy(np.asarray(own).copy()).permute(2, 0, 1)[None] / 255
    given = spied(pipe, tensor)[0]
    torch.testing.assert_close(given, torch.from_numpy(expected.copy()).permute(2, 0, 1)[None] / 255)
    for wrong in (2 * tensor - 1, np.asarray(own)):
        with pytest.raises(UnstillError, match=r"a PIL image, a list of them, or a tensor \(..., 3, H, W\)"):
            spied(pipe, wrong)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.image])
def test_it_acts_on_every_image_to_video_pipeline(name: str) -> None:
    case, pipe = CASES[name], pipeline(name)
    plain = sample(case, pipe)
    if isinstance(case.call.get("video"), torch.Tensor):  # a clip (B, 3, F, H, W)
        with unstill.apply(pipe, RecompressImage()), pytest.raises(UnstillError, match="takes a PIL image"):
            sample(case, pipe)
        return
    if "conditions" in case.call:
        with unstill.apply(pipe, RecompressImage()), pytest.raises(UnstillError, match="inside `conditions`"):
            sample(case, pipe)
        return
    with unstill.apply(pipe, RecompressImage(crf=51)):
        changed = sample(case, pipe)
    argument = "video" if "video" in case.call else "image"
    own = case.call[argument]
    coarse = [recompressed(one, 51) for one in own] if isinstance(own, list) else recompressed(own, 51)
    assert torch.equal(changed, sample(case, pipe, **{argument: coarse}))
    assert not torch.equal(changed, plain)
    with unstill.apply(pipe, RecompressImage(crf=0)):
        assert torch.equal(sample(case, pipe), plain)
    assert torch.equal(sample(case, pipe), plain)


def test_the_picture_given_to_apply() -> None:
    pipe, case = pipeline("AnimateDiffPipeline"), CASES["AnimateDiffPipeline"]
    videos = []
    for own, methods in ((recompressed(picture(), 51), ()), (picture(), (RecompressImage(crf=51),))):
        with unstill.apply(pipe, unstill.FrameInit(), *methods, image=own):
            videos.append(sample(case, pipe))
    assert torch.equal(*videos)
    with pytest.raises(UnstillError, match="AnimateDiffPipeline has none"):
        unstill.apply(pipe, RecompressImage())


def test_a_wrong_call_is_answered_by_the_pipeline() -> None:
    pipe = random_pico()
    with unstill.apply(pipe, RecompressImage()), pytest.raises(TypeError, match="unheard_of"):
        pipe(noisy(), unheard_of=1)


@pytest.mark.parametrize("crf", [52, -1, 3.5])
def test_wrong_qualities(crf: Any) -> None:
    with pytest.raises(UnstillError, match="a whole number from 0 to 51"):
        RecompressImage(crf=crf)
