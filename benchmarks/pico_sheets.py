"""Contact sheets of the embedded model, for the eye: scenes that no training run has seen, and photographs.

    python benchmarks/pico_sheets.py --out docs/pico --clips CLIPS    # 64 videos, 3 minutes on one idle core

Writes scenes.png (24 scenes, plainly and from an early start), and with `--clips`, a folder with the videos named in
`PHOTOGRAPHS`, photographs.png. Scenes are the first of their seed and the
noise is that of seeds 0, 1, ...: none was chosen for how well it came out.
"""

import math
from pathlib import Path

import numpy as np
import torch
from pico_videos import animated, held_out_scenes, opened, parser_of, read_options
from PIL import Image
from torch import Tensor

import unstill
from unstill.data.contact_sheets import contact_sheet
from unstill.data.images import resize_and_crop
from unstill.data.video import read_video


FRAMES = 6  # per row of the large sheets
PHOTOGRAPHS = (  # (video, frame)
    ("mdn_flower.mp4", 10),
    ("mdn_flower.mp4", 120),
    ("mdn_friday.mp4", 20),
    ("mdn_stream-of-water.mp4", 10),
    ("sam2_01_dog.mp4", 30),
    ("sam2_01_dog.mp4", 200),
    ("sam2_bedroom.mp4", 30),
    ("intel_car-detection.mp4", 120),
)


def photographs(folder: Path, size: int) -> Tensor:
    """(N, 3, size, size) in [0, 1], the middle square of every frame."""
    made = []
    for name, frame in PHOTOGRAPHS:
        video = read_video(folder / name).frames
        picture = Image.fromarray(video[min(frame, len(video) - 1)].permute(1, 2, 0).numpy())
        fitted = np.array(resize_and_crop(picture, (size, size)))
        made.append(torch.from_numpy(fitted).permute(2, 0, 1) / 255)
    return torch.stack(made)


def in_columns(sheet: list[tuple[Tensor, str]], columns: int, panel: int) -> Image.Image:
    """Contact sheets of equal parts of the rows, next to each other."""
    rows = math.ceil(len(sheet) / columns)
    parts = [sheet[i : i + rows] for i in range(0, len(sheet), rows)]
    pages = []
    for part in parts:
        videos, labels = zip(*part, strict=True)
        pages.append(contact_sheet(videos, labels, frames=FRAMES, panel=panel, gap=3))
    page = Image.new("RGB", (sum(one.width for one in pages), max(one.height for one in pages)), (246, 246, 246))
    left = 0
    for one in pages:
        page.paste(one, (left, 0))
        left += one.width
    return page


def main() -> None:
    parser = parser_of(__doc__, scenes=24)
    parser.add_argument("--clips", type=Path, help="folder of the videos that photographs are taken from")
    options = read_options(parser)
    pipe, name = opened(options)
    scenes = held_out_scenes(options.scenes)
    early = (unstill.EarlyStart(sigma=10.0),)
    options.out.mkdir(parents=True, exist_ok=True)

    def both(pictures: Tensor) -> list[tuple[Tensor, str]]:
        rows = []
        made = [animated(pipe, pictures, options.work, name, m, motion=None) for m in ((), early)]
        for plain, started in zip(*made, strict=True):
            rows += [(plain, "plain"), (started, "sigma 10")]
        return rows

    in_columns(both(scenes.images), 3, 64).save(options.out / "scenes.png", optimize=True)
    if options.clips is not None:
        in_columns(both(photographs(options.clips, pipe.size)), 2, 80).save(
            options.out / "photographs.png", optimize=True
        )


if __name__ == "__main__":
    main()
