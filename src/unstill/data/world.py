"""A small synthetic world with exact optical flow: shaded toys drift, bounce and turn over a background that pans.

The first frame shows everything about appearance and pose and nothing about the motion, so it is the honest test bed
for conditional image leakage: whatever motion a model predicts at high noise, it cannot have read from the image.
Everything is torch, vectorised over clips, drawn from one generator; one unit of length is the side of the picture.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from unstill.data.drawing import SHAPES, depth_inside, paint_collage, rgb, uniform


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
# Mean flow, in picture sides per frame, that is called motion 1.0: lively, for this world.
SCORE_UNIT = 0.03

# How far a collage reaches beyond the picture on every side, so that a moving camera finds something to see.
_MARGIN = 0.5


class _Batch:
    """Tensors whose first dimension is the clip."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(**{name: tensor[index] for name, tensor in vars(self).items()})

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))


@dataclass(frozen=True)
class Scene(_Batch):
    """What the first frame shows. N clips, S toys."""

    background: Tensor  # (N,) index into BACKGROUNDS
    ground: Tensor  # (N,) index into COLOURS, the hue of the background
    shades: Tensor  # (N, 2, 3) RGB of the two ends of the gradient
    light: Tensor  # (N,) direction of the gradient, radians
    waves: Tensor  # (N, 3, 4) wave vector (2), phase, amplitude
    collage: Tensor  # (N, 3, T, T) RGB texture that reaches _MARGIN beyond the picture
    present: Tensor  # (N, S) 1 where there is a toy
    shape: Tensor  # (N, S) index into SHAPES
    colour: Tensor  # (N, S) index into COLOURS
    fill: Tensor  # (N, S) index into FILLS
    radius: Tensor  # (N, S)
    centre: Tensor  # (N, S, 2) x, y
    angle: Tensor  # (N, S) radians


@dataclass(frozen=True)
class Motion(_Batch):
    """What the first frame does not show. Speeds per frame."""

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
class Clips:
    """Rendered clips and their exact motion."""

    video: Tensor  # (N, F, 3, H, W) in [0, 1]
    flow: Tensor  # (N, F-1, 2, H, W) pixels, from each frame to the next
    score: Tensor  # (N,) mean length of the flow, picture sides per frame

    @property
    def motion(self) -> Tensor:
        """(N,) the motion level that the embedded model is told: score / SCORE_UNIT."""
        return self.score / SCORE_UNIT


def sample_scene(n: int, generator: torch.Generator, toys: int = 2, collage: float = 0.3, size: int = 64) -> Scene:
    """Draws `n` scenes of up to `toys` toys; a share `collage` of them has a rich picture as its background."""
    g = generator
    palette = torch.tensor(list(COLOURS.values()))
    ground = torch.randint(0, len(palette), (n,), generator=g)
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
    background = (torch.rand(n, generator=g) < collage).long()
    # A collage may stand without any toy: it is what the model learns of pictures from outside its world.
    count = torch.randint(1, toys + 1, (n,), generator=g) - background * torch.randint(0, 2, (n,), generator=g)
    texture = torch.zeros(n, 3, side := round(size * (1 + 2 * _MARGIN)), side)
    rich = background == BACKGROUNDS.index("collage")
    texture[rich] = paint_collage(int(rich.sum()), side, g)
    radius = uniform((n, toys), 0.15, 0.21, g)
    # Toys differ in hue from the ground, or one would have to look twice to see them.
    colour = (ground[:, None] + torch.randint(2, len(palette) - 1, (n, toys), generator=g)) % len(palette)
    return Scene(
        background=background,
        ground=ground,
        shades=torch.stack([near, far], 1),
        light=uniform((n,), 0, 2 * math.pi, g),
        waves=waves,
        collage=texture,
        present=(torch.arange(toys)[None] < count[:, None]).float(),
        shape=torch.randint(0, len(SHAPES), (n, toys), generator=g),
        colour=colour,
        fill=torch.randint(0, len(FILLS), (n, toys), generator=g),
        radius=radius,
        centre=uniform((n, toys, 2), 0.2, 0.8, g),
        angle=uniform((n, toys), 0, 2 * math.pi, g),
    )


def sample_motion(scene: Scene, generator: torch.Generator, level: Tensor | float | None = None) -> Motion:
    """Draws a motion for every scene; `level` in [0, 1] (default: random, mostly lively) multiplies every speed."""
    g, (n, toys) = generator, scene.present.shape
    speed_level = (
        torch.rand(n, generator=g) ** 0.7 if level is None else torch.as_tensor(level, dtype=torch.float32).expand(n)
    )
    k = speed_level[:, None]
    direction, speed = uniform((n, toys), 0, 2 * math.pi, g), uniform((n, toys), 0.4, 1.0, g) * 0.08 * k
    falls = (torch.rand(n, 1, generator=g) < 0.25).float()
    turns = (torch.rand(n, toys, generator=g) < 0.5).float()
    moves = (torch.rand(n, generator=g) < 0.75).float()  # the camera
    heading, pan = uniform((n,), 0, 2 * math.pi, g), uniform((n,), 0.3, 1.0, g) * 0.03 * speed_level * moves
    zooms = (torch.rand(n, generator=g) < 0.4).float() * (scene.background == 1)
    return Motion(
        velocity=torch.stack([direction.cos(), direction.sin()], -1) * speed[..., None],
        gravity=(falls * 0.006 * k).expand(n, toys),
        spin=uniform((n, toys), -0.28, 0.28, g) * k * turns,
        pan=torch.stack([heading.cos(), heading.sin()], -1) * pan[:, None],
        zoom=uniform((n,), -0.045, 0.06, g) * speed_level * zooms,
    )


def _paths(scene: Scene, motion: Motion, frames: int) -> tuple[Tensor, Tensor]:
    """Centres (N, F, S, 2), reflected at the walls, and angles (N, F, S)."""
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
    time = torch.arange(frames, dtype=torch.float32)
    return torch.stack(centres, 1), scene.angle[:, None] + motion.spin[:, None] * time[None, :, None]


def _pixels(size: int) -> Tensor:
    """(size, size, 2) x, y of the pixel centres."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1)


def _turned(offset: Tensor, angle: Tensor) -> Tensor:
    x, y, cos, sin = offset[..., 0], offset[..., 1], angle.cos(), angle.sin()
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def _ground(scene: Scene, motion: Motion, frames: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Background (N, F, H, W, 3) and its flow (N, F-1, H, W, 2) in sides. pixels: (H, W, 2)."""
    n = len(scene)
    time = torch.arange(frames, dtype=torch.float32)
    shift = motion.pan[:, None] * time[None, :, None]  # (N, F, 2)
    growth = torch.exp(motion.zoom[:, None] * time)  # (N, F)
    light = torch.stack([scene.light.cos(), scene.light.sin()], -1)[:, None, None]
    blend = torch.sigmoid(4 * ((pixels - 0.5) * light).sum(-1))[..., None]  # (N, H, W, 1); lighting stays in place
    image = scene.shades[:, 0, None, None] * (1 - blend) + scene.shades[:, 1, None, None] * blend
    seen = pixels - shift[:, :, None, None]  # (N, F, H, W, 2) what of the pattern a pixel shows
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


def render(scene: Scene, motion: Motion, frames: int = 8, size: int = 64) -> Clips:
    """Draws every scene under its motion. The flow is exact: toys move rigidly, the ground by its pan and zoom."""
    centres, angles = _paths(scene, motion, frames)
    pixels = _pixels(size)
    image, flow = _ground(scene, motion, frames, pixels)
    soft = 0.6 / size  # width of an anti-aliased edge
    palette = torch.tensor(list(COLOURS.values()))
    for s in range(scene.present.shape[1]):
        some = scene.present[:, s] > 0  # most clips lack the last toy: draw it only where it is
        if not some.any():
            continue

        def of(t: Tensor, s: int = s, some: Tensor = some) -> Tensor:
            return t[some, s, None, None, None]  # (M, 1, 1, 1)

        offset = pixels - centres[some][:, :, s, None, None]  # (M, F, H, W, 2)
        angle = angles[some][:, :, s, None, None]
        radius, shape = of(scene.radius), of(scene.shape)
        r = offset.norm(dim=-1)
        phi = torch.atan2(offset[..., 1], offset[..., 0]) - angle
        inside = depth_inside(shape, radius, r, phi)
        cover = torch.sigmoid(2 * inside / soft)[..., None]
        shadow = torch.sigmoid((radius - (offset - torch.tensor([0.02, 0.035])).norm(dim=-1)) / 0.035)[..., None]
        # Body: main colour, a lighter half or dot that turns with the toy, a highlight that stays with the light.
        u, v = r * phi.cos() / radius, r * phi.sin() / radius
        half = torch.sigmoid(u * radius / soft)
        dot = torch.sigmoid((0.36 - ((u - 0.38) ** 2 + v**2).sqrt()) * radius / soft)
        light = torch.where(of(scene.fill) == FILLS.index("half"), half, dot)[..., None]
        hue, saturation, value = palette[scene.colour[some, s]].unbind(-1)
        main = rgb(hue, saturation, value)[:, None, None, None]
        pale = rgb(hue, saturation * 0.35, (value + 0.1).clamp(max=1.0))[:, None, None, None]
        body = main * (1 - light) + pale * light
        gloss = torch.exp(-((offset + 0.4 * radius[..., None]) ** 2).sum(-1) / (0.5 * radius**2))[..., None]
        body = (body * (0.9 + 0.16 * gloss)).clamp(max=1.0)
        rim = torch.sigmoid((inside - 0.012) / soft * 1.5)[..., None]
        body = body * (0.45 + 0.55 * rim)
        ground = image[some] * (1 - 0.28 * shadow)
        image[some] = ground * (1 - cover) + body * cover
        # rigid motion of the pixels the toy covers in the earlier of two frames
        turn = (angles[some][:, 1:, s] - angles[some][:, :-1, s])[..., None, None]
        step = (centres[some][:, 1:, s] - centres[some][:, :-1, s])[:, :, None, None]
        moved = _turned(offset[:, :-1], turn) - offset[:, :-1] + step
        flow[some] = torch.where(cover[:, :-1] > 0.5, moved, flow[some])
    video = image.clamp(0, 1).permute(0, 1, 4, 2, 3).contiguous()
    score = flow.norm(dim=-1).mean((1, 2, 3))
    return Clips(video, flow.permute(0, 1, 4, 2, 3) * size, score)


def displacement(scene: Scene, motion: Motion, frames: int = 8, size: int = 16, since: int = 0) -> Tensor:
    """How far what each pixel shows has come since frame `since`: (N, F, 2, size, size) in picture sides, exact.

    A pixel at p shows what was at p - displacement; where that was hidden behind a toy, nobody has seen it.
    """
    centres, angles = _paths(scene, motion, frames)
    time = torch.arange(frames, dtype=torch.float32)
    pixels = _pixels(size)
    shift = motion.pan[:, None] * (time - time[since])[None, :, None]  # (N, F, 2)
    moved = shift[:, :, None, None].expand(-1, -1, size, size, -1).clone()
    rich = scene.background == BACKGROUNDS.index("collage")
    growth = torch.exp(motion.zoom[rich][:, None] * time)[:, :, None, None, None]  # (M, F, 1, 1, 1)
    drift = (motion.pan[rich][:, None] * time[None, :, None])[:, :, None, None]
    shown = (pixels - 0.5) / growth - drift  # position in the collage
    moved[rich] = (pixels - 0.5) - (shown + drift[:, [since]]) * growth[:, [since]]
    for s in range(scene.present.shape[1]):
        offset = pixels - centres[:, :, s, None, None]
        turn = (angles[:, [since], s] - angles[:, :, s])[..., None, None]
        before = _turned(offset, turn) + centres[:, [since], s][:, :, None, None]
        radius, shape, present = (t[:, s, None, None, None] for t in (scene.radius, scene.shape, scene.present))
        phi = torch.atan2(offset[..., 1], offset[..., 0]) - angles[:, :, s, None, None]
        on = (depth_inside(shape, radius, offset.norm(dim=-1), phi) > 0) & (present > 0)
        moved = torch.where(on[..., None], pixels - before, moved)
    return moved.permute(0, 1, 4, 2, 3)


def captions(scene: Scene, motion: Motion, frames: int = 8, backwards: bool = False) -> list[str]:
    """
    A short sentence about every clip, such as "a red ring and a blue star drifting left over green".

    The direction is where the first toy (the camera's view, where there is none) ends up after `frames` frames; of a
    clip that is played `backwards` it is the opposite one.
    """
    names = list(COLOURS)
    centres, _ = _paths(scene, motion, frames)
    toys = scene.present > 0
    way = torch.where(toys[:, :1], centres[:, -1, 0] - centres[:, 0, 0], motion.pan * (frames - 1))  # (N, 2)
    way = -way if backwards else way
    told = []
    for i, (x, y) in enumerate(way.tolist()):
        things = [
            f"a {names[int(scene.colour[i, s])]} {SHAPES[int(scene.shape[i, s])]}".replace("a orange", "an orange")
            for s in range(toys.shape[1])
            if toys[i, s]
        ]
        heading = ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
        verb = "resting" if math.hypot(x, y) < 0.004 * (frames - 1) else f"drifting {heading}"
        ground = "a picture" if int(scene.background[i]) else names[int(scene.ground[i])]
        told.append(f"{' and '.join(things)} {verb} over {ground}" if things else f"{ground} {verb}")
    return told


def caption(scene: Scene, motion: Motion, index: int = 0) -> str:
    """The caption of one clip."""
    return captions(scene[index : index + 1], motion[index : index + 1])[0]
