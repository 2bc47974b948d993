"""LaVie against its official network (goldens) and against diffusers' image U-Net."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from tests.models.released import TEXT, tiny_lavie, tokenizer_folder
from tests.models.weights import GOLDEN, LAVIE, LAVIE_TINY, released, shapes
from unstill.errors import UnstillError
from unstill.models.convert import load_checkpoint
from unstill.models.lavie import LaViePipeline, LaVieUNet
from unstill.models.registry import load


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


# --- the pipeline ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of Stable Diffusion that LaVie's checkpoints lack."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=2, **blocks).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**TEXT)).save_pretrained(folder / "text_encoder")
    tokenizer_folder(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def pipe(weights: dict[str, Tensor], base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a file as released: the averaged weights are those that count."""
    path = tmp_path_factory.mktemp("released") / "lavie.pt"
    torch.save({"model": {key: torch.zeros(()) for key in weights}, "ema": weights}, path)
    pipe = load_checkpoint(path, tiny_lavie(), base=base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_released_file_loads(pipe: Any, unet: LaVieUNet) -> None:
    assert type(pipe.unet) is LaVieUNet
    assert all(torch.equal(value, unet.state_dict()[key]) for key, value in pipe.unet.state_dict().items())


def test_the_released_sampler_visits_980_to_0(pipe: Any) -> None:
    """As LaVie's own environment did, whose DDPM scheduler ignored the offset of its configuration."""
    pipe.scheduler.set_timesteps(50)
    assert pipe.scheduler.timesteps.tolist() == list(range(980, -1, -20))
    assert pipe.scheduler.config.prediction_type == "epsilon"
    torch.testing.assert_close(pipe.scheduler.betas, torch.linspace(1e-4, 0.02, 1000))


def test_a_picture_is_what_stable_diffusion_makes_with_the_same_weights(pipe: Any, weights: dict[str, Tensor]) -> None:
    plain = UNet2DConditionModel(**LAVIE_TINY).eval()
    plain.load_state_dict({key: value for key, value in weights.items() if "_temp" not in key})
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    stable = StableDiffusionPipeline(
        pipe.vae, pipe.text_encoder, pipe.tokenizer, plain, scheduler, None, None, requires_safety_checker=False
    )
    stable.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    call: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "pt"}
    expected = stable("a cup", latents=latents, height=32, width=32, **call).images
    own, pipe.scheduler = pipe.scheduler, DDIMScheduler(clip_sample=False, steps_offset=1)
    video = pipe("a cup", latents=latents[:, :, None], height=32, width=32, num_frames=1, **call).frames
    pipe.scheduler = own
    assert video.shape == (1, 1, 3, 32, 32)
    torch.testing.assert_close(video[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_video_has_its_shape_and_its_seed(pipe: Any) -> None:
    def make(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        options = {"height": 16, "width": 16, "num_frames": 3, "num_inference_steps": 2, "output_type": "pt"}
        return pipe(["a cup", "a boat"], generator=generator, **options).frames

    first = make(1)
    assert first.shape == (2, 3, 3, 16, 16) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, make(1)) and not torch.equal(first, make(2))
    assert not torch.equal(first[:, 0], first[:, 1])


def test_the_empty_prompt_needs_no_tokenizer(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tokenizer = pipe.encode_prompt([""])
    monkeypatch.setitem(vars(pipe), "tokenizer", None)
    assert torch.equal(pipe.encode_prompt([""]), with_tokenizer)
    with pytest.raises(UnstillError, match="no tokenizer"):
        pipe.encode_prompt(["a cup"])


def test_a_saved_pipeline_loads_by_its_folder(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    again: Any = load(str(tmp_path), device="cpu")
    again.set_progress_bar_config(disable=True)
    assert type(again) is LaViePipeline and type(again.unet) is LaVieUNet
    call: dict[str, Any] = {"height": 16, "width": 16, "num_frames": 2, "num_inference_steps": 2, "output_type": "pt"}
    videos = [each("abc", generator=torch.Generator().manual_seed(0), **call).frames for each in (pipe, again)]
    assert torch.equal(*videos)
