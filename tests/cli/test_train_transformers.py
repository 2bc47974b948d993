"""`unstill train` on saved pipelines of LTX-Video and HunyuanVideo 1.5: two videos, two steps, in two parts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
)
from typer.testing import Result

from tests import pipelines as tiny
from tests.cli.conftest import T5
from unstill.data import write_video
from unstill.models.registry import load


Run = Callable[..., Result]
SIZES = {"ltx": (32, 9), "hunyuanvideo-1.5": (16, 5)}
RECIPES = {"ltx": "ltx-time-noise-lora", "hunyuanvideo-1.5": "hunyuanvideo15-time-noise-lora"}
TEMPLATE = "{% for message in messages %}{{ message.role }}:{{ message.content }};{% endfor %}"


def _letters() -> PreTrainedTokenizerFast:
    """Every character is a token, so that HunyuanVideo's instructions are more than its pipeline cuts off."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *"abcdefgh"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    made.chat_template = TEMPLATE
    return made


def _ltx() -> Any:
    pipe = tiny.ltx(**tiny.LTX_LEVELS)
    width = pipe.transformer.config.caption_channels
    text = T5EncoderModel(T5Config(d_model=width, **{**T5, "vocab_size": 16}))
    pipe.register_modules(tokenizer=_letters(), text_encoder=text)
    return pipe


def _hunyuan() -> Any:
    pipe = tiny.hunyuan_video_15()
    text = Qwen2_5_VLTextConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        rope_scaling={"rope_type": "default", "type": "mrope", "mrope_section": [1, 1, 0]},
    )
    glyphs = T5EncoderModel(T5Config(d_model=8, **{**T5, "vocab_size": 384}))
    pipe.register_modules(tokenizer=_letters(), text_encoder=Qwen2_5_VLTextModel(text))
    pipe.register_modules(tokenizer_2=ByT5Tokenizer(), text_encoder_2=glyphs)
    return pipe


@pytest.mark.parametrize("name", SIZES)
def test_two_steps_in_two_parts(unstill: Run, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    pipe = _ltx() if name == "ltx" else _hunyuan()
    pipe.save_pretrained(tmp_path / "model")
    size, frames = SIZES[name]
    videos = tmp_path / "clips"
    videos.mkdir()
    for i in range(2):
        moving = torch.linspace(0, 255, 3 * frames * size * size).view(frames, 3, size, size).roll(7 * i, 0)
        write_video(videos / f"{i}.mp4", moving.byte(), 8.0)
    (videos / "captions.csv").write_text('file,caption\n0.mp4,"a ""bad"" face"\n1.mp4,a cab\n')
    changes = {
        "model": tmp_path / "model",
        "data.captions": videos / "captions.csv",
        "data.frames": frames,
        "data.fps": 8,
        "data.size": f"{size}x{size}",
        "data.workers": 0,
        "train.batch": 2,
        "train.mixed_precision": "no",
    }
    command = ["train", RECIPES[name], "--videos", videos]
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]

    printed = json.loads(unstill(*command, "--settings").output)
    assert printed["lora"]["rank"] == 32 and printed["condition"]["maximum"] == 1.0

    curves = []
    own_size = name == "hunyuanvideo-1.5"  # its pipeline chooses the size of the video of a validation
    for steps, validation in ((1, "null"), (2, "{every: 2, videos: 1, clips: 0, steps: 1}" if own_size else "null")):
        parts = ["--set", f"train.steps={steps}", "--set", f"validate={validation}"]
        result = unstill(*command, *parts, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        curves.append((tmp_path / "run" / "loss.csv").read_text().splitlines())
    assert len(curves[1]) == 3 and curves[1][:2] == curves[0]

    assert (tmp_path / "run" / "validation" / "0000002-0.mp4").exists() == own_size

    made = load(str(tmp_path / "run" / "pipeline"))
    trained, before = made.transformer.state_dict(), pipe.transformer.state_dict()
    changed = {key for key, value in trained.items() if not torch.equal(value, before[key])}
    keys = load_file(tmp_path / "run" / "lora.safetensors")
    beside = {key.removeprefix("transformer.").partition(".lora_")[0] + ".weight" for key in keys}
    assert changed and changed <= beside
