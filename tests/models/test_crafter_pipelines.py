"""DynamiCrafter's and VideoCrafter1's pipelines as a whole, tiny, in the manners of diffusers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.models.released import tiny_checkpoint, tiny_release, tokenizer_folder
from unstill.errors import UnstillError
from unstill.models.convert import load_checkpoint


SMALL: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 2}


@pytest.fixture(scope="module", params=["dynamicrafter", "videocrafter"])
def pipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("released")
    video_crafter = request.param == "videocrafter"
    torch.save({"state_dict": tiny_checkpoint(video_crafter=video_crafter)}, folder / "model.ckpt")
    base = tokenizer_folder(Path(folder / "tokenizer"))
    pipe = load_checkpoint(folder / "model.ckpt", tiny_release(video_crafter=video_crafter), base=base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 1) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=seeded(9))


def test_pictures_arrays_and_tensors(pipe: Any) -> None:
    picture = Image.fromarray((images()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    call = SMALL | {"num_frames": 2}
    video = pipe(picture, generator=seeded(), **call).frames[0]
    assert len(video) == 2 and video[0].size == (16, 16)
    array = pipe(picture, generator=seeded(), output_type="np", **call).frames
    (tensor,) = pipe(picture, generator=seeded(), output_type="pt", return_dict=False, **call)
    assert array.shape == (1, 2, 16, 16, 3) and tensor.shape == (1, 2, 3, 16, 16)
    np.testing.assert_allclose(array, tensor.permute(0, 1, 3, 4, 2).numpy(), atol=1e-6)


def test_each_video_of_a_batch_is_the_one_made_alone(pipe: Any) -> None:
    """
    With a generator for each. At 64 pixels: at 16 the coarsest grid is one position, whose norms have two values per
    group and make much of rounding.
    """
    call = SMALL | {"height": 64, "width": 64, "num_frames": 2, "output_type": "latent"}
    both = pipe(images(2), ["abc", "def"], generator=[seeded(1), seeded(2)], **call).frames
    for row, prompt in enumerate(["abc", "def"]):
        alone = pipe(images(2)[row : row + 1], prompt, generator=[seeded(row + 1)], **call).frames
        torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-3, atol=1e-3)
    copies = pipe(images(), "abc", num_videos_per_prompt=2, generator=[seeded(1), seeded(1)], **call).frames
    torch.testing.assert_close(copies[0], copies[1])


def test_prompt_image_and_fps_matter(pipe: Any) -> None:
    call = SMALL | {"num_frames": 2, "output_type": "latent"}
    plain = pipe(images(), "abc", generator=seeded(), **call).frames
    assert torch.equal(plain, pipe(images(), "abc", generator=seeded(), **call).frames)
    for changed in ({"prompt": "xyz"}, {"fps": 5}, {"image": 1 - images()}, {"negative_prompt": "xyz"}):
        arguments = {"image": images(), "prompt": "abc"} | call | changed
        assert not torch.equal(plain, pipe(**arguments, generator=seeded()).frames), changed


def test_the_callback_sees_and_replaces_the_latents(pipe: Any) -> None:
    seen: list[tuple[int, int]] = []

    def callback(pipe: Any, step: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, int(t)))
        return {"latents": torch.full_like(tensors["latents"], 0.25)}

    options = SMALL | {"num_frames": 2, "output_type": "latent", "callback_on_step_end": callback}
    latents = pipe(images(), generator=seeded(), **options).frames
    assert torch.equal(latents, torch.full_like(latents, 0.25))
    assert seen == list(enumerate(pipe.scheduler.timesteps.tolist()))


def test_mistakes_are_one_sentence(pipe: Any) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"height": 24}, "must be a multiple of 16"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"prompt": ["a", "b"]}, "2 of prompts for 1"),
        ({"image": torch.zeros(3, 16)}, r"give \(B, 3, H, W\)"),
        ({"latents": torch.zeros(1, 4, 3, 2, 2)}, "this call needs"),
        ({"generator": [seeded()] * 3}, "3 generators for 1"),
    ]
    if pipe.image_projector.config.frames > 1:
        wrong += [({"num_frames": 5}, "at most 4"), ({"num_frames": 1, "last_image": images()}, "at least 2 frames")]
        wrong += [({"last_image": images(2)}, "each image has a last one")]
    for change, says in wrong:
        with pytest.raises(UnstillError, match=says):
            pipe(**({"image": images()} | SMALL | {"num_frames": 2} | change))


def test_fewer_frames_take_the_tokens_of_the_first_ones(pipe: Any) -> None:
    tokens = pipe.encode_image(2 * images() - 1, 4)
    fewer = pipe.encode_image(2 * images() - 1, 2)
    assert torch.equal(fewer, tokens[:, :32] if pipe.image_projector.config.frames > 1 else tokens)
