"""Released checkpoints: reading them, renaming their keys, fitting them into networks, writing diffusers folders."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNetSpatioTemporalConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear, scaled_dot_product_attention
from transformers import CLIPTokenizer

from tests.models.released import TEXT, VAE, VISION, tiny_checkpoint, tiny_release, tokenizer_folder
from tests.models.weights import golden_weights, released, shapes
from unstill.errors import UnstillError
from unstill.models.checkpoint import CheckpointError, identify, load_weights, read_checkpoint
from unstill.models.convert import RELEASES, _split, convert, load_checkpoint, load_denoiser
from unstill.models.registry import load
from unstill.models.state_dict_keys import stable_diffusion_vae


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def file(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "model.ckpt"
    torch.save({"state_dict": state, "epoch": 3}, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("base") / "tokenizer")


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("dynamicrafter-512", "statedict_dc512_full"),
        ("dynamicrafter-1024", "statedict_dc512_full"),
        ("videocrafter-512", "statedict_vc512_full"),
    ],
)
def test_every_key_of_the_released_files_has_its_place(name: str, listed: str) -> None:
    """At full size, on the meta device: nothing missing, nothing left over, all shapes right."""
    file = {key: torch.empty(shape, device="meta") for key, shape in released(listed).items()}
    parts, unknown = _split(file, RELEASES[name])
    load_weights({part: layout.on_meta() for part, layout in RELEASES[name].parts.items()}, parts, unknown, "")


def test_the_256_models_stride_and_gates_have_their_places() -> None:
    layout = released("statedict_dc512_full") | released("statedict_dc256_extra_vs_512")
    del layout["scale_arr"]
    file = {
        key.replace("fps_embedding", "framestride_embed"): torch.empty(shape, device="meta")
        for key, shape in layout.items()
    }
    assert identify(file)[0] == "dynamicrafter-256"
    release = RELEASES["dynamicrafter-256"]
    parts, unknown = _split(file, release)
    load_weights({part: each.on_meta() for part, each in release.parts.items()}, parts, unknown, "")


def attend(x: Tensor, state: dict[str, Tensor], prefix: str, heads: int, causal: bool) -> Tensor:
    q, k, v = linear(x, state[f"{prefix}in_proj_weight"], state[f"{prefix}in_proj_bias"]).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    out = scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    return linear(out, state[f"{prefix}out_proj.weight"], state[f"{prefix}out_proj.bias"])


def tower(x: Tensor, state: dict[str, Tensor], prefix: str, layers: int, heads: int, causal: bool) -> Tensor:
    """OpenCLIP's transformer, from its formula, with the weights as released."""

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(layers):
        block = f"{prefix}transformer.resblocks.{i}."
        x = x + attend(norm(x, f"{block}ln_1"), state, f"{block}attn.", heads, causal)
        h = gelu(linear(norm(x, f"{block}ln_2"), state[f"{block}mlp.c_fc.weight"], state[f"{block}mlp.c_fc.bias"]))
        x = x + linear(h, state[f"{block}mlp.c_proj.weight"], state[f"{block}mlp.c_proj.bias"])
    return norm(x, f"{prefix}ln_final") if causal else x


def test_the_towers_of_clip_compute_what_openclip_does(file: Path, state: dict[str, Tensor], tokenizer: Path) -> None:
    """Text: last layer but one, then the final normalisation. Image: all tokens of the last layer, not normalised."""
    pipe = load_checkpoint(file, tiny_release(), base=tokenizer)
    ids = torch.randint(1, 60, (2, 77))
    prefix = "cond_stage_model.model."
    x = state[f"{prefix}token_embedding.weight"][ids] + state[f"{prefix}positional_embedding"]
    expected = tower(x, state, prefix, TEXT["num_hidden_layers"], TEXT["num_attention_heads"], causal=True)
    with torch.no_grad():
        torch.testing.assert_close(pipe.text_encoder(ids).last_hidden_state, expected, rtol=1e-5, atol=1e-5)

    pixels = torch.randn(2, 3, 28, 28)
    prefix = "embedder.model.visual."
    x = conv2d(pixels, state[f"{prefix}conv1.weight"], stride=14).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{prefix}class_embedding"].expand(2, 1, -1), x], 1) + state[f"{prefix}positional_embedding"]
    x = layer_norm(x, (40,), state[f"{prefix}ln_pre.weight"], state[f"{prefix}ln_pre.bias"])
    expected = tower(x, state, prefix, VISION["num_hidden_layers"], VISION["num_attention_heads"], causal=False)
    with torch.no_grad():
        torch.testing.assert_close(pipe.image_encoder(pixels).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_the_autoencoder_is_renamed_as_diffusers_does(state: dict[str, Tensor]) -> None:
    prefix = "first_stage_model."
    ours = stable_diffusion_vae({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    config = dict(AutoencoderKL(**VAE).config)
    theirs = convert_ldm_vae_checkpoint({k: v for k, v in state.items() if k.startswith(prefix)}, config)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key].reshape(value.shape)), key


@pytest.mark.parametrize("wrap", ["plain", "module", "deepspeed", "legacy", "safetensors"])
def test_a_checkpoint_is_read_in_every_wrapping(wrap: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / ("model.safetensors" if wrap == "safetensors" else "model.ckpt")
    match wrap:
        case "plain":
            torch.save(state, path)
        case "module":
            torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
        case "deepspeed":
            torch.save({"module": {f"_forward_module.{key}": value for key, value in state.items()}}, path)
        case "legacy":
            torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
        case "safetensors":
            save_file(state, path)
    read = read_checkpoint(path)
    assert isinstance(read, dict)
    assert read.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in read.items())


def test_a_converted_folder_is_the_same_pipeline(file: Path, tokenizer: Path, tmp_path: Path) -> None:
    out = convert(file, tmp_path / "out", tiny_release(), base=tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert len({path.stat().st_mode for path in out.rglob("*") if path.is_file()}) == 1  # all as the umask says
    again, pipe = load(str(out), device="cpu"), load_checkpoint(file, tiny_release(), base=tokenizer)
    assert type(again) is type(pipe)
    assert pipe.scheduler.config.items() <= again.scheduler.config.items()
    arguments: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "pt"}
    image = torch.rand(1, 3, 40, 50)
    videos = []
    for each in (again, pipe):
        each.set_progress_bar_config(disable=True)
        videos.append(each(image, "abc", generator=torch.Generator().manual_seed(0), **arguments).frames)
    assert videos[0].shape == (1, 4, 3, 32, 32)
    assert torch.equal(*videos)


def test_without_a_tokenizer_only_the_empty_prompt_is_read(
    file: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off line transformers makes a tokenizer of three tokens, which would read every prompt as the same."""
    (tmp_path / "nothing").mkdir()
    monkeypatch.setattr(CLIPTokenizer, "from_pretrained", lambda *_, **__: CLIPTokenizer())
    pipe = load_checkpoint(file, tiny_release())
    assert pipe.tokenizer is None
    monkeypatch.undo()
    expected = load_checkpoint(file, tiny_release(), base=tokenizer).encode_prompt(["", ""])
    assert torch.equal(pipe.encode_prompt(["", ""]), expected)
    with pytest.raises(UnstillError, match="no tokenizer"):
        pipe.encode_prompt(["abc"])
    with pytest.raises(UnstillError, match="The tokenizer could not be loaded from .*nothing"):
        load_checkpoint(file, tiny_release(), base=tmp_path / "nothing")


def test_a_folder_with_something_in_it_is_left_alone(file: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UnstillError, match="exists already"):
        convert(file, tmp_path, tiny_release(), base=tokenizer)


def test_a_failed_conversion_leaves_nothing(
    file: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DiffusionPipeline, "save_pretrained", full)
    with pytest.raises(UnstillError, match="no space left on the disk"):
        convert(file, tmp_path / "out", tiny_release(), base=tokenizer)
    assert not list(tmp_path.iterdir())


def test_keys_that_do_not_fit_are_all_named(state: dict[str, Tensor], tokenizer: Path, tmp_path: Path) -> None:
    wrong = dict(state)
    del wrong["model.diffusion_model.out.2.bias"]
    wrong["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, 4, 3, 3)
    wrong["something.else"] = torch.zeros(1)
    torch.save({"state_dict": wrong}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "model.ckpt", tiny_release(), base=tokenizer)
    assert error.value.missing == ["unet.out.2.bias"]
    assert error.value.unknown == ["something.else"]
    assert error.value.misshaped == ["unet.input_blocks.0.0.weight 32x4x3x3 for 32x8x3x3"]
    sentence = str(error.value)
    assert "VideoCrafter1" in sentence  # what it looks like, with four channels
    assert all(key in sentence for key in ("unet.out.2.bias", "something.else", "32x4x3x3 for 32x8x3x3"))


def test_a_checkpoint_of_another_model_is_recognised(tmp_path: Path) -> None:
    torch.save({"state_dict": golden_weights({"down_blocks.0.motion_modules.0.norm.weight": [4]}, 1)}, tmp_path / "mm")
    with pytest.raises(UnstillError, match="looks like a motion module of AnimateDiff"):
        load_checkpoint(tmp_path / "mm")


def test_files_that_are_no_checkpoints_are_one_sentence(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (tmp_path / "text.ckpt").write_text("<html>404 not found</html>")
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    torch.save({"epoch": 3}, tmp_path / "none.ckpt")
    torch.save({"state_dict": {}, "path": Path("x")}, tmp_path / "objects.ckpt")
    for name, words in {
        "cut.ckpt": "damaged or cut short",
        "text.ckpt": "is a text file",
        "empty.ckpt": "is empty",
        "cut.safetensors": "damaged or cut short",
        "none.ckpt": "no weights by name",
        "objects.ckpt": "Python objects",
        "absent.ckpt": "There is no checkpoint file .*; give the path of",
        "folder": "is a folder, not a checkpoint; name a weight file in it",
    }.items():
        with pytest.raises(UnstillError, match=words) as error:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value)


def test_512_and_1024_are_told_apart_by_their_scale(state: dict[str, Tensor]) -> None:
    assert identify(state) == ("dynamicrafter-512", "DynamiCrafter 512")
    assert identify(state | {"scale_arr": torch.full((1400,), 0.3)}) == ("dynamicrafter-1024", "DynamiCrafter 1024")
    bare = {key: value for key, value in state.items() if key != "scale_arr"}
    assert identify(bare) == (None, "DynamiCrafter 512 or 1024")
    assert identify(tiny_checkpoint(video_crafter=True))[0] == "videocrafter-512"


def test_weights_stay_in_the_file_until_they_are_used(file: Path, tokenizer: Path) -> None:
    """The parameters of the U-Net are the mapped file, not copies of it: no storage of their own on the heap."""
    pipe = load_checkpoint(file, tiny_release(), base=tokenizer)
    first, second = list(pipe.unet.parameters())[:2]
    distance = abs(first.untyped_storage().data_ptr() - second.untyped_storage().data_ptr())
    assert distance < file.stat().st_size
    with file.open("rb") as content:
        raw = first.detach().numpy().tobytes()
        assert raw in content.read()


@pytest.mark.parametrize("kind", ["module", "average"])
def test_a_fine_tuned_stable_video_diffusion_loads(kind: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "layers_per_block": 1,
        "num_attention_heads": (1, 2),
        "cross_attention_dim": 8,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
    }
    tuned, other = (UNetSpatioTemporalConditionModel(**config) for _ in range(2))
    path = tmp_path / "svd.pt"
    if kind == "module":
        torch.save({f"module.{key}": value for key, value in tuned.state_dict().items()}, path)
        assert identify(read_checkpoint(path))[0] == "svd"  # type: ignore[arg-type]
    else:
        torch.save(EMAModel(tuned.parameters()).state_dict(), path)
    pipe = type("Pipe", (), {"unet": other})
    load_denoiser(pipe, path)
    assert all(torch.equal(value, tuned.state_dict()[key]) for key, value in other.state_dict().items())
    torch.save({"down_blocks.0.weight": torch.zeros(math.prod(range(1, 3)))}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this UNetSpatioTemporalConditionModel"):
        load_denoiser(pipe, path)


def test_shapes_of_the_tiny_checkpoint_come_from_the_released_list(state: dict[str, Tensor]) -> None:
    """The tiny file has every kind of key that the released one has: names without numbers are the same set."""

    def kinds(keys: Any, prefix: str) -> set[str]:
        named = (key for key in keys if key.startswith(prefix))
        return {".".join(part for part in key.split(".") if not part.isdigit()) for key in named}

    for prefix in ("first_stage_model.", "cond_stage_model.", "embedder.", "image_proj_model."):
        assert kinds(state, prefix) == kinds(released("statedict_dc512_full"), prefix)
    assert (
        shapes(tiny_release().parts["vae"].on_meta()).keys()
        == stable_diffusion_vae(
            {k.removeprefix("first_stage_model."): v for k, v in state.items() if k.startswith("first_stage_model.")}
        ).keys()
    )
