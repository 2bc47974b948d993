"""The public names are typed: mypy sees signatures, and refuses wrong uses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


USES = Path(__file__).with_name("public_api.py")
ROOT = USES.parents[2]


@pytest.fixture(scope="module")
def reported(pytestconfig: pytest.Config) -> dict[int, list[str]]:
    """What mypy says about `public_api.py`, by line. Its cache is kept: the first run takes 12 s, a later one 1 s."""
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("mypy")
    options = ["--strict", "--follow-imports=silent", "--no-error-summary", f"--cache-dir={cache}"]
    command = [sys.executable, "-m", "mypy", *options, str(USES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode in (0, 1), done.stderr
    found: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        if match := re.match(rf".*{USES.name}:(\d+): (?:error|note): (.*)", line):
            found.setdefault(int(match[1]), []).append(match[2])
    return found


def test_types_and_errors_are_as_the_file_says(reported: dict[int, list[str]]) -> None:
    lines = USES.read_text(encoding="utf-8").splitlines()
    expected = {
        number: match[1] for number, line in enumerate(lines, 1) if (match := re.search("  # [ER]: (.+)", line))
    }
    for number, text in expected.items():
        assert any(text in words for words in reported.get(number, [])), (lines[number - 1], reported.get(number))
    beyond = {lines[number - 1]: words for number, words in reported.items() if number not in expected}
    assert beyond == {}
