"""Training data: clips per second of every kind of source, and how long a training step waits for its batch.

The clips per second are those of one process without workers, in seconds of processor time. For the waiting, the
training is a stand-in that only sleeps, as a process does whose GPU is at work: a real step on the same processor
would compete with the loading. Run it on an idle machine: among other work even the processor time grew tenfold here.
"""

import argparse
import json
import os
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from unstill.data import write_video
from unstill.data.cache import CacheSettings, LatentCache, fill_cache, open_cache
from unstill.data.loading import Loader
from unstill.data.sources import Sample, Source, SourceSettings, open_source


def make_videos(folder: Path, count: int) -> None:
    """Videos of WebVid's size (596 x 336, 25 frames/s), of 6 s: a texture that moves."""
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        coarse = torch.rand(1, 3, 42, 75, generator=generator)
        still = torch.nn.functional.interpolate(coarse, (336, 596), mode="bicubic").clamp(0, 1)[0].mul(255).byte()
        write_video(folder / f"{number}.mp4", torch.stack([still.roll((f, 2 * f), (1, 2)) for f in range(150)]), 25)


def make_shard(videos: Path, shard: Path) -> None:
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for number, file in enumerate(sorted(videos.rglob("*.mp4"))):
            tar.add(file, f"{number:04d}.mp4")


def make_cache(folder: Path, source: Source, clips: int) -> LatentCache:
    """Latents of Stable Diffusion's shape for the clips, and an image's."""

    def encode(sample: Sample, generator: torch.Generator) -> dict[str, torch.Tensor]:
        frames, _, height, width = sample.video.shape
        latents = torch.randn(4, frames, height // 8, width // 8, generator=generator)
        return {"latents": latents, "image": latents[:, :1], "tokens": torch.randn(257, 1280, generator=generator)}

    settings = CacheSettings(folder, source, "stand-in")
    fill_cache(settings, encode)
    return open_cache(settings)


def clips_per_second(source: Source | LatentCache, clips: int) -> float:
    source.read(0)  # what happens only once
    began = time.process_time()
    for number in range(clips):
        source.read(number % len(source), 1 + number // len(source))
    return round(clips / (time.process_time() - began), 1)


def waiting(source: Source | LatentCache, batch: int, workers: int, step: float, steps: int) -> dict[str, float]:
    """The share of the time in which the training waits, after the first batch."""
    batches = Loader(source, batch, workers=workers).batches()
    next(batches)
    waited, began = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        time.sleep(step)
    return {"share of time waiting": round(waited / (time.perf_counter() - began), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="a folder of videos; by default four are made")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", type=float, default=1.0, help="seconds that the stand-in for a step takes")
    parser.add_argument("--steps", type=int, default=8, help="of the stand-in; 0 leaves the waiting out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.videos or Path(temporary, "videos")
        if options.videos is None:
            make_videos(folder, 4)
        make_shard(folder, Path(temporary, "shards", "0.tar"))
        video = SourceSettings(path=folder, frames=16, size=(320, 512), fps=8)
        shards = replace(video, kind="shards", path=Path(temporary, "shards"))
        world = SourceSettings(kind="world", frames=16, size=(96, 96))
        sources: dict[str, Source | LatentCache] = {
            "folder, 16 frames of 512x320 at 8 frames/s": open_source(video),
            "the same, in a shard": open_source(shards),
            "the same with a stride of 1 to 6": open_source(replace(video, fps=None, stride=(1, 6))),
            "synthetic world, 8 frames of 64x64": open_source(world),
            "cache of latents, 16 frames of 512x320 with CLIP tokens": make_cache(
                Path(temporary, "cache"), open_source(replace(video, clips_per_video=2)), options.clips
            ),
        }
        result: dict[str, object] = {"load average": os.getloadavg()[0], "processors": os.cpu_count()}
        for name, source in sources.items():
            row = {"clips per second of processor time": clips_per_second(source, options.clips)}
            if options.steps:
                row |= waiting(source, options.batch, options.workers, options.step, options.steps)
            result[name] = row
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
