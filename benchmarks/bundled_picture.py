"""
Renders the picture that comes with the package, in the world that the embedded model was trained on.

    python benchmarks/bundled_picture.py --out src/unstill/models/pico/weights/bundled.png

Of the first 40 scenes of a seed that no training run has seen, the one was taken by eye, before any video was made of
it, that has two toys of different colours apart from each other and from the border.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from unstill.data import synthetic_world


SEED, SCENES, CHOSEN, SIDE = 2026, 40, 30, 384


def picture() -> Image.Image:
    g = torch.Generator().manual_seed(SEED)
    scene = synthetic_world.sample_scene(SCENES, g, size=SIDE)
    motion = synthetic_world.sample_motion(scene, g)
    one = slice(CHOSEN, CHOSEN + 1)
    pixels = synthetic_world.render(scene[one], motion[one], frames=1, size=SIDE).video[0, 0]
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    picture().save(options.out, optimize=True)


if __name__ == "__main__":
    main()
