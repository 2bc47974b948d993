"""Allegro's autoencoder works in tiles only; the pipeline's own setting comes back."""

from typing import Any

import pytest
import torch

from tests.pipelines import CASES
from unstill.hooks import adapter_for


def test_the_setting_of_tiling_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = CASES["AllegroPipeline"].build()  # of its own: it is changed
    adapter, seen = adapter_for(pipe), []

    def broken(*args: Any, **options: Any) -> None:
        seen.append(pipe.vae.use_tiling)
        raise RuntimeError("broken")

    for name in ("encode", "decode"):
        monkeypatch.setattr(pipe.vae, name, broken)
    pipe.vae.use_tiling = False
    for work in (
        lambda: adapter._encode(pipe, torch.zeros(24, 3, 320, 320), None),
        lambda: adapter._decode(pipe, torch.zeros(1, 4, 6, 40, 40)),
    ):
        with pytest.raises(RuntimeError, match="broken"):
            work()
        assert pipe.vae.use_tiling is False
    assert seen == [True, True]
