"""The synthetic world: its flow is exact, its motion hidden from the first frame, its seed decides everything."""

import pytest
import torch
from torch.nn.functional import grid_sample

from unstill.data import world


def draw(n=6, seed=0, level=None, **kwargs):
    g = torch.Generator().manual_seed(seed)
    scene = world.sample_scene(n, g, **kwargs)
    return scene, world.sample_motion(scene, g, level)


def pulled_back(frame, flow):
    """The later frame (N, 3, H, W) as seen through the flow (N, 2, H, W) of the earlier one's pixels."""
    size = frame.shape[-1]
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    at = torch.stack([x + flow[:, 0], y + flow[:, 1]], -1)
    return grid_sample(frame, (at + 0.5) * 2 / size - 1, align_corners=False, padding_mode="border")


@pytest.mark.parametrize("collage", [0.0, 1.0])
def test_flow_carries_each_frame_into_the_next(collage):
    scene, motion = draw(8, seed=3, collage=collage, level=0.8)
    clips = world.render(scene, motion, frames=4, size=64)
    for f in range(3):
        before, after = clips.video[:, f], clips.video[:, f + 1]
        moved = (pulled_back(after, clips.flow[:, f]) - before).abs().mean(1)[:, 6:-6, 6:-6]
        stayed = (after - before).abs().mean(1)[:, 6:-6, 6:-6]
        # Occlusions, shadows and the fixed lighting are not carried by the flow, so compare the bulk of the pixels.
        assert moved.quantile(0.8) < 0.02
        assert moved.mean() < 0.6 * stayed.mean()


@pytest.mark.parametrize("since", [0, -1])
def test_displacement_leads_back_to_the_frame_it_counts_from(since):
    scene, motion = draw(12, seed=3, level=0.8)
    clips = world.render(scene, motion, frames=8, size=64)
    moved = world.displacement(scene, motion, frames=8, size=64, since=since)
    assert moved[:, since].abs().max() < 1e-6
    for f in (2, 5):
        fetched = pulled_back(clips.video[:, since], -moved[:, f] * 64)
        stayed = (clips.video[:, since] - clips.video[:, f]).abs().mean()
        assert (fetched - clips.video[:, f]).abs().mean() < 0.6 * stayed  # the rest was hidden, or is the fixed light


def test_score_is_the_mean_length_of_the_flow_in_picture_sides():
    scene, motion = draw(4)
    clips = world.render(scene, motion, frames=3, size=32)
    torch.testing.assert_close(clips.score, (clips.flow / 32).norm(dim=2).mean((1, 2, 3)))
    torch.testing.assert_close(clips.motion, clips.score / world.SCORE_UNIT)


def test_score_does_not_depend_on_the_resolution():
    scene, motion = draw(6, seed=1)
    coarse, fine = (world.render(scene, motion, frames=3, size=s).score for s in (32, 96))
    torch.testing.assert_close(coarse, fine, rtol=0.05, atol=1e-4)


def test_level_zero_stands_still():
    clips = world.render(*draw(4, level=0.0), frames=3, size=32)
    assert clips.flow.abs().max() == 0
    assert torch.equal(clips.video[:, 0], clips.video[:, 2])


def test_the_first_frame_does_not_tell_the_motion():
    g = torch.Generator().manual_seed(0)
    scene = world.sample_scene(5, g)
    one, other = (world.render(scene, world.sample_motion(scene, g), frames=2, size=32) for _ in range(2))
    assert torch.equal(one.video[:, 0], other.video[:, 0])
    assert not torch.equal(one.video[:, 1], other.video[:, 1])


def test_the_seed_decides_everything():
    one, same, other = (world.render(*draw(3, seed=s), frames=2, size=16).video for s in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_scaled_motion_is_faster_by_the_factor():
    scene, motion = draw(4, level=0.3, collage=0.0)
    motion = world.Motion(motion.velocity, motion.gravity * 0, motion.spin * 0, motion.pan, motion.zoom)
    once = world.render(scene, motion, frames=2, size=32).score
    twice = world.render(scene, motion.scaled(torch.full((4,), 2.0)), frames=2, size=32).score
    torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-6)


def test_toys_stay_in_the_picture():
    scene, motion = draw(64, level=1.0)
    centres, _ = world._paths(scene, motion, 16)
    assert centres.min() > 0 and centres.max() < 1


def test_caption_names_what_is_there():
    scene, motion = draw(20, seed=2)
    for i in range(20):
        text = world.caption(scene, motion, i)
        toys = int(scene.present[i].sum())
        assert sum(shape in text for shape in world.SHAPES) >= min(1, toys)
        assert (" and " in text) == (toys == 2)
