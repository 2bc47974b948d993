"""Toys are followed exactly in the world's own clips; break-up, flicker and fading are seen."""

import pytest
import torch
from PIL import Image

from unstill.data import synthetic_world
from unstill.lab.probe_clips import World
from unstill.lab.toys import measure_toys, toy_masks
from unstill.lab.video_measures import TOY_METRICS, Toys, measure_video


FRAMES, SIZE = 12, 96


@pytest.fixture(scope="module", params=range(3))
def clip(request):
    """A scene of one toy, its video, its masks, and the travel of its centre as the displacement field has it."""
    g = torch.Generator().manual_seed(40 + request.param)
    scene = synthetic_world.sample_scene(1, g, toys=1, collage=0.0, size=SIZE)
    motion = synthetic_world.sample_motion(scene, g, level=0.7)
    video = synthetic_world.render(scene, motion, FRAMES, SIZE).video[0]
    masks = toy_masks(scene, SIZE)
    return video, masks, true_travel(scene, motion)


def true_travel(scene, motion):
    """% of the side per frame: reflected at the walls as the world does it."""
    centre, velocity, path = scene.centre[0, 0].clone(), motion.velocity[0, 0].clone(), 0.0
    radius = float(scene.radius[0, 0])
    for _ in range(FRAMES - 1):
        velocity[1] += motion.gravity[0, 0]
        after = centre + velocity
        for axis in (0, 1):
            low, high = 0.8 * radius, 1 - 0.8 * radius
            if not low <= after[axis] <= high:
                after[axis] = 2 * (low if after[axis] < low else high) - after[axis]
                velocity[axis] = -velocity[axis]
        path += float((after - centre).norm())
        centre = after
    return 100 * path / (FRAMES - 1)


def test_the_worlds_own_clips_keep_everything_and_travel_as_far_as_they_do(clip):
    video, masks, travel = clip
    found = measure_toys(video, video[0], masks)
    assert found.travel == pytest.approx(travel, rel=0.04, abs=0.05)  # daylight shades a toy as it moves
    assert found.outline > 0.9 and found.colour > 0.9 and found.background_error < 0.006


def test_a_still_video_does_not_travel(clip):
    video, masks, _ = clip
    found = measure_toys(video[:1].expand(FRAMES, -1, -1, -1), video[0], masks)
    assert found.travel == 0 and found.outline > 0.9 and found.background_error == 0


def test_flicker_is_no_travel(clip):
    """Optical flow takes changing light for motion; here it shows in the background only."""
    video, masks, _ = clip
    light = 0.85 + 0.3 * torch.rand(FRAMES, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    found = measure_toys((video[:1] * light).clamp(0, 1), video[0], masks)
    assert found.travel < 0.1 and found.outline > 0.9 and found.background_error > 0.01  # own clips: < .006


def test_a_toy_that_fades_or_breaks_into_pieces_loses_its_outline(clip):
    video, masks, travel = clip
    share = torch.linspace(0, 1, FRAMES)[:, None, None, None]
    fading = video * (1 - share) + share * video[0].mean((1, 2))[None, :, None, None]
    found = measure_toys(fading, video[0], masks)
    assert found.outline < 0.75 and found.colour < 0.6
    g = torch.Generator().manual_seed(1)
    pieces = []
    for frame in video:  # blocks of 8 pixels change places
        blocks = frame.unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2)
        blocks = blocks[:, torch.randperm(blocks.shape[1], generator=g)]
        side = SIZE // 8
        pieces.append(blocks.unflatten(1, (side, side)).permute(0, 1, 3, 2, 4).reshape(3, SIZE, SIZE))
    found = measure_toys(torch.stack(pieces), video[0], masks)
    assert found.outline < 0.4 and found.travel < travel and found.background_error > 0.05


def test_masks_are_what_is_seen_of_each_toy():
    g = torch.Generator().manual_seed(3)
    scene = synthetic_world.sample_scene(8, g, toys=2, collage=0.0, size=SIZE)
    for i in range(8):
        masks = toy_masks(scene[i : i + 1], SIZE)
        assert len(masks) == int(scene.present[i].sum()) and masks.sum(0).max() <= 1


def test_a_picture_without_toys_has_no_such_measures():
    video = torch.rand(4, 3, 32, 32)
    assert measure_toys(video, video[0], torch.zeros(0, 32, 32, dtype=torch.bool)) is None


def test_they_are_reported_beside_flow_with_the_share_of_what_was_asked_for():
    clip = World(count=1, frames=FRAMES, size=(SIZE, SIZE))[0]
    own = measure_toys(clip.video, clip.video[0], clip.toys)
    video = (clip.video * 255).round().to(torch.uint8)
    picture = Image.fromarray(video[0].permute(1, 2, 0).numpy())
    toys = Toys(masks=clip.toys, motion=clip.motion, travel=own.travel)
    found = measure_video(video, picture, toys, clip.motion)
    assert set(TOY_METRICS) < set(found) and found["travel_share"] == pytest.approx(1, abs=1e-3)
    assert measure_video(video, picture, toys, clip.motion / 2)["travel_share"] == pytest.approx(2, abs=2e-3)
    assert not set(TOY_METRICS) & set(measure_video(video, picture))
