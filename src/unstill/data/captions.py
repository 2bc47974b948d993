"""Captions of clips of the synthetic world: word codes or sentences."""

import torch
from torch import Tensor

from unstill.data.synthetic_drawing import SHAPES
from unstill.data.synthetic_world import BACKGROUNDS, COLOURS, FRAMES, Motion, Scene, paths


WORDS = (*COLOURS, *SHAPES, "and", "over", "drifting", "resting", "left", "right", "up", "down", "picture")
LENGTH = 12  # words a caption may have
RESTING = 0.004  # picture sides per frame: slower objects are called "resting"


def codes(scene: Scene, motion: Motion, frames: int = FRAMES, backwards: bool = False) -> Tensor:
    """
    The captions of N clips of one or two toys as word codes.

    The direction is that of the first toy (without toys: of the background) over `frames` frames, reversed for a clip
    that is played `backwards`. The caption of a clip without toys names its ground alone.

    Returns:
        (N, LENGTH) uint8: 1 + index into WORDS, padded with 0.
    """
    code = {word: i + 1 for i, word in enumerate(WORDS)}
    centres, _ = paths(scene, motion, frames)
    first, second = (scene.present > 0).unbind(1) if scene.present.shape[1] == 2 else (scene.present[:, 0] > 0, None)
    way = torch.where(first[:, None], centres[:, -1, 0] - centres[:, 0, 0], motion.pan * (frames - 1))  # (N, 2)
    x, y = (-way if backwards else way).unbind(1)
    heading = torch.where(
        x.abs() > y.abs(),
        torch.where(x > 0, code["right"], code["left"]),
        torch.where(y > 0, code["down"], code["up"]),
    )
    rests = torch.hypot(x, y) < RESTING * (frames - 1)
    colour, shape = scene.colour + code[next(iter(COLOURS))], scene.shape + code[SHAPES[0]]
    rich = scene.background == BACKGROUNDS.index("collage")
    ground = torch.where(rich, code["picture"], scene.ground + code[next(iter(COLOURS))])

    def word(text: str) -> Tensor:
        return torch.full_like(ground, code[text])

    slots = [(ground, ~first), (colour[:, 0], first), (shape[:, 0], first)]
    if second is not None:
        slots += [(word("and"), second), (colour[:, 1], second), (shape[:, 1], second)]
    slots += [(torch.where(rests, code["resting"], code["drifting"]), torch.ones_like(first)), (heading, ~rests)]
    slots += [(word("over"), first), (ground, first)]
    words, used = (torch.stack(column, 1) for column in zip(*slots, strict=True))
    order = torch.argsort((~used).to(torch.uint8), dim=1, stable=True)  # moves unused slots to the end, as zeros
    padded = torch.zeros(len(words), LENGTH, dtype=torch.uint8, device=words.device)
    padded[:, : words.shape[1]] = (words * used).gather(1, order).to(torch.uint8)
    return padded


def captions(scene: Scene, motion: Motion, frames: int = FRAMES, backwards: bool = False) -> list[str]:
    """The captions as sentences, such as "a red ring and a blue star drifting left over green"."""
    return [_sentence([WORDS[i - 1] for i in row if i]) for row in codes(scene, motion, frames, backwards).tolist()]


def _sentence(words: list[str]) -> str:
    """Joins words, with articles before "picture" and before a colour that is followed by a shape."""
    sentence = []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "picture" or (word in COLOURS and after in SHAPES):
            sentence.append("an" if word[0] in "aeiou" else "a")
        sentence.append(word)
    return " ".join(sentence)
