"""LoRA with the key names of ComfyUI and kohya: readers other than ours merge them to the same weights."""

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from tests.training.test_families import PIPELINES
from unstill.cli import app
from unstill.errors import UnstillError
from unstill.training.lora import LoraSettings, add, load_lora, merge, save_lora
from unstill.training.lora_formats import SUFFIXES, Style, convert_lora


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def denoiser(name: str) -> Any:
    torch.manual_seed(0)
    if name == "wan":
        return PIPELINES["wan"][0]().transformer
    return diffusers.UNetSpatioTemporalConditionModel(  # two blocks a level, as the released network
        sample_size=8,
        block_out_channels=(32, 32, 32),
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 2 + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 2,
        cross_attention_dim=8,
        num_attention_heads=1,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )


def written(name: str, path: Path, targets: tuple[str, ...], alpha: float = 3.0) -> dict[str, torch.Tensor]:
    """Writes a LoRA of all those layers; the weights of the merged model."""
    model = denoiser(name)
    add(model, LoraSettings(rank=2, alpha=alpha, targets=targets))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if ".lora_" in key:
                value.copy_(torch.randn(value.shape))
    save_lora(model, "transformer" if name == "wan" else "unet", path)
    merge(model)
    return model.state_dict()


@pytest.mark.parametrize("style", ["comfyui", "kohya"])
def test_diffusers_reads_a_converted_wan_lora_as_the_merged_model(tmp_path: Path, style: Style) -> None:
    expected = written("wan", tmp_path / "lora.safetensors", (*ATTENTION, "net.0.proj", "net.2"))
    convert_lora(tmp_path / "lora.safetensors", tmp_path / "out.safetensors", style)
    pipe = PIPELINES["wan"][0]()
    pipe.transformer = denoiser("wan")
    pipe.load_lora_weights(tmp_path, weight_name="out.safetensors")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    for key, value in pipe.transformer.state_dict().items():
        torch.testing.assert_close(value, expected[key])
    assert not torch.equal(expected["blocks.0.ffn.net.2.weight"], denoiser("wan").blocks[0].ffn.net[2].weight)


def layer_names(model: Any) -> dict[str, str]:
    """{original name: diffusers' name} of the layers of an SVD network, by diffusers' own conversion of U-Nets."""
    original = {f"input_blocks.{index}.0.op.weight" for index in (3, 6)}
    for side, count in (("input", 9), ("output", 9)):
        original |= {f"{side}_blocks.{index}.0.x" for index in range(count)}
    original |= {f"middle_block.{index}.x" for index in (0, 2)}
    kinds = ("transformer_blocks.0", "time_stack.0")
    tails = [f"{kind}.attn{n}.{layer}" for kind in kinds for n in (1, 2) for layer in ATTENTION]
    blocks = [f"input_blocks.{index}.1" for index in (1, 2, 4, 5)] + ["middle_block.1"]
    blocks += [f"output_blocks.{index}.1" for index in range(3, 9)]
    original |= {f"{block}.{tail}.weight" for block in blocks for tail in tails}
    numbered = {f"model.diffusion_model.{key}": key for key in original}
    found = convert_ldm_unet_checkpoint(numbered, {**model.config, "layers_per_block": 2})
    names = {
        value.removesuffix(".weight"): key.removesuffix(".weight").replace("time_stack", "temporal_transformer_blocks")
        for key, value in found.items()
        if value is not None and ".attn" in value
    }
    assert len(names) == len(blocks) * len(tails)
    return names


@pytest.mark.parametrize("style", ["comfyui", "kohya"])
def test_a_converted_svd_lora_is_of_the_layers_of_the_original_network(tmp_path: Path, style: Style) -> None:
    expected = written("svd", tmp_path / "lora.safetensors", ATTENTION)
    convert_lora(tmp_path / "lora.safetensors", tmp_path / "out.safetensors", style)
    model, file = denoiser("svd"), load_file(tmp_path / "out.safetensors")
    down, up = SUFFIXES[style]
    with torch.no_grad():
        for original, name in layer_names(model).items():
            key = f"diffusion_model.{original}"
            if style == "kohya":
                key = f"lora_unet_{original}".replace(".", "_")
            a, b = file.pop(f"{key}.{down}.weight"), file.pop(f"{key}.{up}.weight")
            model.get_submodule(name).weight += file.pop(f"{key}.alpha") / len(a) * b @ a
    assert not file
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key])


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, words)])


def test_nothing_is_overwritten_and_other_files_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "lora.safetensors", tmp_path / "out.safetensors"
    written("wan", source, ATTENTION)
    result = command(source, out, "--lora", "comfyui")
    assert result.exit_code == 0 and "8 layers" in result.stdout, result.output
    before = out.read_bytes()
    pico = PIPELINES["pico"][0]().transformer
    add(pico, LoraSettings(rank=2, alpha=2.0, targets=("qkv",)))
    save_lora(pico, "transformer", tmp_path / "pico.safetensors")
    save_file({"unet.down_blocks.0.attentions.0.a.lora_A.weight": torch.ones(1, 2)}, tmp_path / "half.safetensors")
    plain = {f"unet.down_blocks.0.attentions.0.proj_in.lora_{x}.weight": torch.ones(1, 1) for x in "AB"}
    save_file(plain, tmp_path / "plain.safetensors")
    for words, says in (
        ((source, out, "--lora", "kohya"), "exists already"),
        ((source, source, "--lora", "kohya"), "exists already"),
        ((source, tmp_path / "new", "--lora", "kohya"), "is a .safetensors file"),
        ((source, tmp_path / "new.safetensors", "--lora", "kohya", "--dtype", "float16"), "--dtype does not apply"),
        ((out, tmp_path / "new.safetensors", "--lora", "kohya"), "not a plain LoRA in diffusers' format"),
        ((tmp_path / "pico.safetensors", tmp_path / "new.safetensors", "--lora", "kohya"), "blocks.0.qkv is not"),
        ((tmp_path / "half.safetensors", tmp_path / "new.safetensors", "--lora", "kohya"), "do not fit together"),
        ((tmp_path / "plain.safetensors", tmp_path / "new.safetensors", "--lora", "kohya"), "no temporal attention"),
        ((tmp_path / "no.safetensors", tmp_path / "new.safetensors", "--lora", "kohya"), "cannot be read"),
    ):
        result = command(*words)
        assert result.exit_code == 2 and re.search(says, result.stderr) and result.stderr.count("\n") == 1, says
    assert out.read_bytes() == before and not list(tmp_path.glob("new*"))


def test_our_own_loader_says_what_to_do_with_a_converted_file(tmp_path: Path) -> None:
    written("wan", tmp_path / "lora.safetensors", ATTENTION)
    convert_lora(tmp_path / "lora.safetensors", tmp_path / "out.safetensors", "comfyui")
    with pytest.raises(UnstillError, match="load it with diffusers"):
        load_lora(PIPELINES["wan"][0](), tmp_path / "out.safetensors")
