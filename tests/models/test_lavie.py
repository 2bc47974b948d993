"""LaVie against its official network (goldens) and against diffusers' image U-Net."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from tests.models.weights import GOLDEN, LAVIE, LAVIE_TINY, released, shapes
from unstill.models.lavie import LaVieUNet


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return load_file(GOLDEN / "lavie_tiny_unet_io.safetensors")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {key: value.float() for key, value in load_file(GOLDEN / "lavie_tiny_unet_weights.safetensors").items()}


@pytest.fixture(scope="module")
def unet(weights: dict[str, Tensor]) -> LaVieUNet:
    unet = LaVieUNet(**LAVIE_TINY).eval()
    unet.load_state_dict(weights)
    return unet


def test_the_full_size_network_has_the_released_keys_and_shapes() -> None:
    with torch.device("meta"):
        assert shapes(LaVieUNet(**LAVIE)) == released("lavie_unet_keys")


def test_a_video_matches_the_official_network(unet: LaVieUNet, io: dict[str, Tensor]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(unet(io["x"], 321, io["ehs"]).sample, io["out"], rtol=0, atol=2e-5)


def test_pictures_match_the_official_image_mode_and_the_image_unet(
    unet: LaVieUNet, io: dict[str, Tensor], weights: dict[str, Tensor]
) -> None:
    plain = UNet2DConditionModel(**LAVIE_TINY).eval()
    plain.load_state_dict({key: value for key, value in weights.items() if "_temp" not in key})
    with torch.no_grad():
        unet(io["x"], 321, io["ehs"])  # leaves nothing behind
        out = unet(io["x_img"][:, :, 0], 321, io["ehs_img"]).sample
        expected = plain(io["x_img"][:, :, 0], 321, io["ehs_img"]).sample
    torch.testing.assert_close(out[:, :, None], io["out_img"], rtol=0, atol=2e-5)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_a_video_of_one_frame_still_runs_temporal_attention(unet: LaVieUNet, io: dict[str, Tensor]) -> None:
    with torch.no_grad():
        out = unet(io["x_img"], 321, io["ehs_img"]).sample
    torch.testing.assert_close(out, io["out_img_original_lavie_temporal_on"], rtol=0, atol=2e-5)


def test_temporal_attention_and_its_buckets_match(unet: LaVieUNet, io: dict[str, Tensor]) -> None:
    attention = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn_temp
    with torch.no_grad():
        torch.testing.assert_close(attention(io["attn_temp.in"]), io["attn_temp.out"], rtol=0, atol=2e-5)
        bias = attention.time_rel_pos_bias(24)
    torch.testing.assert_close(bias, io["attn_temp.rel_pos_bias"], rtol=0, atol=1e-6)
    place = torch.arange(24)
    assert torch.equal(
        attention.time_rel_pos_bias.bucket(place[None] - place[:, None]), io["rel_pos_bucket_24"].long()
    )


def test_saved_and_loaded_it_is_the_same(unet: LaVieUNet, io: dict[str, Tensor], tmp_path: object) -> None:
    unet.save_pretrained(tmp_path)
    again = LaVieUNet.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        out = [model(io["x"], 321, io["ehs"]).sample for model in (unet, again)]
    assert torch.equal(*out)
