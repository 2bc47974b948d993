"""AnimateDiff's motion module against the official one (golden)."""

import copy

import pytest
import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from safetensors.torch import load_file
from torch import Tensor

from tests.models.weights import GOLDEN
from tests.pipelines import CASES, pipeline, sample
from unstill.errors import UnstillError
from unstill.models.animatediff import frame_norms_of, use_frame_norms


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return load_file(GOLDEN / "animatediff_motion_module_tiny.safetensors")


@pytest.fixture
def module(io: dict[str, Tensor]) -> AnimateDiffTransformer3D:
    module = AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=8,
        in_channels=64,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=32,
    ).eval()
    renamed = {}
    for key, value in io.items():
        name = key.removeprefix("weight.temporal_transformer.")
        for theirs, ours in (
            ("attention_blocks.0.", "attn1."),
            ("attention_blocks.1.", "attn2."),
            ("norms.0", "norm1"),
            ("norms.1", "norm2"),
            ("ff_norm", "norm3"),
        ):
            name = name.replace(theirs, ours)
        if key.startswith("weight.") and "pos_encoder" not in name:
            renamed[name] = value
    missing, unexpected = module.load_state_dict(renamed, strict=False)
    assert not unexpected and all("pos_embed" in key for key in missing)
    return module


@pytest.mark.parametrize("scaled", ["", "_scaled"])
def test_with_frame_norms_it_is_the_official_module(
    module: AnimateDiffTransformer3D, io: dict[str, Tensor], scaled: str
) -> None:
    x = io[f"in{scaled}"]
    folded, expected = x.transpose(1, 2).flatten(0, 1), io[f"out{scaled}"]
    with torch.no_grad():
        pooled = module(folded, num_frames=16).unflatten(0, (1, 16)).transpose(1, 2)
        assert use_frame_norms(module) == 1
        official = module(folded, num_frames=16).unflatten(0, (1, 16)).transpose(1, 2)
    torch.testing.assert_close(official, expected, rtol=0, atol=2e-5)
    assert (pooled - expected).abs().max() > 0.1


def test_a_pipeline_takes_frame_norms_and_keeps_its_weights() -> None:
    case, pipe = CASES["AnimateDiffPipeline"], copy.deepcopy(pipeline("AnimateDiffPipeline"))
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    pooled = sample(case, pipe)
    frame_norms_of(pipe)
    assert pipe.unet.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in pipe.unet.state_dict().items())
    assert not torch.equal(sample(case, pipe), pooled)
    with pytest.raises(UnstillError, match="no motion modules"):
        frame_norms_of(pipeline("StableVideoDiffusionPipeline"))
