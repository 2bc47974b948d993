"""The page of a validation: loss, figures of all validations so far, videos, in one file."""

import json
from pathlib import Path

import torch

from unstill.lab.validation_page import validation_page


def test_everything_so_far_is_on_one_page(tmp_path: Path) -> None:
    """Later validations, of a run that was resumed from before them, are left out; so are links to other files."""
    (tmp_path / "validation").mkdir()
    lines = [{"step": step, "motion": step / 1000} for step in (100, 200, 300)]
    (tmp_path / "validation" / "figures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = "".join(f"{step},{1 / step},0.1,1.0\n" for step in range(1, 402))
    (tmp_path / "loss.csv").write_text(f"step,loss,learning_rate,gradient_norm\n{rows}")
    videos = [(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), 8.0)] * 5
    html = validation_page(tmp_path, "<pico>", 300, {"motion": 0.75, "leak": 0.5}, videos).html()
    assert "&lt;pico&gt; after 300 steps" in html and "Means over 3 steps each." in html
    assert html.count("<video ") == 5 and html.count("video/mp4") == 1
    for cell in ("<td>0.1</td>", "<td>0.2</td>", "<td>0.75</td>", "<td>0.5</td>"):
        assert html.count(cell) == 1
    assert "<td>0.3</td>" not in html
    assert html.count("<svg") == 2 and "<h3>Motion</h3>" in html  # the loss, and what was measured more than once
    assert html.count(">after 300 steps<") == 1
    assert "<link" not in html and "src=" not in html.split("<script")[0]


def test_a_run_without_anything_yet(tmp_path: Path) -> None:
    html = validation_page(tmp_path, "pico", 1, {}, []).html()
    assert "pico after 1 steps" in html and "<video " not in html and "<svg" not in html
