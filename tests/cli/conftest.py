"""A random pipeline in a folder, pictures of every kind, and the command line in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)
from typer.testing import CliRunner, Result

from tests import pipelines as tiny
from unstill.cli import app


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    tiny.pico().save_pretrained(folder)
    return str(folder)


def _words() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "boat": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )


def _clip(width: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=8,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=1,
    )
    return CLIPTextModel(config)


T5 = {"vocab_size": 8, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="session")
def diffusers_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save_diffusers_models(tmp_path_factory.mktemp("diffusers"))


def save_diffusers_models(folder: Path) -> dict[str, str]:
    """Random pipelines of four diffusers classes, with text encoders that know one word, as folders in `folder`."""
    torch.manual_seed(0)
    made = {
        "svd": tiny.stable_video_diffusion(),
        "animatediff": tiny.animatediff(),
        "cogvideox": tiny.cogvideox(),
        "wan": tiny.wan(),
    }
    width = made["animatediff"].unet.config.cross_attention_dim
    made["animatediff"].register_modules(tokenizer=_words(), text_encoder=_clip(width))
    # Learned positions: for as many words as the pipeline asks the text encoder for.
    config = {**made["cogvideox"].transformer.config, "max_text_seq_length": 226}
    made["cogvideox"].register_modules(transformer=CogVideoXTransformer3DModel.from_config(config))
    width = made["cogvideox"].transformer.config.text_embed_dim
    made["cogvideox"].register_modules(tokenizer=_words(), text_encoder=T5EncoderModel(T5Config(d_model=width, **T5)))
    width = made["wan"].transformer.config.text_dim
    made["wan"].register_modules(tokenizer=_words(), text_encoder=UMT5EncoderModel(UMT5Config(d_model=width, **T5)))
    for name, pipe in made.items():
        pipe.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


@pytest.fixture
def unstill() -> Callable[..., Result]:
    def run(*words: object) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    smooth = np.linspace(0, 255, 96 * 64).reshape(64, 96, 1) * np.ones(3)
    smooth[20:40, 30:60] = (200, 40, 90)
    Image.fromarray(smooth.astype(np.uint8)).save(path)
    return path
