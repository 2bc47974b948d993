"""A VAE that overflows in float16 is float32 while it encodes, and float16 again afterwards, also after an error."""

from typing import Any

import pytest
import torch

from tests.pipelines import CASES
from unstill.hooks import adapter_for


@pytest.mark.parametrize("fails", [False, True])
def test_the_dtype_of_the_vae_is_restored(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    pipe = CASES["StableVideoDiffusionPipeline"].build()  # of its own: it is changed
    adapter, seen = adapter_for(pipe), []
    pipe.vae.to(torch.float16)
    pipe.vae.register_to_config(force_upcast=True)

    def encode(pipe: Any, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        seen.append((pipe.vae.dtype, frames.dtype))
        if fails:
            raise RuntimeError("broken")
        return torch.zeros(1)

    monkeypatch.setattr(adapter, "_encode", encode)
    video = torch.zeros(1, 3, 64, 64)
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            adapter.encode_video(pipe, video)
    else:
        adapter.encode_video(pipe, video)
    assert seen == [(torch.float32, torch.float32)] and pipe.vae.dtype == torch.float16
