"""DynamiCrafter and VideoCrafter1 against their official networks and samplers (goldens)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from safetensors.torch import load_file
from torch import Tensor

import unstill
import unstill.models.dynamicrafter.scheduler as scheduler_module
from tests.models.released import EPSILON
from tests.models.weights import DC_TINY, GOLDEN, VC_TINY, released, shapes, with_golden_weights
from unstill.errors import UnstillError
from unstill.methods.analytic_init import AnalyticInit
from unstill.methods.base import Method, Run
from unstill.models.dynamicrafter import (
    DynamiCrafterPipeline,
    DynamiCrafterScheduler,
    DynamiCrafterUNet,
    ImageResampler,
    VideoCrafterPipeline,
)
from unstill.models.dynamicrafter.pipeline import squash
from unstill.noise_schedule import Grid


UNET, PROJECTOR = "model.diffusion_model.", "image_proj_model."
RESAMPLER_TINY: dict[str, Any] = {
    "embedding_dim": 40,
    "dim": 32,
    "depth": 2,
    "heads": 3,
    "head_dim": 16,
    "output_dim": 24,
}


@pytest.fixture(scope="module")
def dynamicrafter() -> DynamiCrafterUNet:
    return with_golden_weights(DynamiCrafterUNet(**DC_TINY), 1234)


@pytest.mark.parametrize(
    ("checkpoint", "unet", "frames"),
    [("statedict_dc512_full", {}, 16), ("statedict_vc512_full", {"in_channels": 4}, 1)],
)
def test_full_size_networks_have_the_released_keys_and_shapes(
    checkpoint: str, unet: dict[str, Any], frames: int
) -> None:
    with torch.device("meta"):
        assert shapes(DynamiCrafterUNet(**unet)) == released(checkpoint, UNET)
        assert shapes(ImageResampler(frames=frames)) == released(checkpoint, PROJECTOR)


def test_the_256_model_has_gates_beside_the_keys_of_the_others() -> None:
    with torch.device("meta"):
        keys = shapes(DynamiCrafterUNet(gated_image=True))
    gates = released("statedict_dc256_extra_vs_512", UNET)
    assert len(gates) == 16
    assert keys == released("statedict_dc512_full", UNET) | gates


def test_dynamicrafter_matches_the_official_network(dynamicrafter: DynamiCrafterUNet) -> None:
    io = load_file(GOLDEN / "dc_tiny_unet_io.safetensors")
    x, t, fps = io["x"], io["timesteps"], io["fs"]
    per_frame = io["context_per_frame"]
    with torch.no_grad():
        for name, inputs in {
            "out_per_frame": (x, t, per_frame, fps),
            "out_shared": (x, t, io["context_shared"], fps),
            "out_default_fs": (x, t, per_frame),
            "out_3frames": (x[:, :, :3], t, per_frame[:, : 77 + 48], fps),
        }.items():
            torch.testing.assert_close(dynamicrafter(*inputs).sample, io[name], rtol=0, atol=2e-5)


def test_videocrafter_matches_the_official_network() -> None:
    io = load_file(GOLDEN / "vc_tiny_unet_io.safetensors")
    unet = with_golden_weights(DynamiCrafterUNet(**VC_TINY), 4321)
    with torch.no_grad():
        out = unet(io["x"], io["timesteps"], io["context"], io["fps"]).sample
        torch.testing.assert_close(out, io["out"], rtol=0, atol=2e-5)
        out = unet(io["x"], io["timesteps"], io["context"]).sample
        torch.testing.assert_close(out, io["out_default_fps16"], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "frames", "seed"), [("dc", 4, 99), ("vc", 1, 98)])
def test_the_resampler_matches_the_official_one(name: str, frames: int, seed: int) -> None:
    io = load_file(GOLDEN / f"{name}_tiny_resampler.safetensors")
    resampler = with_golden_weights(ImageResampler(**RESAMPLER_TINY, frames=frames), seed)
    with torch.no_grad():
        torch.testing.assert_close(resampler(io["input"]), io["output"], rtol=0, atol=2e-5)


def test_gates_weigh_the_image_tokens(dynamicrafter: DynamiCrafterUNet) -> None:
    """With every gate at alpha, the image's values times 1 + tanh(alpha) in a network without gates do the same."""
    gated = DynamiCrafterUNet(**DC_TINY, gated_image=True).eval()
    weights = dict(dynamicrafter.state_dict())
    plain = DynamiCrafterUNet(**DC_TINY).eval()
    factor = 1 + torch.tensor(0.7).tanh()
    plain.load_state_dict({k: v * factor if "to_v_ip" in k else v for k, v in weights.items()})
    gates = {key: torch.tensor(0.7) for key in gated.state_dict() if key.endswith("alpha")}
    gated.load_state_dict(weights | gates)
    io = load_file(GOLDEN / "dc_tiny_unet_io.safetensors")
    inputs = io["x"][:1], 17, io["context_per_frame"][:1]
    with torch.no_grad():
        torch.testing.assert_close(gated(*inputs).sample, plain(*inputs).sample, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(gated(*inputs).sample, dynamicrafter(*inputs).sample, atol=1e-3)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    """In training mode, without dropout."""
    unet = with_golden_weights(DynamiCrafterUNet(**DC_TINY, dropout=0.0), 1).train()
    inputs = torch.randn(1, 8, 2, 8, 8), 500, torch.randn(1, 77 + 16, 24)
    unet(*inputs).sample.square().mean().backward()
    expected = {name: p.grad.clone() for name, p in unet.named_parameters()}
    unet.zero_grad()
    unet.enable_gradient_checkpointing()
    unet(*inputs).sample.square().mean().backward()
    for name, parameter in unet.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_a_context_without_an_image_and_odd_sizes_are_refused(dynamicrafter: DynamiCrafterUNet) -> None:
    with pytest.raises(UnstillError, match="77 of text"):
        dynamicrafter(torch.zeros(1, 8, 4, 16, 16), 1, torch.zeros(1, 77, 24))
    with pytest.raises(UnstillError, match="multiples of 2"):
        dynamicrafter(torch.zeros(1, 8, 4, 15, 16), 1, torch.zeros(1, 93, 24))


# --- the samplers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Visit(Method):
    """Visits these timesteps: the released samplers' grids, where they are not the scheduler's own."""

    timesteps: Tensor

    def on_schedule(self, run: Run, grid: Grid) -> Grid:
        return Grid(self.timesteps.flip(0).to(grid.timesteps))


def golden_pipeline(io: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, **scheduler: Any) -> Any:
    """The tiny U-Net in its pipeline, which encodes any image to the golden condition and draws the golden noise."""
    crafter = "cond_latent" in io
    unet = with_golden_weights(DynamiCrafterUNet(**(DC_TINY if crafter else VC_TINY)), 1234 if crafter else 4321)
    pipe: Any = (DynamiCrafterPipeline if crafter else VideoCrafterPipeline)(
        vae=AutoencoderKL(norm_num_groups=1, block_out_channels=(4,)),
        text_encoder=None,
        tokenizer=None,
        image_encoder=None,
        image_projector=None,
        unet=unet,
        scheduler=DynamiCrafterScheduler(**scheduler),
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.encode_image = lambda pixels, frames: io["context" if pixels.any() else "uncond_context"][:, 77:]
    if crafter:
        pipe.prepare_image_latents = lambda *_: io["cond_latent"].expand(-1, -1, 4, -1, -1)
    noises = iter(io["step_noise"])
    monkeypatch.setattr(scheduler_module, "randn_tensor", lambda *_, **__: next(noises))
    return pipe


def golden_call(pipe: Any, io: dict[str, Tensor], latents: Tensor, **options: Any) -> Tensor:
    return pipe(
        torch.ones(1, 3, 16, 16),
        prompt_embeds=io["context"][:, :77],
        negative_prompt_embeds=io["uncond_context"][:, :77],
        num_inference_steps=10,
        fps=io["fs" if "fs" in io else "fps"].item(),
        latents=latents,
        output_type="latent",
        **options,
    ).frames


def assert_final(final: Tensor, io: dict[str, Tensor]) -> None:
    torch.testing.assert_close(final, io["final"], rtol=0, atol=1e-4 * io["final"].abs().max().item())


def test_ten_steps_of_dynamicrafter_512(monkeypatch: pytest.MonkeyPatch) -> None:
    io = load_file(GOLDEN / "e2e_dc512_M1000_S10_eta1_cfg7p5_gr0p7_noinit.safetensors")
    assert_final(golden_call(golden_pipeline(io, monkeypatch), io, io["eps"]), io)


def test_analytic_init_in_dynamicrafter_512(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The paper's start of 0.96: grid, first latents and ten steps of the released code."""
    io = load_file(GOLDEN / "e2e_dc512_M960_S10_eta1_cfg7p5_gr0p7.safetensors")
    torch.save({"Expectation_X0": io["mean"], "Tr_Cov_d": io["tr_cov_d"]}, tmp_path / "noise.pt")
    pipe = golden_pipeline(io, monkeypatch)
    with unstill.apply(pipe, AnalyticInit(start=0.96, statistics=tmp_path / "noise.pt")) as handle:
        assert_final(golden_call(pipe, io, io["eps"]), io)
    assert handle.run.grid.timesteps.tolist() == io["timesteps_ascending"].flip(0).tolist()


def test_ten_steps_of_dynamicrafter_256(monkeypatch: pytest.MonkeyPatch) -> None:
    io = load_file(GOLDEN / "e2e_dc256_M960_S10_eta1_cfg7p5_uniform.safetensors")
    pipe = golden_pipeline(io, monkeypatch, **EPSILON, rescale=1.0)
    with unstill.apply(pipe, Visit(io["timesteps_ascending"])):
        assert_final(golden_call(pipe, io, io["init"]), io)


@pytest.mark.parametrize("name", ["Mhonoured", "asis_Mignored"])
def test_ten_steps_of_videocrafter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    io = load_file(GOLDEN / f"e2e_vc512_M960_S10_eta1_cfg12_{name}.safetensors")
    pipe = golden_pipeline(io, monkeypatch, **EPSILON, rescale_last=True)
    if name == "asis_Mignored":  # the scheduler's own grid
        assert_final(golden_call(pipe, io, io["init"]), io)
    else:
        with unstill.apply(pipe, Visit(io["timesteps_ascending"])):
            assert_final(golden_call(pipe, io, io["init"]), io)


def test_without_rescale_the_scheduler_is_diffusers_ddim() -> None:
    """Also with eta and on its own grids."""
    common = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "trailing",
    }
    config = common | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    ours = DynamiCrafterScheduler(**config, rescale=1.0)
    theirs = DDIMScheduler(**config, clip_sample=False, set_alpha_to_one=False)
    generator = torch.Generator().manual_seed(0)
    x = y = torch.randn(1, 4, 2, 4, 4, generator=generator)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    for t in ours.timesteps:
        output, noise = torch.randn(2, 1, 4, 2, 4, 4, generator=generator)
        x = ours.step(output, t, x, eta=0.6, variance_noise=noise).prev_sample
        y = theirs.step(output, t, y, eta=0.6, variance_noise=noise).prev_sample
    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_steps_lead_exactly_to_the_next_timestep() -> None:
    """30 steps do not divide 1000: with perfect noise predictions every sample is the same video, noised, scaled."""
    scheduler = DynamiCrafterScheduler(prediction_type="epsilon", rescale_betas_zero_snr=False, rescale=0.3)
    scheduler.set_timesteps(30)
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 1, 4, 2, 4, 4, generator=generator)
    visited = scheduler.timesteps.tolist()
    x = scheduler.add_noise(scheduler.scale(visited[0]) * x0, eps, scheduler.timesteps[:1])
    for t, after in zip(visited, visited[1:], strict=False):
        x = scheduler.step(eps, t, x).prev_sample
        expected = scheduler.add_noise(scheduler.scale(after) * x0, eps, torch.tensor([after]))
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_guidance_by_image_and_by_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """u + a (i - u) + b (c - i), from three calls of a network that says which context it was given."""
    io = load_file(GOLDEN / "e2e_dc512_M1000_S10_eta1_cfg7p5_gr0p7_noinit.safetensors")
    pipe = golden_pipeline(io, monkeypatch)
    contexts: list[Tensor] = []

    def unet(x: Tensor, t: Tensor, context: Tensor, fps: int, return_dict: bool) -> tuple[Tensor]:
        contexts.append(context)
        return (torch.tensor([1.0, 3.0, 7.0]).view(3, 1, 1, 1, 1).expand(3, 4, 4, 16, 16),)

    pipe.unet.forward = unet
    seen: list[Tensor] = []
    monkeypatch.setattr(pipe.scheduler, "step", lambda output, *_, **__: seen.append(output) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        golden_call(pipe, io, io["eps"], guidance_scale=2.0, image_guidance_scale=5.0, guidance_rescale=0.0)
    assert seen[0].unique().tolist() == [1 + 5 * (3 - 1) + 2 * (7 - 3)]
    empty, text = io["uncond_context"][0, :77], io["context"][0, :77]
    grey, image = io["uncond_context"][0, 77:], io["context"][0, 77:]
    for given, parts in zip(contexts[0], [(empty, grey), (empty, image), (text, image)], strict=True):
        assert torch.equal(given, torch.cat(parts))


def test_two_images_are_at_the_ends_of_the_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    io = load_file(GOLDEN / "e2e_dc512_M1000_S10_eta1_cfg7p5_gr0p7_noinit.safetensors")
    pipe = golden_pipeline(io, monkeypatch)
    del pipe.prepare_image_latents
    first, last = torch.randn(2, 1, 3, 16, 16)
    generator = torch.Generator().manual_seed(3)
    both = pipe.prepare_image_latents(first, 4, generator, last)
    generator.manual_seed(3)
    alone = pipe.prepare_image_latents(first, 4, generator)
    assert torch.equal(both[:, :, 0], alone[:, :, 3]) and not both[:, :, 1:3].any()
    assert not torch.equal(both[:, :, 3], both[:, :, 0]) and both[:, :, 3].any()


@pytest.mark.parametrize("size", [(320, 512), (576, 1024), (100, 300)])
def test_squashing_is_what_diffusers_does_for_stable_video_diffusion(size: tuple[int, int]) -> None:
    """The formula of kornia's resize with antialiasing, which fed the image encoder."""
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = _resize_with_antialiasing(pixels, (224, 224))
    torch.testing.assert_close(squash(pixels, (224, 224)), expected, rtol=1e-5, atol=1e-5)


def test_squashing_keeps_a_constant_and_where_things_are() -> None:
    assert torch.allclose(squash(torch.full((1, 3, 320, 512), 0.3), (224, 224)), torch.tensor(0.3), atol=1e-5)
    ramp = torch.linspace(-1, 1, 512).expand(1, 3, 320, 512)
    inside = slice(8, -8)  # reflection bends it at the borders
    expected = torch.linspace(-1, 1, 224).expand(1, 3, 224, 224)
    assert torch.allclose(squash(ramp, (224, 224))[..., inside], expected[..., inside], atol=1e-3)
