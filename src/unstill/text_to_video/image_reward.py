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


HEAD = 64  # width of every attention head, in the picture's and in the text's network
WORDS = 35  # tokens of the prompt that are read
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the scores of its training pictures
_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
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
    How much people would like pictures for a prompt. About 0 for an average picture, 1 for one that is better than
    about five in six.

    Only the central square of a picture is judged, and only the first 35 tokens of the prompt.
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
                f"{checkpoint} is no checkpoint of ImageReward, whose tensors are named blip.visual_encoder..., "
                "blip.text_encoder... and mlp.layers...; download ImageReward.pt of THUDM/ImageReward."
            )
        try:
            picture, text, rank = _picture(part["picture"]), _text(part["text"]), _rank(part["rank"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UnstillError(f"{checkpoint} is no whole checkpoint of ImageReward ({reason}).") from error
        return cls(picture.to(device), text.to(device), rank.to(device), _tokenizer(tokenizer))

    @torch.no_grad()
    def __call__(self, prompt: str, images: Sequence[Image.Image]) -> Tensor:
        """Scores `(N,)`."""
        weight: Any = self.rank[0].weight
        words = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=WORDS, return_tensors="pt"
        ).to(weight.device)
        scores = []
        for image in images:
            pixels = self.preprocess(image).to(weight)
            seen = self.picture(pixel_values=pixels[None]).last_hidden_state
            read = self.text(
                input_ids=words.input_ids, attention_mask=words.attention_mask, encoder_hidden_states=seen
            ).last_hidden_state
            scores.append(self.rank(read[:, 0])[0, 0])
        return (torch.stack(scores).float().cpu() - MEAN) / DEVIATION

    def preprocess(self, image: Image.Image) -> Tensor:
        """`(3, S, S)`: the shorter side to S, the centre cut out, in CLIP's colours."""
        side = self.picture.config.image_size
        scale = side / min(image.size)
        width, height = (max(side, int(length * scale)) for length in image.size)
        large = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - side) / 2), round((height - side) / 2)
        square = np.asarray(large.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
        mean, deviation = (torch.tensor(values)[:, None, None] for values in _COLOURS)
        return (torch.from_numpy(square).permute(2, 0, 1) - mean) / deviation


def _picture(weights: Mapping[str, Tensor]) -> Any:
    """BLIP's ViT, of whatever size the weights are."""
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
    """BERT that also attends to a picture; it has the names of transformers."""
    from transformers import BlipTextConfig, BlipTextModel

    words = weights["embeddings.word_embeddings.weight"]
    config = BlipTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        encoder_hidden_size=weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(weights, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=words.shape[1] // HEAD,
        max_position_embeddings=weights["embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
        is_decoder=True,  # which only means that there is attention to the picture
    )
    return _filled(BlipTextModel(config, add_pooling_layer=False), weights)


def _rank(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """Linear layers one after the other, without anything between them but the dropout of training."""
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
    return 1 + max(int(found[1]) for key in weights if (found := re.match(pattern, key)))


def _filled(module: Any, weights: Mapping[str, Tensor]) -> Any:
    """The module with its weights; others, such as positions that are counted, are left out."""
    wanted = module.state_dict()
    module.load_state_dict({key: weights[key] for key in wanted})
    return module


def _tokenizer(given: Any) -> Any:
    if not isinstance(given, str | Path):
        return given
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(given)
    except (OSError, ValueError) as error:
        raise UnstillError(
            f"ImageReward reads its prompt with the tokenizer {given}, which could not be loaded; pass tokenizer=, "
            "the folder of a downloaded bert-base-uncased."
        ) from error
