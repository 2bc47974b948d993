"""
Stage 1 of I4VGen: generates several pictures of a prompt in the image mode of a video model, and selects the best.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.families.registry import IMAGE_MODES
from unstill.hooks import adapter_for, apply
from unstill.models.call_arguments import clear_refusals
from unstill.progress import StepProgress
from unstill.text_to_video.partial_sampling import PartialSchedule
from unstill.text_to_video.rewards import best


Score = Callable[[Sequence[Image.Image]], list[float]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One generated picture.

    Attributes:
        image: the picture; of one that was stopped early, the decoded prediction of x0.
        score: of `image`; nan until it is scored.
        sample: its latents `(1, C, 1, h, w)` after the last step, float32; `None` from a text-to-image pipeline.
        stopped: number of steps after which it was stopped; `None` if it is finished.
    """

    image: Image.Image
    score: float = math.nan
    sample: torch.Tensor | None = None
    stopped: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Halving:
    """
    Successive halving: candidates are scored during sampling by the predicted x0, and the worse ones are stopped.

    Args:
        at: shares of the steps after which candidates are compared, each in (0, 1) and rising. Earlier ones save more
            time and select less reliably; the default hardly changed the scores of the embedded model
            (docs/i4vgen/early.md).
        keep: the share of the candidates that is continued each time, in (0, 1); at least one is.
    """

    at: tuple[float, ...] = (0.6,)
    keep: float = 0.5

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.at, self.at[1:], strict=False))
        if not self.at or not rising or not all(0 < a < 1 for a in self.at) or not 0 < self.keep < 1:
            raise UnstillError(f"Halving takes rising shares of the steps and a share to keep in (0, 1), not {self}.")

    def stops(self, steps: int) -> list[int]:
        """The numbers of steps, out of `steps`, after which candidates are compared."""
        return sorted({round(share * steps) for share in self.at} & set(range(1, steps)))


def has_image_mode(cls: type) -> bool:
    """Whether pipelines of a class generate pictures from a prompt alone."""
    return any(base.__name__ in IMAGE_MODES for base in cls.__mro__)


def image_mode(pipe: Any) -> AbstractContextManager[Any]:
    """A context in which a call of the pipeline for one frame generates a picture."""
    for cls in type(pipe).__mro__:
        if cls.__name__ in IMAGE_MODES:
            return IMAGE_MODES[cls.__name__](pipe)
    raise UnstillError(
        f"{type(pipe).__name__} cannot generate pictures from a prompt alone; pass image=, or a text-to-image "
        "pipeline as text_to_image=."
    )


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows, the last one shorter, that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass(frozen=True, slots=True)
class ImageMode:
    """
    Generates pictures with the image mode of a video pipeline.

    Args:
        call: further arguments of the pipeline's call, `num_inference_steps` among them.
        size: (height, width) in pixels.
        batch: pictures in one call.
        generator: of all noise.
    """

    pipe: Any
    prompt: str
    call: Mapping[str, Any]
    size: tuple[int, int]
    batch: int
    generator: torch.Generator

    @property
    def steps(self) -> int:
        return int(self.call["num_inference_steps"])

    def make(self, count: int, score: Score, early: Halving | None, progress: StepProgress) -> list[Candidate]:
        """
        Generates candidates.

        All noise is drawn first, as for a video of `count` frames, and candidate i starts from frame i. So a candidate
        depends neither on `batch` nor on `early`, except with schedulers that draw noise at every step.

        Args:
            count: number of candidates.
            score: scores the pictures at the stops of `early`.
            early: stops the worse candidates; `None` finishes all.
            progress: called with the number of picture-steps done and in total.

        Returns:
            The candidates in the order of their noise. Those that are finished are not scored yet.
        """
        samples = self.noise(count)
        alive = list(range(count))
        candidates: list[Candidate | None] = [None] * count
        stops = early.stops(self.steps) if early is not None and count > 1 else []
        pieces = list(zip([0, *stops], [*stops, None], strict=True))
        left = [count]  # candidates in each piece
        for _ in stops:
            assert early is not None
            left.append(max(1, math.ceil(left[-1] * early.keep)))
        work = sum(n * ((until or self.steps) - since) for n, (since, until) in zip(left, pieces, strict=True))
        done = 0
        for survivors, (since, until) in zip([*left[1:], 0], pieces, strict=True):
            ends, expected = self.advance(samples, since, until, partial(_from, progress, done, work))
            done += len(alive) * ((until or self.steps) - since)
            images = self.pictures(ends if until is None else expected)
            scores = score(images) if until is not None else [math.nan] * len(images)
            ranked = sorted(range(len(alive)), key=lambda row: -scores[row])  # stable: equal scores keep their order
            for row in ranked[survivors:]:
                candidates[alive[row]] = Candidate(images[row], scores[row], ends[[row]], until)
            rows = sorted(ranked[:survivors])
            alive, samples = [alive[row] for row in rows], ends[rows]
        return [candidate for candidate in candidates if candidate is not None]

    def finish(self, candidate: Candidate) -> Candidate:
        """Finishes a candidate that was stopped; its score remains that of the predicted picture."""
        if candidate.stopped is None:
            return candidate
        assert candidate.sample is not None
        sample, _ = self.advance(candidate.sample, candidate.stopped, None, lambda steps: None)
        return replace(candidate, image=self.pictures(sample)[0], sample=sample, stopped=None)

    def noise(self, count: int) -> torch.Tensor:
        """Unit noise `(count, C, 1, h, w)`, drawn as the pipeline would for one video of `count` frames."""
        from diffusers.utils.torch_utils import randn_tensor

        pipe, adapter = self.pipe, adapter_for(self.pipe)
        space, _ = adapter.compression(pipe)
        config = pipe.vae.config
        channels = getattr(config, "latent_channels", None) or config.z_dim
        height, width = (side // space for side in self.size)
        denoiser = getattr(pipe, "transformer", None) or pipe.unet
        shape = (1, count, channels) if adapter.frames_first else (1, channels, count)
        noise = randn_tensor(
            (*shape, height, width), generator=self.generator, device=pipe._execution_device, dtype=denoiser.dtype
        )
        frames = noise[0] if adapter.frames_first else noise[0].transpose(0, 1)  # (count, C, h, w)
        return frames[:, :, None]

    def advance(
        self, samples: torch.Tensor, since: int, until: int | None, progress: Callable[[int], None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Samples from level `since` to level `until` of the schedule.

        Args:
            samples: `(n, C, 1, h, w)`, unit noise if `since` is 0, else the result of the earlier piece.
            since: index of the first level.
            until: index after the last level; `None`: to the end.
            progress: called with the number of picture-steps done.

        Returns:
            The samples after the piece, and the predicted x0 (the same where `until` is `None`), on the CPU.
        """
        adapter = adapter_for(self.pipe)
        ends, expected = [], []
        for part in batches(len(samples), self.batch):
            rows = samples[part]
            n, before = len(rows), part.start * ((until or self.steps) - since)

            def report(level: int, n: int = n, before: int = before) -> None:
                progress(before + n * (level + 1 - since))

            piece = PartialSchedule(since=since, until=until, sample=rows if since else None, progress=report)
            latents = rows.transpose(1, 2) if adapter.frames_first else rows
            with image_mode(self.pipe), apply(self.pipe, piece) as applied, clear_refusals(self.pipe):
                self.pipe(
                    **{
                        **as_rows(self.call, self.prompt, n),
                        "num_frames": 1,
                        "latents": latents.to(self.pipe._execution_device),
                        "generator": self.generator,
                        "output_type": "latent",
                    }
                )
                assert applied.run is not None
                ends.append(applied.sample.cpu())
                expected.append(ends[-1] if until is None else piece.predicted(applied.run).cpu())
        return torch.cat(ends), torch.cat(expected)

    def pictures(self, latents: torch.Tensor) -> list[Image.Image]:
        """Decodes latents `(n, C, 1, h, w)` one by one, so that the autoencoder needs no more memory than for one."""
        adapter = adapter_for(self.pipe)
        return [
            as_picture(adapter.decode_video(self.pipe, row[None].to(self.pipe._execution_device))[0])
            for row in latents
        ]


def _from(progress: StepProgress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


_TEXT = re.compile(r"(negative_)?prompt(_\d)?")


def as_rows(call: Mapping[str, Any], prompt: str, count: int) -> dict[str, Any]:
    """The arguments of a call for one video as those of a batch of `count`."""
    rows: dict[str, Any] = {}
    for name, value in call.items():
        if isinstance(value, torch.Tensor) and "prompt" in name:
            value = value.repeat_interleave(count, 0)
        elif isinstance(value, str) and _TEXT.fullmatch(name):  # pipelines require as many as of `prompt`
            value = [value] * count
        rows[name] = value
    if "prompt_embeds" not in rows:
        rows["prompt"] = [prompt] * count
    return rows


def as_picture(pixels: torch.Tensor) -> Image.Image:
    """Converts `(3, H, W)` in [0, 1] into a PIL picture."""
    if not torch.isfinite(pixels).all():
        raise UnstillError("The model returned a picture with NaN or infinity; use dtype float32, or another seed.")
    rounded = (pixels.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(rounded.permute(1, 2, 0).contiguous().numpy())


def choose(candidates: Sequence[Candidate], pick: int | None = None) -> int:
    """The index `pick`, or that of the finished candidate with the highest score, the first of equal ones."""
    if pick is not None:
        if not 0 <= pick < len(candidates):
            raise UnstillError(f"There is no candidate {pick}; they are numbered 0 to {len(candidates) - 1}.")
        return pick
    finished = [index for index, candidate in enumerate(candidates) if candidate.stopped is None]
    return finished[best([candidates[index].score for index in finished])]
