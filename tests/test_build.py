"""What is built to be installed: what is in it, how large it is, and that it runs from there."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from unstill.data import read_video


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("built")
    made = {}
    for builder in (WheelBuilder, SdistBuilder):
        (path,) = builder(str(ROOT)).build(directory=str(folder), versions=["standard"])
        made[builder.PLUGIN_NAME] = Path(path)
    return made


def test_the_wheel_holds_the_package_and_the_weights_and_nothing_else(built) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
        metadata = next(wheel.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) == 2 and "unstill" in tops
    source = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "unstill").rglob("*.py")}
    assert source <= names and "unstill/py.typed" in names
    folder = ROOT / "src" / "unstill" / "models" / "pico" / "weights"
    weights = {path.relative_to(ROOT / "src").as_posix() for path in folder.rglob("*") if path.is_file()}
    assert len(weights) > 5 and weights <= names
    assert "Name: unstill" in metadata and "Requires-Dist: torch" in metadata
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)


def test_the_source_archive_can_run_its_tests(built) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "tests/conftest.py"} <= names


def test_the_size_is_the_one_that_the_readme_states(built) -> None:
    stated = int(re.search(r"The package itself is (\d+) MB", (ROOT / "README.md").read_text("utf-8"))[1])
    size = built["wheel"].stat().st_size / 1e6
    assert size <= stated <= size + 5, size


def test_a_picture_moves_from_where_the_wheel_was_unpacked(built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        wheel.extractall(tmp_path / "installed")
    script = "import sys, unstill, unstill.cli; print(unstill.__file__); unstill.cli.main()"
    words = ("animate", "--no-plain", "--steps", "1", "--frames", "2")
    said = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(str(tmp_path / "installed")) and "Wrote animated.mp4" in said.stdout
    assert said.stderr == ""  # no warnings of libraries on the screen
    assert len(read_video(tmp_path / "animated.mp4")) == 2
