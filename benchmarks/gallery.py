"""The moving pictures of the documentation, made by the embedded model.

    python benchmarks/gallery.py                            # five minutes on one core
    python benchmarks/gallery.py --only hero low_pass_guidance

Writes docs/media/*.webp. The pictures are the bundled one and the first of a seed that no training run has seen, with
seeds 0, 1, ...: none was chosen for how well it came out. Motion is optical flow (DIS) in the units of the requested
level.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pico_videos import flow, held_out_scenes
from torch import Tensor

import unstill
from unstill.data.contact_sheets import side_by_side
from unstill.data.images import read_image, resize_and_crop
from unstill.data.video import write_video
from unstill.hooks import sampling
from unstill.models.pico import PicoPipeline
from unstill.models.pico.pipeline import FPS, WEIGHTS
from unstill.models.registry import bundled_picture


PICTURES = 2  # per method
LEVELS = (0.0, 0.3, 0.6, 1.0)
TIMES = (0.0, 0.5, 0.9, 1.0)  # of TimeNoise


def settings(statistics: unstill.LatentStatistics) -> dict[str, tuple[str, unstill.Method]]:
    """Name of the picture -> (caption, the method as it is shown)."""
    return {
        "early_start": ("EarlyStart(sigma=10)", unstill.EarlyStart(sigma=10.0)),
        "analytic_init": ("AnalyticInit(sigma=10)", unstill.AnalyticInit(sigma=10.0, statistics=statistics)),
        "noise_rectification": ("NoiseRectification()", unstill.NoiseRectification()),
        "frame_init": ("FrameInit()", unstill.FrameInit()),
        "free_init": ("FreeInit(iterations=3)", unstill.FreeInit(iterations=3)),
        "image_start": ("ImageStart(sigma=20)", unstill.ImageStart(sigma=20.0)),
        "progressive_noise": ("ProgressiveNoise()", unstill.ProgressiveNoise()),
        "ni_vsds": ("NIVSDS()", unstill.NIVSDS()),
        "conditioning_augmentation": ("level=0.05", unstill.ConditioningAugmentation(level=0.05)),
        "low_pass_guidance": ("factor=0.4, until=0.5", unstill.LowPassGuidance(factor=0.4, until=0.5)),
        "reference_bias": ("gamma=-2, steps=0.6", unstill.ReferenceBias(gamma=-2.0, steps=0.6)),
        "recompress_image": ("crf=45", unstill.RecompressImage(crf=45)),
        "condition_noise": ("t2, strength=0.5", unstill.ConditioningAugmentation(schedule="t2", strength=0.5)),
        "image_guidance": ("ImageGuidance(scale=3)", unstill.ImageGuidance(scale=3.0)),
        "predict_and_perturb": ("repeats=3", unstill.PredictAndPerturb(repeats=3)),
        "keep_variance": ("FrameInit, keep_variance", unstill.FrameInit(keep_variance=True)),
    }


def made(pipe: PicoPipeline, images: Tensor, *methods: unstill.Method, motion: float | None = None) -> list[Tensor]:
    """
    A video (F, 3, 96, 96) in [0, 1] per image (N, 3, 96, 96); image i has the noise of seed i. All other arguments of
    the pipeline have their defaults.
    """
    videos = []
    for i, image in enumerate(images):
        generator = torch.Generator().manual_seed(i)
        with sampling(pipe, *methods) as sampler:
            videos.append(sampler(image[None], motion=motion, generator=generator, output_type="pt").frames[0])
    return videos


def said(video: Tensor) -> str:
    return f"motion {flow(video):.2f}"


@torch.no_grad()
def time_noise(pipe: PicoPipeline, image: Tensor) -> dict[str, Tensor]:
    """What a model sees of its image in training, decoded: eight draws at each training time t."""
    latents = pipe.vae.encode(image[None] * 2 - 1).latent_dist.mode()[:, :, None].expand(8, -1, -1, -1, -1)
    method = unstill.TimeNoise(maximum=2.0, scale=4.0)
    shown = {}
    for t in TIMES:
        noised, _ = method.corrupt(latents, torch.full((8,), t), torch.Generator().manual_seed(0))
        shown[f"t = {t:g}"] = pipe.vae.decode(noised[:, :, 0]).sample.clamp(-1, 1) / 2 + 0.5
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/media"))
    parser.add_argument("--only", nargs="+", help="some of the pictures, by name")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pipe = PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    statistics = unstill.LatentStatistics.load(WEIGHTS / "statistics.safetensors")
    bundled = (
        torch.from_numpy(np.array(resize_and_crop(read_image(bundled_picture()), (96, 96)))).permute(2, 0, 1) / 255
    )
    images = held_out_scenes(PICTURES).images
    plain = made(pipe, images)

    def hero() -> tuple[list[Tensor], list[str], int]:
        # What `unstill animate --compare` makes: the bundled picture, seed 0, the model's method at its start.
        method = unstill.AnalyticInit(sigma=10.0, statistics=statistics)
        still, moving = made(pipe, bundled[None])[0], made(pipe, bundled[None], method)[0]
        return [bundled[None], still, moving], ["your picture", f"plain: {said(still)}", f"unstill: {said(moving)}"], 3

    def levels() -> tuple[list[Tensor], list[str], int]:
        videos = [made(pipe, bundled[None], motion=level)[0] for level in LEVELS]
        return videos, [f"motion={level:g}" for level in LEVELS], len(LEVELS)

    def beside(caption: str, method: unstill.Method) -> tuple[list[Tensor], list[str], int]:
        clips, labels = [], []
        for image, before, after in zip(images, plain, made(pipe, images, method), strict=True):
            clips += [image[None], before, after]
            labels += ["picture", f"plain: {flow(before):.2f}", f"{caption}: {flow(after):.2f}"]
        return clips, labels, 3

    def training() -> tuple[list[Tensor], list[str], int]:
        shown = time_noise(pipe, bundled)
        return list(shown.values()), list(shown), len(shown)

    pictures: dict[str, Callable[[], tuple[list[Tensor], list[str], int]]] = {"hero": hero, "levels": levels}
    for page, (caption, method) in settings(statistics).items():
        pictures[page] = lambda caption=caption, method=method: beside(caption, method)
    pictures["time_noise"] = training
    for name, make in pictures.items():
        if chosen.only is not None and name not in chosen.only:
            continue
        clips, labels, columns = make()
        path = chosen.out / f"{name}.webp"
        sheet = side_by_side(clips, labels, panel=288 if name == "hero" else 192, columns=columns)
        write_video(path, sheet, FPS)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB; {', '.join(labels)}", flush=True)


if __name__ == "__main__":
    main()
