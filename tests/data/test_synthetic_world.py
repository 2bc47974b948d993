"""The synthetic world: its flow is exact, its motion hidden from the first frame, its seed decides everything."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import grid_sample

from unstill.data import captions, synthetic_world


def draw(n=6, seed=0, level=None, **kwargs):
    g = torch.Generator().manual_seed(seed)
    scene = synthetic_world.sample_scene(n, g, **kwargs)
    return scene, synthetic_world.sample_motion(scene, g, level)


def pulled_back(frame, flow):
    """The later frame (N, 3, H, W) as seen through the flow (N, 2, H, W) of the earlier one's pixels."""
    size = frame.shape[-1]
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    at = torch.stack([x + flow[:, 0], y + flow[:, 1]], -1)
    return grid_sample(frame, (at + 0.5) * 2 / size - 1, align_corners=False, padding_mode="border")


@pytest.mark.parametrize("collage", [0.0, 1.0])
def test_flow_carries_each_frame_into_the_next(collage):
    scene, motion = draw(8, seed=3, collage=collage, level=0.8)
    clips = synthetic_world.render(scene, motion, frames=4, size=64)
    for f in range(3):
        before, after = clips.video[:, f], clips.video[:, f + 1]
        moved = (pulled_back(after, clips.flow[:, f]) - before).abs().mean(1)[:, 6:-6, 6:-6]
        stayed = (after - before).abs().mean(1)[:, 6:-6, 6:-6]
        # Occlusions, shadows and the fixed lighting are not carried by the flow, so compare the bulk of the pixels.
        assert moved.quantile(0.8) < 0.02
        assert moved.mean() < 0.6 * stayed.mean()


def test_score_is_the_mean_length_of_the_flow_in_picture_sides():
    scene, motion = draw(4)
    clips = synthetic_world.render(scene, motion, frames=3, size=32)
    torch.testing.assert_close(clips.score, (clips.flow / 32).norm(dim=2).mean((1, 2, 3)))
    torch.testing.assert_close(clips.motion, clips.score / synthetic_world.SCORE_UNIT)


def test_score_does_not_depend_on_the_resolution():
    scene, motion = draw(6, seed=1)
    coarse, fine = (synthetic_world.render(scene, motion, frames=3, size=s).score for s in (32, 96))
    torch.testing.assert_close(coarse, fine, rtol=0.05, atol=1e-4)


def test_level_zero_stands_still():
    clips = synthetic_world.render(*draw(4, level=0.0), frames=3, size=32)
    assert clips.flow.abs().max() == 0
    assert torch.equal(clips.video[:, 0], clips.video[:, 2])


def test_the_first_frame_does_not_tell_the_motion():
    g = torch.Generator().manual_seed(0)
    scene = synthetic_world.sample_scene(5, g)
    one, other = (
        synthetic_world.render(scene, synthetic_world.sample_motion(scene, g), frames=2, size=32) for _ in range(2)
    )
    assert torch.equal(one.video[:, 0], other.video[:, 0])
    assert not torch.equal(one.video[:, 1], other.video[:, 1])


def test_the_seed_decides_everything():
    one, same, other = (synthetic_world.render(*draw(3, seed=s), frames=2, size=16).video for s in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_scaled_motion_is_faster_by_the_factor():
    scene, motion = draw(4, level=0.3, collage=0.0)
    motion = synthetic_world.Motion(motion.velocity, motion.gravity * 0, motion.spin * 0, motion.pan, motion.zoom)
    once = synthetic_world.render(scene, motion, frames=2, size=32).score
    twice = synthetic_world.render(scene, motion.scaled(torch.full((4,), 2.0)), frames=2, size=32).score
    torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-6)


def test_toys_stay_in_the_picture():
    scene, motion = draw(64, level=1.0)
    centres, _ = synthetic_world.paths(scene, motion, 16)
    assert centres.min() > 0 and centres.max() < 1


def test_rendering_in_parts_is_rendering_at_once(monkeypatch):
    scene, motion = draw(7, seed=4)
    parts = synthetic_world.render(scene, motion, frames=3, size=32)
    monkeypatch.setattr(synthetic_world, "_CHUNK", 7)
    whole = synthetic_world.render(scene, motion, frames=3, size=32)
    for name in ("video", "flow", "score"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_the_world_is_the_one_that_the_embedded_model_was_trained_on():
    """tests/golden/pico/README.md"""
    golden = load_file(Path(__file__).parents[1] / "golden" / "pico" / "second_generation.safetensors")
    scene, motion = draw(6, seed=7, size=24)
    clips = synthetic_world.render(scene, motion, frames=5, size=24)
    torch.testing.assert_close(clips.video[:, [0, 4]], golden["video"])
    torch.testing.assert_close(clips.score, golden["score"])
    assert torch.equal(captions.codes(scene, motion, 16), golden["codes_forwards"])
    assert torch.equal(captions.codes(scene, motion, 16, backwards=True), golden["codes_backwards"])


def test_captions_name_what_is_there():
    scene, motion = draw(40, seed=2)
    for i, sentence in enumerate(captions.captions(scene, motion)):
        toys = int(scene.present[i].sum())
        assert sum(shape in sentence for shape in synthetic_world.SHAPES) >= min(1, toys)
        assert (" and " in sentence) == (toys == 2)
        rich = bool(scene.background[i])
        assert ("a picture" in sentence) == rich and ("an orange " in sentence) >= ("a orange " in sentence)


def test_captions_of_one_toy_are_those_of_two_without_the_second():
    scene, motion = draw(20, seed=2, toys=1)
    assert all(" and " not in sentence for sentence in captions.captions(scene, motion))
