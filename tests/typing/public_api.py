"""
Uses of the public names, right and wrong, that `test_typing.py` lets mypy check. It is never run.

`# E: text` at the end of a line: mypy must report an error with this text there, and no other one anywhere.
`# R: type` after `reveal_type(...)`: the type that mypy must reveal.
"""

# ruff: noqa: B018
from pathlib import Path
from typing import Any, reveal_type

import torch
from PIL import Image

import unstill


def right(pipe: Any, image: Image.Image, latents: torch.Tensor) -> None:
    with unstill.apply(pipe, unstill.EarlyStart(sigma=20.0), unstill.NoiseRectification(), image=image) as applied:
        reveal_type(applied.process)  # R: unstill.forward_process.ForwardProcess
    animation = unstill.animate(
        "photo.jpg", methods=["early-start", unstill.FreeInit()], motion=0.8, out=Path("x.mp4")
    )
    reveal_type(animation)  # R: unstill.animation_result.Animation
    reveal_type(animation.frames)  # R: torch._tensor.Tensor
    reveal_type(animation.scores)  # R: dict[str, dict[str, float]]
    reveal_type(unstill.animate_all(["a.jpg"], seed=1)[0].files)  # R: tuple[pathlib.Path, ...]
    reveal_type(unstill.evaluate("videos").scores["fvd"].value)  # R: float
    reveal_type(unstill.diagnose(model="pico", count=4))  # R: unstill.lab.diagnosis.DiagnosisResult | None
    reveal_type(unstill.compare(["early-start"]))  # R: unstill.lab.comparison.ComparisonResult | None
    reveal_type(unstill.verify("pico", quick=True))  # R: unstill.lab.verification.VerificationResult
    reveal_type(unstill.i4vgen(pipe, "a boat").frames)  # R: torch._tensor.Tensor
    reveal_type(unstill.ForwardProcess.of(None).alpha_sigma(0.5))  # R: tuple[float, float]
    reveal_type(unstill.LatentStatistics.load("x.safetensors").mean)  # R: torch._tensor.Tensor
    reveal_type(unstill.metrics.motion_score(latents))  # R: float
    reveal_type(unstill.text_to_video.CandidateOptions(count=4).pick)  # R: int | None
    reveal_type(unstill.methods.analytic_init.initial_latents)  # R: def
    reveal_type(unstill.__version__)  # R: str


def wrong(pipe: Any) -> None:
    unstill.aply(pipe)  # E: Module has no attribute "aply"
    unstill.apply(pipe, "early-start")  # E: incompatible type "str"; expected "Method"
    unstill.EarlyStart(sgma=20.0)  # E: Unexpected keyword argument "sgma"
    unstill.EarlyStart(sigma="20")  # E: incompatible type "str"; expected "float | None"
    unstill.EarlyStart(sigma=20.0).sigma = 10.0  # E: Property "sigma" defined in "EarlyStart" is read-only
    unstill.animate("photo.jpg", 3)  # E: Too many positional arguments
    unstill.animate("photo.jpg", size="512x320")  # E: expected "tuple[int, int] | None"
    unstill.animate("photo.jpg", sed=1)  # E: Unexpected keyword argument "sed"
    unstill.animate_all()  # E: Missing positional argument "images"
    unstill.animate("photo.jpg").verdct  # E: "Animation" has no attribute "verdct"
    unstill.evaluate()  # E: Missing positional argument "generated"
    unstill.metrics.motion_scores  # E: Module has no attribute "motion_scores"
    unstill.load("pico", ofload=1, device=3)  # E: incompatible type "int"; expected "str | device | None"
