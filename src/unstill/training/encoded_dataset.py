"""Encoded training clips: encoded on the fly, or once and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from unstill.data.cache import CacheSettings, fill_cache, fingerprint_of, open_cache
from unstill.data.loading import Readable, can_fork
from unstill.data.seeding import generator_for
from unstill.data.sources import Sample, Source
from unstill.families.registry import adapter_for
from unstill.families.training import Encoded, TrainingRole


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """
    Encodes clips with the frozen parts of a pipeline.

    Attributes:
        pipe: the pipeline.
        family: training adapter of its family.
        random_frame: the conditioning image is a random frame of the clip instead of the first.
        motion_bucket: SVD's motion bucket for every clip; `None`: the family's default.
    """

    pipe: Any
    family: TrainingRole
    random_frame: bool = False
    motion_bucket: float | None = None

    @torch.no_grad()
    def __call__(self, sample: Sample, generator: torch.Generator) -> Encoded:
        """
        Encodes one clip.

        Args:
            sample: the clip.
            generator: draws the conditioning frame and the posterior sample of the autoencoder.

        Returns:
            The named inputs of the denoiser, on the CPU or on the pipeline's device.
        """
        frame = int(torch.randint(len(sample.video), (), generator=generator)) if self.random_frame else 0
        latents = adapter_for(self.pipe).encode_video(self.pipe, sample.video, generator)[0]
        inputs = self.family.encode(self.pipe, sample, latents, frame)
        if self.motion_bucket is not None and "motion" in inputs:
            inputs["motion"] = torch.tensor(float(self.motion_bucket))
        return {name: value.detach() for name, value in inputs.items()}

    @property
    def fingerprint(self) -> str:
        """A hash of the weights that encode clips, and of the settings."""
        denoisers = {self.family.denoiser, *adapter_for(self.pipe).denoisers}
        frozen = {
            name: part
            for name, part in sorted(self.pipe.components.items())
            if isinstance(part, torch.nn.Module) and name not in denoisers
        }
        settings = (self.family.name, list(frozen), self.random_frame, self.motion_bucket)
        return f"{settings} {fingerprint_of(*frozen.values())}"


@dataclass(frozen=True)
class _Numbered:
    """A source that returns (clip, index, epoch), for an encoder on an accelerator."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, epoch: int = 0) -> tuple[Sample, int, int]:
        return self.source.read(index, epoch), index, epoch

    def name(self, index: int) -> str:
        return self.source.name(index)


@dataclass(frozen=True)
class _EncodedAsRead:
    """A source that returns encoded clips: the processes that read ahead encode as well."""

    source: Source
    encode: Callable[[Sample, int, int], Encoded]

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, epoch: int = 0) -> Encoded:
        return self.encode(self.source.read(index, epoch), index, epoch)

    def name(self, index: int) -> str:
        return self.source.name(index)


def encoded_clips(
    source: Source,
    encoder: Encoder,
    seed: int,
    cache: Path | None,
    workers: int,
    accelerator: Accelerator,
    progress: Callable[[int, int], None],
) -> tuple[Readable[Any], Callable[[Any], Encoded]]:
    """
    Prepares encoded clips, cached or not.

    With `cache` every clip is encoded once before the training, and is the same in every epoch; the processes share
    the work. Otherwise clips are encoded during the training, from other parts of the videos in every epoch: on a CPU
    by the processes that read ahead, which are forked and so have the encoder; on an accelerator, which a forked
    process cannot use, by the training process.

    Args:
        source: of the clips.
        encoder: for the clips.
        seed: of the generators for the encoder.
        cache: folder of the cache; `None` encodes during the training.
        workers: processes that read ahead.
        accelerator: of the run.
        progress: called with (clips done, total) while the cache is filled.

    Returns:
        The data set for a `Loader`, and a function from its items to encoded clips.
    """
    if cache is None:

        def encode(sample: Sample, index: int, epoch: int) -> Encoded:
            return encoder(sample, generator_for("encode", seed, index, epoch))

        if accelerator.device.type == "cpu" and can_fork():
            return _EncodedAsRead(source, encode), lambda clip: clip
        return _Numbered(source), lambda numbered: encode(*numbered)
    settings = CacheSettings(cache, source, encoder.fingerprint, seed)
    shard = accelerator.process_index, accelerator.num_processes
    fill_cache(settings, encoder, shard=shard, workers=workers, progress=progress)
    accelerator.wait_for_everyone()
    return open_cache(settings), lambda clip: clip.tensors
