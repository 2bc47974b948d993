"""One training step of each transformer against the same step written out: encoding, noise, network, target, error."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_families import PIPELINES, sample
from unstill.data.sources import Sample, generator_for
from unstill.families.registry import training_for
from unstill.training.condition_noise import plan_of
from unstill.training.encoded_dataset import Encoder
from unstill.training.loss import ConditionDropout, Objective, batch_of
from unstill.training.setup import schedule_for


MAXIMUM = 2.0  # of TimeNoise


class Step:
    """What the trainer draws for a clip, in its order, and the clip as pixels in [-1, 1], `(1, 3, F, H, W)`."""

    def __init__(self, pipe: Any, clip: Sample, level: float | None = None) -> None:
        self.pipe, self.clip = pipe, clip
        self.pixels = clip.video.permute(1, 0, 2, 3)[None] * 2 - 1
        self.draws = generator_for("step", 0, 0)
        self.text, *self.masks = pipe.encode_prompt([clip.caption], do_classifier_free_guidance=False)

    def encoded(self) -> Tensor:
        """A sample of the posterior of the clip."""
        return self.pipe.vae.encode(self.pixels).latent_dist.sample(generator_for("encode", 0, 0))

    def u_and_noise(self, like: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.rand(1, generator=self.draws)
        torch.rand(2, generator=self.draws)  # conditions to drop: none
        return u, torch.randn(like.shape[1:], generator=self.draws)[None]

    def time_noise(self, image: Tensor, t: Tensor) -> Tensor:
        """The image with TimeNoise (Eq. 6 of its paper)."""
        normal = torch.randn(1, generator=self.draws)
        beta = MAXIMUM / (1 + torch.exp(-(2 * t**5 - 1 + normal)))
        return image + beta * torch.randn(image.shape, generator=self.draws)


def ltx(step: Step) -> Tensor:
    pipe, vae = step.pipe, step.pipe.vae
    mean, deviation = (x.view(1, -1, 1, 1, 1) for x in (vae.latents_mean, vae.latents_std))
    z = (step.encoded() - mean) / deviation  # 3 frames of 8 by 8; the first is the image, which is not denoised
    image, later = z[:, :, :1], z[:, :, 1:]
    u, eps = step.u_and_noise(later)
    shift = 1.0
    if pipe.scheduler.config.use_dynamic_shifting:  # 0.95 for 1024 tokens, 2.05 for 4096
        shift = math.exp(0.95 + (2.05 - 0.95) * (3 * 8 * 8 - 1024) / (4096 - 1024))
    s = shift * u / (1 + (shift - 1) * u)
    noisy = (1 - s) * later + s * eps
    image = step.time_noise(image, u)
    tokens = torch.cat([image, noisy], 2).reshape(1, 8, 3 * 64).permute(0, 2, 1)
    timestep = torch.cat([torch.zeros(1, 64), (1000 * s).expand(1, 2 * 64)], 1)
    place: dict[str, Any] = {
        "num_frames": 3,
        "height": 8,
        "width": 8,
        "rope_interpolation_scale": (4 / step.clip.fps, 4, 4),
    }
    if type(pipe).__name__ == "LTXConditionPipeline":
        f, y, x = torch.meshgrid(
            torch.tensor([0.0, 1.0, 5.0]), torch.arange(8) * 4.0, torch.arange(8) * 4.0, indexing="ij"
        )
        place = {"video_coords": torch.stack([f / step.clip.fps, y, x]).reshape(1, 3, -1)}
    output = pipe.transformer(
        hidden_states=tokens,
        encoder_hidden_states=step.text,
        timestep=timestep,
        encoder_attention_mask=step.masks[0],
        **place,
    ).sample
    output = output.permute(0, 2, 1).reshape(1, 8, 3, 8, 8)[:, :, 1:]
    return (output - (eps - later)).square().mean()


def cogvideox(step: Step) -> Tensor:
    pipe, scale = step.pipe, step.pipe.vae.config.scaling_factor
    z = step.encoded() * scale  # 3 frames of 2 by 2
    second: dict[str, Any] = {}
    if pipe.transformer.config.patch_size_t == 2:  # CogVideoX 1.5: one more before them
        z = torch.cat([z[:, :, :1], z], 2)
        second = {"ofs": torch.tensor([2.0])}
    image = pipe.vae.encode(step.pixels[:, :, :1]).latent_dist.mode()
    image = image / scale if pipe.vae.config.invert_scale_latents else image * scale
    u, eps = step.u_and_noise(z)
    t = (u * 1000).long()
    abar = pipe.scheduler.alphas_cumprod[t].float()
    noisy = abar.sqrt() * z + (1 - abar).sqrt() * eps
    image = step.time_noise(image, t / 1000)
    condition = torch.cat([image, torch.zeros_like(z[:, :, 1:])], 2)
    output = pipe.transformer(
        hidden_states=torch.cat([noisy, condition], 1).permute(0, 2, 1, 3, 4),
        encoder_hidden_states=step.text,
        timestep=t,
        image_rotary_emb=pipe._prepare_rotary_positional_embeddings(16, 16, z.shape[2], "cpu"),
        **second,
    ).sample.permute(0, 2, 1, 3, 4)
    return (output - (abar.sqrt() * eps - (1 - abar).sqrt() * z)).square().mean()


def hunyuan(step: Step) -> Tensor:
    pipe, scale = step.pipe, step.pipe.vae.config.scaling_factor
    z = step.encoded() * scale  # 3 frames of 4 by 4
    image = pipe.vae.encode(step.pixels[:, :, :1]).latent_dist.mode() * scale
    u, eps = step.u_and_noise(z)
    s = 7 * u / (1 + 6 * u)
    image = step.time_noise(image, u)
    channels = [
        (1 - s) * z + s * eps,
        torch.cat([image, torch.zeros_like(z[:, :, 1:])], 2),
        torch.zeros(1, 1, 3, 4, 4),
    ]
    channels[2][:, :, 0] = 1
    picture = (step.clip.video[:1] * 255).round().byte()
    siglip = pipe.image_encoder(**pipe.feature_extractor(images=picture, return_tensors="pt")).last_hidden_state
    output = pipe.transformer(
        hidden_states=torch.cat(channels, 1),
        timestep=1000 * s,
        encoder_hidden_states=step.text,
        encoder_attention_mask=step.masks[0],
        encoder_hidden_states_2=step.masks[1],
        encoder_attention_mask_2=step.masks[2],
        image_embeds=siglip,
    ).sample
    return (output - (eps - z)).square().mean()


def _wan_latents(pipe: Any, raw: Tensor) -> Tensor:
    names = ("latents_mean", "latents_std")
    mean, deviation = (torch.tensor(pipe.vae.config[name]).view(1, 16, 1, 1, 1) for name in names)
    return (raw - mean) / deviation


def wan(step: Step) -> Tensor:
    """Wan 2.1 without CLIP, and 2.2 A14B, whose first transformer has the levels from 0.875 on."""
    pipe = step.pipe
    z = _wan_latents(pipe, step.encoded())  # 2 frames of 2 by 2
    clip = torch.cat([step.pixels[:, :, :1], torch.zeros_like(step.pixels[:, :, 1:])], 2)
    image = _wan_latents(pipe, pipe.vae.encode(clip).latent_dist.mode())
    u, eps = step.u_and_noise(z)
    if pipe.transformer_2 is not None:  # the share of uniform levels that are below 0.875 after a shift of 3
        below = 0.875 / (3 - 2 * 0.875)
        u = below + (1 - below) * u
    s = 3 * u / (1 + 2 * u)
    assert pipe.transformer_2 is None or s > 0.875
    image = step.time_noise(image, u)
    mask = torch.zeros(1, 4, 2, 2, 2)
    mask[:, :, 0] = 1
    output = pipe.transformer(
        hidden_states=torch.cat([(1 - s) * z + s * eps, mask, image], 1),
        timestep=1000 * s,
        encoder_hidden_states=step.text,
    ).sample
    return (output - (eps - z)).square().mean()


def wan_5b(step: Step) -> Tensor:
    pipe = step.pipe
    later = _wan_latents(pipe, step.encoded())[:, :, 1:]  # 2 frames of 2 by 2, after that of the image
    image = _wan_latents(pipe, pipe.vae.encode(step.pixels[:, :, :1]).latent_dist.mode())
    u, eps = step.u_and_noise(later)
    s = 3 * u / (1 + 2 * u)
    image = step.time_noise(image, u)
    output = pipe.transformer(
        hidden_states=torch.cat([image, (1 - s) * later + s * eps], 2),
        timestep=torch.tensor([[0, 1000 * s, 1000 * s]]),  # one token for each frame
        encoder_hidden_states=step.text,
    ).sample[:, :, 1:]
    return (output - (eps - later)).square().mean()


BY_HAND: dict[str, Callable[[Step], Tensor]] = {
    "ltx": ltx,
    "ltx condition": ltx,
    "cogvideox": cogvideox,
    "cogvideox 1.5": cogvideox,
    "wan": wan,
    "wan a14b": wan,
    "wan-5b": wan_5b,
    "hunyuanvideo-1.5": hunyuan,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_is_that_of_the_step_by_hand(name: str) -> None:
    torch.manual_seed(0)
    factory, size, frames = PIPELINES[name]
    pipe, clip = factory(), sample(size, frames)
    family = training_for(pipe)
    network = getattr(pipe, family.denoiser).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some layers begin at zero
            parameter.add_(0.05 * torch.randn(parameter.shape))
        given = batch_of([Encoder(pipe, family)(clip, generator_for("encode", 0, 0))], "cpu")
        plan = plan_of(family.name, parameters={"maximum": MAXIMUM}, image_is_frame=family.image_is_frame)
        schedule = schedule_for(pipe, family, given["latents"].shape[1:])
        objective = Objective(family, schedule, plan, ConditionDropout(), {}, None)
        errors, _ = objective.errors(network, given, [generator_for("step", 0, 0)])
        expected = BY_HAND[name](Step(pipe, clip))
    torch.testing.assert_close(errors[0], expected, rtol=1e-5, atol=1e-6)
