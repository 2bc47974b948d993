"""Caption embeddings of the embedded model: one code for each word of the synthetic world's vocabulary."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from unstill.data.captions import LENGTH, WORDS
from unstill.errors import UnstillError


ARTICLES = ("a", "an", "the")  # ignored
WIDTH = 32  # numbers per word; more than the vocabulary, so that words can be added


def spell(caption: str) -> list[int]:
    """
    The indices into WORDS of a caption without its articles.

    Every caption of the training says "drifting" or "resting". One that says neither gets "drifting": without it the
    network takes the colour of the ground for that of a second toy, and 19 % of 48 pictures had the right ground
    (with it all, docs/pico/captions.md).

    Raises:
        UnstillError: a word that is not in the vocabulary, or too many words.
    """
    words = [word for word in re.findall(r"[\w'-]+", caption.lower()) if word not in ARTICLES]
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise UnstillError(
            f"pico does not know {', '.join(map(repr, unknown))}; its words are {', '.join(WORDS)}, for example "
            '"a red ring and a blue star drifting left over green".'
        )
    if len(words) > LENGTH:
        raise UnstillError(f"pico reads captions of at most {LENGTH} words, and this one has {len(words)}.")
    if words and len(words) < LENGTH and not {"drifting", "resting"} & set(words):
        words.insert(words.index("over") if "over" in words else len(words), "drifting")
    return [WORDS.index(word) for word in words]


def embed(captions: Sequence[str]) -> Tensor:
    """(B, LENGTH, WIDTH), a one for every word and zeros after the last; an empty caption is all zeros."""
    codes = torch.zeros(len(captions), LENGTH, WIDTH)
    for row, caption in zip(codes, captions, strict=True):
        indices = spell(caption)
        row[range(len(indices)), indices] = 1
    return codes


def one_hot(codes: Tensor) -> Tensor:
    """Word codes of `unstill.data.captions.codes` (..., LENGTH) to (..., LENGTH, WIDTH), zeros for code 0."""
    return torch.nn.functional.one_hot(codes.long(), WIDTH + 1)[..., 1:].float()
