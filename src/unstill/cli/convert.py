"""`unstill convert`: a released checkpoint to a diffusers folder, or a LoRA to other key names."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Type(StrEnum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class KeyStyle(StrEnum):
    comfyui = "comfyui"
    kohya = "kohya"


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="The released file: .ckpt, .pt or .safetensors; with --lora a lora.safetensors.")
    ],
    out: Annotated[
        Path, typer.Argument(help="The folder to write; it must not exist, or be empty. With --lora a new file.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Its name in 'unstill models'. Default: recognised from the file.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of parts that the file lacks: a tokenizer; for LaVie Stable Diffusion 1.4."
        ),
    ] = None,
    dtype: Annotated[
        Type | None, typer.Option(help="Type of the written weights: float32, float16, bfloat16. Default: the file's.")
    ] = None,
    lora: Annotated[
        KeyStyle | None,
        typer.Option(
            help="CHECKPOINT is a LoRA of Wan or Stable Video Diffusion; key names to write: comfyui or kohya."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Convert a released checkpoint to a diffusers folder: DynamiCrafter, VideoCrafter1, LaVie, and checkpoints
    fine-tuned from them; with --model svd a fine-tuned Stable Video Diffusion. With --lora a LoRA of `unstill train`
    or diffusers is converted to the key names of ComfyUI or kohya.

    Without --dtype, memory is needed for one part of the model at a time.
    """
    from unstill.cli import output
    from unstill.data.output_paths import check_writable

    output.silence_libraries()
    if lora is not None:
        _convert_lora(checkpoint, out, lora, {"--model": model, "--base": base, "--dtype": dtype}, as_json)
        return
    import torch

    from unstill.families.registry import MODELS
    from unstill.models import registry
    from unstill.models.convert import RELEASES, load_checkpoint
    from unstill.models.saving import check_new, save_pipeline

    if model is not None:
        registry.find(model)
    check_new(out)
    check_writable(out)
    torch_dtype = None if dtype is None else getattr(torch, dtype.value)
    if model is None or model in RELEASES:
        pipe = load_checkpoint(checkpoint, model, base=base, dtype=torch_dtype)
    else:
        pipe = registry.load(base or model, checkpoint=checkpoint, dtype=torch_dtype, device="cpu")
    save_pipeline(pipe, out)
    result = {
        "pipeline": type(pipe).__name__,
        "out": str(out),
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "tokenizer": getattr(pipe, "tokenizer", None) is not None,
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    # The bare name of a folder that is called like a registered model would select that model.
    folder = f"./{out}" if str(out).lower() in (entry.name for entry in MODELS) else out
    typer.echo(f"Wrote {out}, a {result['pipeline']}. Try it: unstill animate photo.jpg --model {folder}")
    if hasattr(pipe, "tokenizer") and pipe.tokenizer is None:
        typer.echo(
            "It has no tokenizer, because the hub was not reached, so that only empty prompts work. Give the folder "
            "of one with --base.",
            err=True,
        )


def _convert_lora(source: Path, out: Path, style: KeyStyle, options: dict[str, object], as_json: bool) -> None:
    from unstill.errors import UnstillError
    from unstill.training.lora_formats import convert_lora

    if present := [name for name, value in options.items() if value is not None]:
        raise UnstillError(f"--lora only renames the weights of a LoRA, so {present[0]} does not apply; leave it out.")
    layers = convert_lora(source, out, style.value)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "style": style.value, "layers": layers}, indent=2))
        return
    typer.echo(f"Wrote {out}: a LoRA of {len(layers)} layers with the key names of {style.value}.")
