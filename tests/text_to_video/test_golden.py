"""`unstill.i4vgen` against the released pipelines, from the seed to the last latents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.text_to_video.stubs import CALL, animatediff, lavie, reward
from unstill.text_to_video.pipeline import i4vgen


GOLDEN = Path(__file__).parents[1] / "golden" / "text_to_video" / "i4vgen.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.mark.parametrize(
    ("case", "build", "preset", "steps", "guidance"),
    [
        ("released", animatediff, "released", 25, 7.5),
        ("paper", animatediff, "paper", 25, 7.5),
        ("lavie", lavie, "released", 50, 7.0),
    ],
)
def test_the_whole_chain_from_the_seed(golden, case, build, preset, steps, guidance):
    generator = torch.Generator().manual_seed(101)
    pipe = build()
    made = i4vgen(
        pipe,
        "a prompt",
        candidates=8,
        reward=reward,
        preset=preset,
        generator=generator,
        num_inference_steps=steps,
        guidance_scale=guidance,
        **CALL,
    )
    close = {"rtol": 1e-5, "atol": 1e-4}
    latents = torch.cat([one.sample for one in made.candidates])
    torch.testing.assert_close(latents, golden[f"{case}.stage1.candidates"], **close)
    images = np.stack([np.asarray(one.image) for one in made.candidates]).astype(int)
    off = np.abs(images - golden[f"{case}.stage1.images_uint8"].numpy())
    assert off.max() <= 1 and (off > 0).mean() < 0.001  # a rounding here and there
    scores = torch.tensor([one.score for one in made.candidates], dtype=torch.float64)
    torch.testing.assert_close(scores, golden[f"{case}.stage1.scores"], rtol=0, atol=1e-4)
    assert made.choice == golden[f"{case}.stage1.anchor_index"].item()
    torch.testing.assert_close(latents[[made.choice]], golden[f"{case}.static"], **close)

    motion = made.records[1].tensors
    torch.testing.assert_close(motion["video"], golden[f"{case}.v_hat_last"], **close)
    torch.testing.assert_close(motion["sample"], golden[f"{case}.regen_first"], **close)
    frames = torch.tanh(golden[f"{case}.regen_last"][0, :3]).transpose(0, 1) / 2 + 0.5
    assert (made.frames - (255 * frames).round()).abs().max() <= 1
    # One batch of 8 pictures for the candidates, then one video, in as many calls as the released code makes.
    loop = len(golden[f"{case}.nivsds.timesteps"])
    again = len(golden[f"{case}.regen.timesteps"])
    assert pipe.unet.calls == [(16, 1)] * steps + [(2, 8)] * (loop + again)
