"""What is said about clips of the synthetic world: one code per word, or a sentence."""

import torch
from torch import Tensor

from unstill.data.synthetic_drawing import SHAPES
from unstill.data.synthetic_world import BACKGROUNDS, COLOURS, FRAMES, Motion, Scene, paths


WORDS = (*COLOURS, *SHAPES, "and", "over", "drifting", "resting", "left", "right", "up", "down", "picture")
LENGTH = 12  # words a caption may have
RESTING = 0.004  # picture sides per frame: what comes no farther than this, over the clip, is said to be resting


def codes(scene: Scene, motion: Motion, frames: int = FRAMES, backwards: bool = False) -> Tensor:
    """
    The captions of N clips of one or two toys as numbers, (N, LENGTH) uint8: 1 + index into WORDS, 0 after the last.

    The direction is where the first toy (without toys: the background) is after `frames` frames; of a clip that is
    played `backwards` it is the opposite one. A clip without toys is told by its ground alone.
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
    words, said = (torch.stack(column, 1) for column in zip(*slots, strict=True))
    order = torch.argsort((~said).to(torch.uint8), dim=1, stable=True)  # what is not said goes to the end, as zeros
    told = torch.zeros(len(words), LENGTH, dtype=torch.uint8, device=words.device)
    told[:, : words.shape[1]] = (words * said).gather(1, order).to(torch.uint8)
    return told


def captions(scene: Scene, motion: Motion, frames: int = FRAMES, backwards: bool = False) -> list[str]:
    """The same as sentences, such as "a red ring and a blue star drifting left over green"."""
    return [_sentence([WORDS[i - 1] for i in row if i]) for row in codes(scene, motion, frames, backwards).tolist()]


def _sentence(words: list[str]) -> str:
    """With articles: before a colour that a shape follows, and before a picture."""
    said = []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "picture" or (word in COLOURS and after in SHAPES):
            said.append("an" if word[0] in "aeiou" else "a")
        said.append(word)
    return " ".join(said)
