"""DynamiCrafter and VideoCrafter1 against their official networks and samplers (goldens)."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.models.weights import DC_TINY, GOLDEN, VC_TINY, released, shapes, with_golden_weights
from unstill.errors import UnstillError
from unstill.models.dynamicrafter import DynamiCrafterUNet, ImageResampler


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
