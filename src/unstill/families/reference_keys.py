"""Which tokens of a network's self-attention belong to the first latent frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ReferenceKeys:
    """
    The position of the first latent frame in the token sequence of a self-attention.

    Attributes:
        tokens: number of tokens of the video.
        reference: number of tokens of the first latent frame; they are the first ones of the video.
        text: whether the sequence also holds tokens of the text, and on which side of the video.
        temporal: whether a sequence consists of the latent frames at one spatial position.
    """

    tokens: int
    reference: int
    text: Literal["none", "before", "after"] = "none"
    temporal: bool = False

    @classmethod
    def of_patches(
        cls, network: Any, x: Tensor, text: Literal["none", "before", "after"], frame_dim: int = 2
    ) -> ReferenceKeys:
        """
        Those of a transformer over patches of space and time.

        Args:
            network: the transformer; its configuration has the patch size.
            x: its input. The last two dimensions are height and width.
            text: see `ReferenceKeys`.
            frame_dim: the dimension of `x` that holds the latent frames.
        """
        size, depth = network.config.patch_size, getattr(network.config, "patch_size_t", None) or 1
        if isinstance(size, (tuple, list)):
            depth, size, _ = size
        tokens_per_frame = (x.shape[-2] // size) * (x.shape[-1] // size)
        frames = -(-x.shape[frame_dim] // depth)  # rounded up
        return cls(frames * tokens_per_frame, tokens_per_frame, text)

    def offset(self, length: int) -> int | None:
        """The index of the video's first token in a sequence of `length`; `None` if the video is not in it."""
        if length < self.tokens or (self.text == "none" and length != self.tokens):
            return None
        return length - self.tokens if self.text == "before" else 0
