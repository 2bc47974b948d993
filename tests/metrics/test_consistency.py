"""Consistency formulas, encoders with tiny random networks, VBench's limits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPImageProcessorPil

from unstill.errors import UnstillError
from unstill.metrics import (
    FrameEncoder,
    aesthetic_quality,
    frame_consistency,
    image_consistency,
    image_fidelity,
    temporal_coherence,
    temporal_flickering,
    text_alignment,
)
from unstill.metrics.encoders import _CLIP_COLOURS, _IMAGENET_COLOURS
from unstill.metrics.registry import reported_values
from unstill.metrics.report import EvaluationReport, MetricScore


def rows(n: int = 5, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x.double() @ y.double() / (x.double().norm() * y.double().norm()))


def test_formulas_against_loops() -> None:
    frames, image = rows(), rows(1, seed=1)[0]
    assert image_fidelity(frames, image) == pytest.approx(np.mean([cosine(f, image) for f in frames]))
    assert text_alignment(3 * frames, image) == pytest.approx(np.mean([cosine(f, image) for f in frames]))
    near = [cosine(frames[i], frames[i + 1]) for i in range(4)]
    assert temporal_coherence(frames) == pytest.approx(np.mean(near))
    pairs = [cosine(frames[i], frames[j]) for i in range(5) for j in range(i)]
    assert temporal_coherence(frames, "all") == pytest.approx(np.mean(pairs))
    expected = [(max(0, near[i - 1]) + max(0, cosine(frames[0], frames[i]))) / 2 for i in range(1, 5)]
    assert frame_consistency(frames).tolist() == pytest.approx(expected)
    best = max(max(0, cosine(f, image)) for f in frames)
    clipped = [max(0, c) for c in near]
    assert image_consistency(frames, image) == pytest.approx(0.4 * best + 0.3 * np.mean(clipped) + 0.3 * min(clipped))


def test_a_copy_is_perfect() -> None:
    frames = rows(1).repeat(4, 1)
    assert image_fidelity(frames, frames[0]) == pytest.approx(1)
    assert temporal_coherence(frames, "all") == pytest.approx(1)
    assert temporal_coherence(frames) == pytest.approx(1)
    assert frame_consistency(frames).tolist() == pytest.approx([1, 1, 1])
    assert image_consistency(frames, frames[0]) == pytest.approx(1)


def test_flickering_is_vbenchs_formula() -> None:
    video = torch.randint(256, (4, 3, 8, 9), generator=torch.Generator().manual_seed(0)).byte()
    floats = video.numpy().astype(np.float32)
    maes = [np.mean(np.abs(floats[i] - floats[i + 1])) for i in range(3)]
    assert temporal_flickering(video) == pytest.approx((255.0 - np.mean(maes)) / 255.0, rel=1e-6)
    assert temporal_flickering(video[:1].repeat(3, 1, 1, 1)) == 1
    black_and_white = torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 4, 4)
    assert temporal_flickering(black_and_white) == 0


def test_errors_are_sentences() -> None:
    with pytest.raises(UnstillError, match="at least 2 frames"):
        temporal_coherence(rows(1))
    with pytest.raises(UnstillError, match="neighbours or all"):
        temporal_coherence(rows(), "some")  # type: ignore[arg-type]
    with pytest.raises(UnstillError, match="at least 2 frames"):
        temporal_flickering(torch.zeros(1, 3, 4, 4))


def video(height: int = 40, width: int = 70) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 5, width), indexing="ij")
    frames = [torch.stack([(x + f).sin(), (y - f).cos(), (x * y + f).sin()]) for f in range(3)]
    return ((torch.stack(frames) + 1) * 127.5).byte()


def test_clip_matches_transformers_own_path(clip_folder: Path) -> None:
    encoder = FrameEncoder.load_clip(str(clip_folder))
    found = encoder.images(video())
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    pictures = [frame.permute(1, 2, 0).numpy() for frame in video()]
    inputs = processor(images=pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(encoder.preprocess(video()), inputs, rtol=0, atol=0.03)  # PIL rounds to whole levels
    with torch.no_grad():
        expected = encoder.model.get_image_features(pixel_values=inputs).pooler_output
        ids = torch.tensor([[3, 4]])
        text = encoder.model.get_text_features(input_ids=ids).pooler_output[0]
    similar = torch.nn.functional.cosine_similarity(found, expected)
    assert similar.min() > 0.999 and found.norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    torch.testing.assert_close(encoder.text("a dog"), text / text.norm())
    assert encoder.name == str(clip_folder)
    assert encoder.images(video().float() / 255).allclose(found, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_frames_are_resized_as_torchvision_does(
    clip_folder: Path, dino_folder: Path, kind: str, antialias: bool
) -> None:
    """Sizes and levels are those that torchvision's Resize and CenterCrop gave; noise makes bicubic overshoot."""
    if kind == "clip":
        encoder, mean, deviation = FrameEncoder.load_clip(str(clip_folder), antialias=antialias), *_CLIP_COLOURS
    else:
        encoder, mean, deviation = FrameEncoder.load_dino(str(dino_folder), antialias=antialias), *_IMAGENET_COLOURS
    recorded = load_file(Path(__file__).parents[1] / "golden" / "metrics" / "resize.safetensors")
    for height, width, side in ((320, 360, 224), (480, 720, 336), (360, 320, 224), (37, 50, 32), (24, 40, 32)):
        n = torch.arange(3 * height * width)
        frames = ((n * n * 7 + n * 31) % 251 + n % 5).view(1, 3, height, width).byte()
        encoder.side = side
        found = encoder.preprocess(frames)
        levels = found * torch.tensor(deviation)[:, None, None] + torch.tensor(mean)[:, None, None]
        key = f"{kind} {height}x{width} {side} {'antialias' if antialias else 'plain'}"
        assert found.shape == tuple(recorded[f"{key} shape"].tolist())
        torch.testing.assert_close(levels[0, :, ::9, ::11] * 255, recorded[key].float(), rtol=0, atol=1e-3)


def test_dino_keeps_the_aspect_and_takes_the_class_token(dino_folder: Path) -> None:
    encoder = FrameEncoder.load_dino(str(dino_folder))
    inputs = encoder.preprocess(video())
    assert inputs.shape == (3, 3, 32, 56)
    with torch.no_grad():
        token = encoder.model(pixel_values=inputs, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder.images(video()), torch.nn.functional.normalize(token, dim=1))
    with pytest.raises(UnstillError, match="no text encoder"):
        encoder.text("a dog")


def test_missing_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnstillError, match="could not be loaded"):
        FrameEncoder.load_clip(str(tmp_path))


def test_aesthetic_head_is_linear_over_ten(tmp_path: Path) -> None:
    weight, bias = torch.randn(1, 6, generator=torch.Generator().manual_seed(3)), torch.tensor([5.0])
    torch.save({"weight": weight, "bias": bias}, tmp_path / "head.pth")
    expected = float((rows() @ weight[0] + 5).mean() / 10)
    assert aesthetic_quality(rows(), tmp_path / "head.pth") == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UnstillError, match="width 7"):
        aesthetic_quality(rows(d=7), tmp_path / "head.pth")


def test_vbench_scores_are_normalised_between_its_limits() -> None:
    """The limits are those of VBench's own script, which maps them to 0 and 1."""
    limits = {
        "subject_consistency": (0.1462, 1.0),
        "background_consistency": (0.2615, 1.0),
        "temporal_flickering": (0.6293, 1.0),
        "dynamic_degree": (0.0, 1.0),
        "aesthetic_quality": (0.0, 1.0),
    }
    assert {name: value.vbench for name, (value, _) in reported_values().items() if value.vbench} == limits
    for share in (0.0, 0.25, 1.0):
        scores = {
            name: MetricScore(value=low + share * (high - low), error=None, count=1)
            for name, (low, high) in limits.items()
        }
        report = EvaluationReport(
            generated="folder", reference=None, videos=1, settings={}, scores=scores, by_video={}
        ).as_dict()
        assert {name: score["vbench_normalised"] for name, score in report["scores"].items()} == {
            name: pytest.approx(share) for name in limits
        }
