"""
ImageReward on the classes of transformers, for its released checkpoint; its own package needs older libraries.

Xu et al., "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation",
https://huggingface.co/papers/2304.05977.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unstill.errors import UnstillError
from unstill.metrics.weights import read_weights


HEAD = 64  # width of every attention head, in the image and in the text encoder
MAX_TOKENS = 35  # of the prompt
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the scores of its training pictures
_CLIP_MEAN_STD = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# Names in the checkpoint, as in BLIP's own code, to those of transformers.
_PICTURE = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.layers.\1.self_attn."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


class ImageReward:
    """
    The predicted human preference of pictures for a prompt, normalised: mean 0 and standard deviation 1 over the
    pictures that it was trained on.

    Only the central square of a picture and the first 35 tokens of the prompt are used.
    """

    name = "image-reward"

    def __init__(self, picture: Any, text: Any, rank: nn.Sequential, tokenizer: Any) -> None:
        self.picture, self.text, self.rank = picture.eval(), text.eval(), rank.eval()
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, checkpoint: str | Path, tokenizer: Any = "bert-base-uncased", device: str = "cpu") -> ImageReward:
        """
        Args:
            checkpoint: `ImageReward.pt` of the hub's THUDM/ImageReward, or the same tensors in another file.
            tokenizer: name or folder of BERT's tokenizer for lower-case English, or the tokenizer.

        Raises:
            UnstillError: the checkpoint is not one of ImageReward, or there is no tokenizer.
        """
        weights = read_weights(checkpoint)
        part = {
            name: {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
            for name, prefix in (
                ("picture", "blip.visual_encoder."),
                ("text", "blip.text_encoder."),
                ("rank", "mlp.layers."),
            )
        }
        if not all(part.values()):
            raise UnstillError(
                f"{checkpoint} is not a checkpoint of ImageReward, whose tensors are named blip.visual_encoder..., "
                "blip.text_encoder... and mlp.layers...; download ImageReward.pt of THUDM/ImageReward."
            )
        try:
            picture, text, rank = _picture(part["picture"]), _text(part["text"]), _rank(part["rank"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UnstillError(
                f"{checkpoint} is an incomplete checkpoint of ImageReward ({reason}); download it again."
            ) from error
        return cls(picture.to(device), text.to(device), rank.to(device), _tokenizer(tokenizer))

    @torch.no_grad()
    def __call__(self, prompt: str, images: Sequence[Image.Image]) -> Tensor:
        """Scores `(N,)`, float32 on the CPU, of N pictures; higher is better."""
        weight: Any = self.rank[0].weight
        tokens = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(weight.device)
        scores = []
        for image in images:
            pixels = self.preprocess(image).to(weight)
            image_features = self.picture(pixel_values=pixels[None]).last_hidden_state
            text_features = self.text(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=image_features
            ).last_hidden_state
            scores.append(self.rank(text_features[:, 0])[0, 0])
        return (torch.stack(scores).float().cpu() - MEAN) / DEVIATION

    def preprocess(self, image: Image.Image) -> Tensor:
        """`(3, S, S)`: resized to a shorter side S, cropped to the centre, normalised as for CLIP."""
        side = self.picture.config.image_size
        scale = side / min(image.size)
        width, height = (max(side, int(length * scale)) for length in image.size)
        large = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - side) / 2), round((height - side) / 2)
        square = np.asarray(large.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
        mean, deviation = (torch.tensor(values)[:, None, None] for values in _CLIP_MEAN_STD)
        return (torch.from_numpy(square).permute(2, 0, 1) - mean) / deviation


def _picture(weights: Mapping[str, Tensor]) -> Any:
    """BLIP's ViT, of the size of the weights."""
    from transformers import BlipVisionConfig, BlipVisionModel

    patches = weights["patch_embed.proj.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=weights["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_layers(weights, r"blocks\.(\d+)\."),
        num_attention_heads=width // HEAD,
        image_size=patch * math.isqrt(weights["pos_embed"].shape[1] - 1),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    renamed = {}
    for key, value in weights.items():
        for pattern, name in _PICTURE:
            if re.match(pattern, key):
                renamed[re.sub(pattern, name, key)] = value
                break
    return _filled(BlipVisionModel(config), renamed)


def _text(weights: Mapping[str, Tensor]) -> Any:
    """BERT with cross-attention to a picture; its weights have the names of transformers already."""
    from transformers import BlipTextConfig, BlipTextModel

    embeddings = weights["embeddings.word_embeddings.weight"]
    config = BlipTextConfig(
        vocab_size=embeddings.shape[0],
        hidden_size=embeddings.shape[1],
        encoder_hidden_size=weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(weights, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=embeddings.shape[1] // HEAD,
        max_position_embeddings=weights["embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
        is_decoder=True,  # transformers builds cross-attention only then
    )
    return _filled(BlipTextModel(config, add_pooling_layer=False), weights)


def _rank(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """The head: linear layers without activations; their dropout is inactive at inference."""
    numbers = sorted({int(key.split(".")[0]) for key in weights})
    shapes = [weights[f"{number}.weight"].shape for number in numbers]
    layers = [nn.Linear(inner, outer) for outer, inner in shapes]
    renamed = {
        f"{place}.{part}": weights[f"{number}.{part}"]
        for place, number in enumerate(numbers)
        for part in ("weight", "bias")
    }
    return _filled(nn.Sequential(*layers), renamed)


def _layers(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for key in weights if (match := re.match(pattern, key)))


def _filled(module: Any, weights: Mapping[str, Tensor]) -> Any:
    """The module with its weights; tensors that it does not have, such as `position_ids`, are ignored."""
    module.load_state_dict({key: weights[key] for key in module.state_dict()})
    return module


def _tokenizer(tokenizer: Any) -> Any:
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"The tokenizer {tokenizer} of ImageReward could not be loaded; pass tokenizer=, the folder of a "
            "downloaded bert-base-uncased."
        ) from error
