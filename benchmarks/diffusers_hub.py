"""
A Hugging Face cache with stand-ins for the tiny repositories that the tests of diffusers download.

The tests take tokenizers, configurations and one language model from the hub. The stand-ins have the same classes and
sizes, and vocabularies of single characters, so that the tests run without a network. Values that a test has stored
from the real repositories do not fit them.
"""

import string
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    LlamaTokenizer,
    Qwen2Tokenizer,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


BYTES = sorted(ByteLevel.alphabet())  # one character for each byte, in byte-level tokenizers


def make_cache(root: Path) -> Path:
    """
    Fills `root`, a folder that may not exist, as `HF_HUB_CACHE` expects it.

    Returns:
        `root`.
    """
    for repository, make in REPOSITORIES.items():
        home = root / f"models--{repository.replace('/', '--')}"
        snapshot = home / "snapshots" / "standin"
        snapshot.mkdir(parents=True, exist_ok=True)
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / "main").write_text("standin")
        torch.manual_seed(0)
        make(snapshot)
    return root


def _clip(folder: Path) -> None:
    # the tests' text encoders have 1000 tokens: 0 begins, 1 pads, 2 ends
    tokens = ["<|startoftext|>", "<pad>", "<|endoftext|>", *BYTES, *(byte + "</w>" for byte in BYTES)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<pad>", model_max_length=77).save_pretrained(folder)


def _t5(folder: Path) -> None:
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    scores += [(character, -3.0) for character in string.printable.strip()]
    T5Tokenizer(vocab=scores, extra_ids=0, additional_special_tokens=[], model_max_length=512).save_pretrained(folder)
    config = T5Config(vocab_size=1103, d_model=32, d_kv=8, d_ff=37, num_layers=5, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder)


def _llama(folder: Path) -> None:
    # of the tests' text encoders 100 pads and 101 stands for the image
    tokens = ["<s>", "<unk>", "</s>", "▁", *string.printable.strip(), "<98>", "<99>", "<pad>", "<image>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = LlamaTokenizer(
        vocab=vocabulary,
        merges=[],
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
        model_max_length=1000,
        padding_side="right",
    )
    tokenizer.save_pretrained(folder / "tokenizer")


def _gemma(folder: Path) -> None:
    # the tests' text encoder has eight tokens
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "a", "e", "o"]
    GemmaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)


def _gemma3(folder: Path) -> None:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.printable.strip()]
    GemmaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)
    text = {
        "vocab_size": 128,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=125,
        eoi_token_index=126,
        image_token_index=127,
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)


def _qwen(folder: Path) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    tokens = [*special, "<|video_pad|>", *BYTES]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        extra_special_tokens=tokens[1:7],
        model_max_length=2048,
    )
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
        "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.chat_template = template
    # The tests use of the processor, whose other parts need torchvision, the tokenizer only: it is loaded in its place
    # where no configuration names another class.
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text("{}")


def _siglip(folder: Path) -> None:
    SiglipImageProcessor(size={"height": 30, "width": 30}).save_pretrained(folder)
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=30,
        patch_size=2,
    )
    SiglipVisionModel(config).save_pretrained(folder)


REPOSITORIES: dict[str, Callable[[Path], None]] = {
    "finetrainers/dummy-hunyaunvideo": _llama,
    "hf-internal-testing/dummy-gemma": _gemma,
    "hf-internal-testing/tiny-gemma3": _gemma3,
    "hf-internal-testing/tiny-random-clip": _clip,
    "hf-internal-testing/tiny-random-Qwen2VLForConditionalGeneration": _qwen,
    "hf-internal-testing/tiny-random-SiglipVisionModel": _siglip,
    "hf-internal-testing/tiny-random-t5": _t5,
}
