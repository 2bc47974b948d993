"""
Rewards, which score candidate pictures: any callable `(prompt, pictures) -> scores`, one number per picture, higher is
better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from unstill.data.images import resize_and_crop
from unstill.errors import UnstillError, lacks_memory


class Reward(Protocol):
    """Scores of PIL pictures for a prompt: a sequence, array or tensor of numbers, or for one picture a number."""

    def __call__(self, prompt: str, images: Sequence[Image.Image]) -> Any: ...


def name_of(reward: Reward) -> str:
    """The name of a reward in results and messages."""
    return str(getattr(reward, "name", None) or getattr(reward, "__name__", None) or type(reward).__name__)


def score(reward: Reward, prompt: str, images: Sequence[Image.Image]) -> list[float]:
    """
    One finite score per picture.

    Raises:
        UnstillError: the reward returned something else, or failed.
    """
    name, count = name_of(reward), len(images)
    try:
        values = reward(prompt, images)
    except UnstillError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise UnstillError(
            f"The reward {name} failed on {count} pictures ({type(error).__name__}: {error}); correct it, or take "
            "another one."
        ) from error
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        # A 1-element result of ImageReward is a plain number
        scores = [float(values)] if np.ndim(values) == 0 else [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise UnstillError(
            f"The reward {name} returned {type(values).__name__}, but a number for each of the {count} pictures was "
            "expected; return a list of floats."
        ) from error
    if len(scores) != count:
        raise UnstillError(
            f"The reward {name} returned {len(scores)} scores for {count} pictures; return one for each, in order."
        )
    for index, value in enumerate(scores):
        if not math.isfinite(value):
            raise UnstillError(
                f"The reward {name} returned {value} for picture {index}, and such scores cannot be compared; return "
                "finite numbers."
            )
    return scores


def best(scores: Sequence[float]) -> int:
    """The index of the largest score, the first of equal ones."""
    return max(range(len(scores)), key=lambda index: scores[index])


def proxy(prompt: str, images: Sequence[Image.Image]) -> list[float]:
    """
    Sharpness plus colourfulness: needs no weights, ignores the prompt, prefers detailed pictures to plain ones; only
    for trying things out.

    Sharpness is the mean gradient of the luma, colourfulness that of Hasler and Süsstrunk (2003), both after resizing
    to at most 256 pixels, so that pictures of different sizes are comparable.
    """
    return [_sharpness(pixels) + _colourfulness(pixels) for pixels in map(_pixels, images)]


def _pixels(image: Image.Image, longest: int = 256) -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    scale = longest / max(image.size)
    if scale < 1:
        size = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        image = resize_and_crop(image, size)
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def _sharpness(pixels: np.ndarray) -> float:
    luma = pixels @ (0.299, 0.587, 0.114)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())


def _colourfulness(pixels: np.ndarray) -> float:
    red, green, blue = np.moveaxis(pixels, -1, 0)
    pairs = np.stack([red - green, (red + green) / 2 - blue])
    return float(np.hypot(*pairs.std((1, 2))) + 0.3 * np.hypot(*pairs.mean((1, 2))))


class ClipReward:
    """
    The CLIP similarity of prompt and picture times the model's logit scale: PickScore, HPS v2 in the format of
    transformers, or any CLIP.

    Args:
        encoder: a `unstill.metrics.FrameEncoder`.
    """

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.name = f"clip {encoder.name}"

    @classmethod
    def load(
        cls, name: str = "yuvalkirstain/PickScore_v1", device: str = "cpu", tokenizer: str | None = None
    ) -> ClipReward:
        """
        Args:
            name: a hub id or folder of a `CLIPModel`.
            device: of the model.
            tokenizer: hub id or folder of its tokenizer, by default `name`; PickScore's is that of
                `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`.
        """
        from unstill.metrics.encoders import FrameEncoder

        tokenizer = tokenizer or _TOKENIZERS.get(name)
        return cls(FrameEncoder.load_clip(name, device, tokenizer=tokenizer))

    def __call__(self, prompt: str, images: Sequence[Image.Image]) -> torch.Tensor:
        text = self.encoder.text(prompt)
        pictures = [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] for image in images]
        features = torch.cat([self.encoder.images(picture) for picture in pictures])
        scale: torch.Tensor = self.encoder.model.logit_scale.detach().exp().float().cpu()
        scores: torch.Tensor = scale * (features @ text)
        return scores


_TOKENIZERS = {"yuvalkirstain/PickScore_v1": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"}


def reward_named(text: str) -> Callable[[str], Reward]:
    """
    The loader of a reward.

    Args:
        text: `proxy`, `world`, `pickscore`, `clip:FOLDER_OR_ID` or `image-reward:CHECKPOINT`.

    Returns:
        A function that loads the reward on a device.

    Raises:
        UnstillError: another name.
    """
    name, _, where = text.partition(":")
    name = name.strip().lower().replace("_", "-")
    if name == "proxy" and not where:
        return lambda device: proxy
    if name == "world" and not where:
        return _world
    if name == "pickscore" and not where:
        return lambda device: ClipReward.load(device=device)
    if name == "clip" and where:
        return lambda device: ClipReward.load(where, device)
    if name == "image-reward" and where:
        return partial(_image_reward, where)
    raise UnstillError(
        f"There is no reward {text!r}; known: proxy, world, pickscore, clip:FOLDER_OR_ID, image-reward:CHECKPOINT."
    )


def _world(device: str) -> Reward:
    from unstill.text_to_video.world_reward import world

    return world


def _image_reward(checkpoint: str, device: str) -> Reward:
    from unstill.text_to_video.image_reward import ImageReward

    return ImageReward.load(checkpoint, device=device)
