"""A random pipeline in a folder, pictures of every kind, and the command line in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from unstill.cli import app
from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoUNet, edm_scheduler


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    PicoPipeline(PicoAutoencoder(), PicoUNet(), edm_scheduler()).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def unstill() -> Callable[..., Result]:
    def run(*words: object) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    smooth = np.linspace(0, 255, 96 * 64).reshape(64, 96, 1) * np.ones(3)
    smooth[20:40, 30:60] = (200, 40, 90)
    Image.fromarray(smooth.astype(np.uint8)).save(path)
    return path
