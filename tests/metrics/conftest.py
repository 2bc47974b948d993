"""Tiny image and text encoders of random weights, in folders that transformers can load."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, ViTConfig, ViTModel


SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights with a tokenizer of five words."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "<end>", "a", "dog", "boat"])}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
    config = CLIPConfig(
        text_config=SMALL | ids | {"vocab_size": len(words), "max_position_embeddings": 8},
        vision_config=SMALL | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", model_max_length=8
    ).save_pretrained(folder)
    return folder
