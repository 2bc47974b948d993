"""benchmarks/house.py: its figures of a small checkout, and what it says without mypy."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import house


SOURCE = '''"""A module."""

import os


@os.fsencode
class Public(os.PathLike):
    """A class."""

    field: int = 0

    def method(
        self,
        x: int,
    ) -> int:
        return x

    def _private(self) -> int:
        return 0


def _helper(x: int) -> int:
    # a comment
    return x
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "module.py").write_text(SOURCE)
    return tmp_path


def test_figures_of_the_source(checkout: Path) -> None:
    figures = house.source_figures(checkout)
    assert figures["lines"] == 24 and figures["modules"] == 1 and figures["public names of modules"] == 1
    assert figures["lines of code"] == 12
    assert figures["longest function"] == "src/module.py::method: 5 lines"


def test_lines_of_public_signatures(checkout: Path) -> None:
    text = (checkout / "src" / "module.py").read_text().splitlines()
    shown = [text[line - 1].strip() for line in sorted(house.signature_lines(checkout / "src" / "module.py"))]
    assert shown == [
        *("@os.fsencode", "class Public(os.PathLike):"),
        "field: int = 0",
        *("def method(", "self,", "x: int,", ") -> int:"),
    ]


@pytest.mark.parametrize(
    "done",
    [(1, "", "python: No module named mypy"), (2, "mypy: can't read file 'src'", "")],
)
def test_without_mypy_there_are_no_figures(
    checkout: Path, done: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, *done))
    with pytest.raises(SystemExit, match="mypy could not check .*install it"):
        house.mypy_figures(checkout, ["apply"])
