"""The README's code runs, and its test command is the one that .ci/run finds."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from unstill.cli import app


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path, monkeypatch):
    code = re.search(r"<!-- tests/test_readme.py runs this block -->\n```python\n(.*?)```", README, re.DOTALL)
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    exec(code[1], names)
    assert len(names["moving"]) == len(names["still"]) > 1
    assert names["moving"][-1].tobytes() != names["still"][-1].tobytes()


def test_the_test_command_is_found_by_its_marker():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    finder = re.search(r"awk '(.*?)' README.md", script)[1]
    found = subprocess.run(["awk", finder, str(ROOT / "README.md")], capture_output=True, text=True, check=True).stdout
    assert found == 'python -m pip install -c constraints.txt -e ".[test]" && python -m pytest\n'


@pytest.mark.parametrize("verb", [command.callback.__name__ for command in app.registered_commands])
def test_every_verb_is_named(verb):
    assert f"unstill {verb}" in README
