"""
A small synthetic world with exact optical flow: shaded toys drift, bounce and turn over a background that pans.

The first frame shows appearance and pose but nothing of the motion. This makes it a test bed for conditional image
leakage: motion that a model predicts at high noise cannot come from the image. All functions are vectorised over clips
and run on the device of their generator. The unit of length is the side of the picture.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from unstill.data.synthetic_drawing import SHAPES, depth_inside, paint_collage, pixel_centres, rgb, uniform


COLOURS = {  # name: (hue, saturation, value)
    "red": (0.00, 0.85, 0.90),
    "orange": (0.075, 0.90, 0.98),
    "yellow": (0.14, 0.85, 0.98),
    "green": (0.36, 0.75, 0.72),
    "cyan": (0.50, 0.70, 0.88),
    "blue": (0.61, 0.80, 0.92),
    "purple": (0.76, 0.65, 0.80),
    "pink": (0.91, 0.50, 0.98),
}
FILLS = ("half", "dot")
BACKGROUNDS = ("waves", "collage")
# Mean flow in picture sides per frame at motion level 1.0, which is lively in this world.
SCORE_UNIT = 0.02
FRAMES, SIZE, FPS = 16, 96, 8  # of a usual clip; the speeds suit this length

# How far a collage extends beyond the picture on every side, for a moving camera.
_MARGIN = 0.5
_CHUNK = 4  # clips rendered at once on a CPU: more do not fit its caches, and take twice as long each


class _Batch:
    """Tensors whose first dimension is the clip."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(**{name: tensor[index] for name, tensor in vars(self).items()})

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))


@dataclass(frozen=True)
class Scene(_Batch):
    """The content of the first frame of N clips with S toys."""

    background: Tensor  # (N,) index into BACKGROUNDS
    ground: Tensor  # (N,) index into COLOURS, the hue of the background
    shades: Tensor  # (N, 2, 3) RGB of the two ends of the gradient
    light: Tensor  # (N,) direction of the gradient, radians
    waves: Tensor  # (N, 3, 4) wave vector (2), phase, amplitude
    collage: Tensor  # (N, 3, T, T) RGB texture that extends _MARGIN beyond the picture
    present: Tensor  # (N, S) 1 where there is a toy
    shape: Tensor  # (N, S) index into SHAPES
    colour: Tensor  # (N, S) index into COLOURS
    fill: Tensor  # (N, S) index into FILLS
    radius: Tensor  # (N, S)
    centre: Tensor  # (N, S, 2) x, y
    angle: Tensor  # (N, S) radians


@dataclass(frozen=True)
class Motion(_Batch):
    """The motion of N clips with S toys; speeds per frame."""

    velocity: Tensor  # (N, S, 2)
    gravity: Tensor  # (N, S)
    spin: Tensor  # (N, S) radians
    pan: Tensor  # (N, 2)
    zoom: Tensor  # (N,) growth rate of a collage; waves do not zoom

    def scaled(self, factor: Tensor) -> "Motion":
        """The same motion, `factor` (N,) times as fast."""
        k = factor[:, None]
        return Motion(self.velocity * k[..., None], self.gravity * k, self.spin * k, self.pan * k, self.zoom * factor)


@dataclass(frozen=True)
class RenderedClips:
    """Rendered clips and their exact motion."""

    video: Tensor  # (N, F, 3, H, W) in [0, 1]
    flow: Tensor  # (N, F-1, 2, H, W) pixels, from each frame to the next
    score: Tensor  # (N,) mean length of the flow, picture sides per frame

    @property
    def motion(self) -> Tensor:
        """(N,) the motion level on which the embedded model is conditioned: score / SCORE_UNIT."""
        return self.score / SCORE_UNIT


def sample_scene(n: int, generator: torch.Generator, toys: int = 2, collage: float = 0.3, size: int = SIZE) -> Scene:
    """
    Draws `n` scenes.

    Args:
        n: number of scenes.
        generator: its device is that of the scenes.
        toys: the most toys in a scene.
        collage: the share of scenes whose background is a collage.
        size: side of the picture in pixels, for the resolution of collages.
    """
    g, device = generator, generator.device
    palette = _palette(device)
    ground = torch.randint(0, len(palette), (n,), generator=g, device=device)
    hue = palette[ground, 0] + uniform((n,), -0.02, 0.02, g)
    near = rgb(hue % 1, uniform((n,), 0.20, 0.55, g), uniform((n,), 0.55, 0.95, g))
    far = rgb((hue + uniform((n,), -0.08, 0.08, g)) % 1, uniform((n,), 0.30, 0.65, g), uniform((n,), 0.20, 0.60, g))
    cycles, direction = uniform((n, 3), 0.7, 2.4, g), uniform((n, 3), 0, 2 * math.pi, g)
    waves = torch.stack(
        [
            2 * math.pi * cycles * direction.cos(),
            2 * math.pi * cycles * direction.sin(),
            uniform((n, 3), 0, 2 * math.pi, g),
            uniform((n, 3), 0.02, 0.07, g),
        ],
        -1,
    )
    background = (uniform((n,), 0, 1, g) < collage).long()
    # A collage may have no toy in front of it, so that a model also learns pictures unlike this world.
    count = torch.randint(1, toys + 1, (n,), generator=g, device=device)
    count = count - background * torch.randint(0, 2, (n,), generator=g, device=device)
    texture = torch.zeros(n, 3, side := round(size * (1 + 2 * _MARGIN)), side, device=device)
    rich = background == BACKGROUNDS.index("collage")
    texture[rich] = paint_collage(int(rich.sum()), side, g)
    radius = uniform((n, toys), 0.15, 0.21, g)
    # Toys differ in hue from the ground, so that they are easily seen.
    other = torch.randint(2, len(palette) - 1, (n, toys), generator=g, device=device)
    colour = (ground[:, None] + other) % len(palette)
    return Scene(
        background=background,
        ground=ground,
        shades=torch.stack([near, far], 1),
        light=uniform((n,), 0, 2 * math.pi, g),
        waves=waves,
        collage=texture,
        present=(torch.arange(toys, device=device)[None] < count[:, None]).float(),
        shape=torch.randint(0, len(SHAPES), (n, toys), generator=g, device=device),
        colour=colour,
        fill=torch.randint(0, len(FILLS), (n, toys), generator=g, device=device),
        radius=radius,
        centre=uniform((n, toys, 2), 0.2, 0.8, g),
        angle=uniform((n, toys), 0, 2 * math.pi, g),
    )


def sample_motion(scene: Scene, generator: torch.Generator, level: Tensor | float | None = None) -> Motion:
    """
    Draws a motion for every scene.

    Args:
        scene: N scenes.
        generator: for the draws; its device is that of the motion.
        level: factor of every speed in [0, 1], for all scenes or `(N,)`; by default random, mostly high.
    """
    g, (n, toys) = generator, scene.present.shape
    if level is None:
        speed_level = uniform((n,), 0, 1, g) ** 0.7
    else:
        speed_level = torch.as_tensor(level, dtype=torch.float32, device=g.device).expand(n)
    k = speed_level[:, None]
    direction, speed = uniform((n, toys), 0, 2 * math.pi, g), uniform((n, toys), 0.35, 1.0, g) * 0.055 * k
    falls = (uniform((n, 1), 0, 1, g) < 0.25).float()
    turns = (uniform((n, toys), 0, 1, g) < 0.5).float()
    moves = (uniform((n,), 0, 1, g) < 0.75).float()  # the camera
    heading, pan = uniform((n,), 0, 2 * math.pi, g), uniform((n,), 0.3, 1.0, g) * 0.022 * speed_level * moves
    zooms = (uniform((n,), 0, 1, g) < 0.4).float() * (scene.background == BACKGROUNDS.index("collage"))
    return Motion(
        velocity=torch.stack([direction.cos(), direction.sin()], -1) * speed[..., None],
        gravity=(falls * 0.0025 * k).expand(n, toys),
        spin=uniform((n, toys), -0.18, 0.18, g) * k * turns,
        pan=torch.stack([heading.cos(), heading.sin()], -1) * pan[:, None],
        zoom=uniform((n,), -0.025, 0.035, g) * speed_level * zooms,
    )


def paths(scene: Scene, motion: Motion, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """The position of every toy: centres (N, F, S, 2), reflected at the walls, and angles (N, F, S) in radians."""
    centre, velocity = scene.centre, motion.velocity
    low, high = 0.8 * scene.radius[..., None], 1 - 0.8 * scene.radius[..., None]
    fall = torch.stack([torch.zeros_like(motion.gravity), motion.gravity], -1)
    centres = [centre]
    for _ in range(frames - 1):
        velocity = velocity + fall
        centre = centre + velocity
        under, over = centre < low, centre > high
        centre = torch.where(under, 2 * low - centre, torch.where(over, 2 * high - centre, centre))
        velocity = torch.where(under | over, -velocity, velocity)
        centres.append(centre)
    time = torch.arange(frames, dtype=torch.float32, device=centre.device)
    return torch.stack(centres, 1), scene.angle[:, None] + motion.spin[:, None] * time[None, :, None]


def _palette(device: torch.device) -> Tensor:
    """(colours, 3): hue, saturation and value."""
    return torch.tensor(list(COLOURS.values()), device=device)


def _daylight(pixels: Tensor) -> Tensor:
    """(H, W, 1) brightness: light comes from above, and corners are a little darker. It does not move."""
    below = pixels[..., 1:]
    corner = ((pixels - 0.5) ** 2).sum(-1, keepdim=True)
    return 1.16 - 0.40 * below - 0.22 * corner


def _turned(offset: Tensor, angle: Tensor) -> Tensor:
    x, y, cos, sin = offset[..., 0], offset[..., 1], angle.cos(), angle.sin()
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def _ground(scene: Scene, motion: Motion, frames: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Background (N, F, H, W, 3) and its flow (N, F-1, H, W, 2) in sides. pixels: (H, W, 2)."""
    n = len(scene)
    time = torch.arange(frames, dtype=torch.float32, device=pixels.device)
    shift = motion.pan[:, None] * time[None, :, None]  # (N, F, 2)
    growth = torch.exp(motion.zoom[:, None] * time)  # (N, F)
    light = torch.stack([scene.light.cos(), scene.light.sin()], -1)[:, None, None]
    blend = torch.sigmoid(4 * ((pixels - 0.5) * light).sum(-1))[..., None]  # (N, H, W, 1); lighting stays in place
    image = scene.shades[:, 0, None, None] * (1 - blend) + scene.shades[:, 1, None, None] * blend
    seen = pixels - shift[:, :, None, None]  # (N, F, H, W, 2) position in the pattern that a pixel shows
    phase = torch.einsum("nfhwc,nkc->nkfhw", seen, scene.waves[..., :2]) + scene.waves[:, :, 2, None, None, None]
    ripple = (phase.sin() * scene.waves[:, :, 3, None, None, None]).sum(1)
    image = image[:, None] + ripple[..., None]
    flow = motion.pan[:, None, None, None].expand(n, frames - 1, *pixels.shape[:2], 2).clone()
    rich = scene.background == BACKGROUNDS.index("collage")
    if rich.any():
        # position in the collage = centre + (pixel - centre) / growth - shift, pulled together for its margin
        at = (pixels - 0.5) / growth[rich][:, :, None, None, None] - shift[rich][:, :, None, None]
        texture = scene.collage[rich].repeat_interleave(frames, 0)
        where = (at * 2 / (1 + 2 * _MARGIN)).flatten(0, 1)
        drawn = grid_sample(texture, where, mode="bilinear", padding_mode="reflection", align_corners=False)
        image[rich] = drawn.permute(0, 2, 3, 1).unflatten(0, (-1, frames))
        # the point of the collage seen at frame f moves to growth_{f+1} * (at + shift_{f+1})
        ahead = (at[:, :-1] + shift[rich][:, 1:, None, None]) * growth[rich][:, 1:, None, None, None]
        flow[rich] = ahead - (pixels - 0.5)
    return image, flow


def render(scene: Scene, motion: Motion, frames: int = FRAMES, size: int = SIZE) -> RenderedClips:
    """Renders every scene with its motion. The flow is exact: toys move rigidly, the ground by its pan and zoom."""
    if scene.centre.is_cuda or len(scene) <= _CHUNK:
        return _render(scene, motion, frames, size)
    parts = [slice(start, start + _CHUNK) for start in range(0, len(scene), _CHUNK)]
    clips = [_render(scene[part], motion[part], frames, size) for part in parts]
    return RenderedClips(
        *(torch.cat(tensors) for tensors in zip(*((c.video, c.flow, c.score) for c in clips), strict=True))
    )


def _render(scene: Scene, motion: Motion, frames: int, size: int) -> RenderedClips:
    device = scene.centre.device
    centres, angles = paths(scene, motion, frames)
    pixels = pixel_centres(size, device)
    image, flow = _ground(scene, motion, frames, pixels)
    for toy in range(scene.present.shape[1]):
        some = scene.present[:, toy] > 0  # most clips lack the last toy: draw it only where it is
        if some.any():
            image[some], flow[some] = _draw_toy(
                scene[some], toy, centres[some][:, :, toy], angles[some][:, :, toy], pixels, image[some], flow[some]
            )
    video = (image * _daylight(pixels)).clamp(0, 1).permute(0, 1, 4, 2, 3).contiguous()
    score = flow.norm(dim=-1).mean((1, 2, 3))
    return RenderedClips(video, flow.permute(0, 1, 4, 2, 3) * size, score)


def _draw_toy(
    scene: Scene, toy: int, centres: Tensor, angles: Tensor, pixels: Tensor, image: Tensor, flow: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Draws one toy of every scene over the image.

    Args:
        scene: N scenes that all have this toy.
        toy: its number.
        centres, angles: (N, F, 2) and (N, F).
        pixels: (H, W, 2), their centres.
        image: (N, F, H, W, 3).
        flow: (N, F-1, H, W, 2), in picture sides.

    Returns:
        The new image and flow.
    """
    soft = 0.6 / pixels.shape[0]  # width of an anti-aliased edge
    radius, shape, fill = (t[:, toy, None, None, None] for t in (scene.radius, scene.shape, scene.fill))
    offset = pixels - centres[:, :, None, None]  # (N, F, H, W, 2)
    distance = offset.norm(dim=-1)
    direction = torch.atan2(offset[..., 1], offset[..., 0]) - angles[:, :, None, None]
    inside = depth_inside(shape, radius, distance, direction)
    cover = torch.sigmoid(2 * inside / soft)[..., None]
    cast = (offset - offset.new_tensor([0.02, 0.035])).norm(dim=-1)  # distance from the centre of the shadow
    shadow = torch.sigmoid((radius - cast) / 0.035)[..., None]
    # Body: main colour, a lighter half or dot that turns with the toy, a highlight that stays with the light.
    u, v = distance * direction.cos() / radius, distance * direction.sin() / radius
    half = torch.sigmoid(u * radius / soft)
    dot = torch.sigmoid((0.36 - ((u - 0.38) ** 2 + v**2).sqrt()) * radius / soft)
    light = torch.where(fill == FILLS.index("half"), half, dot)[..., None]
    hue, saturation, value = _palette(pixels.device)[scene.colour[:, toy]].unbind(-1)
    main = rgb(hue, saturation, value)[:, None, None, None]
    pale = rgb(hue, saturation * 0.35, (value + 0.1).clamp(max=1.0))[:, None, None, None]
    body = main * (1 - light) + pale * light
    gloss = torch.exp(-((offset + 0.4 * radius[..., None]) ** 2).sum(-1) / (0.5 * radius**2))[..., None]
    body = (body * (0.9 + 0.16 * gloss)).clamp(max=1.0)
    rim = torch.sigmoid((inside - 0.012) / soft * 1.5)[..., None]
    body = body * (0.45 + 0.55 * rim)
    image = image * (1 - 0.28 * shadow) * (1 - cover) + body * cover
    # Rigid motion of the pixels that the toy covers in the earlier of two frames.
    turn = (angles[:, 1:] - angles[:, :-1])[..., None, None]
    step = (centres[:, 1:] - centres[:, :-1])[:, :, None, None]
    moved = _turned(offset[:, :-1], turn) - offset[:, :-1] + step
    return image, torch.where(cover[:, :-1] > 0.5, moved, flow)
