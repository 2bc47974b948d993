"""The page of what works together says what happens here now: its rows, and some of its cells."""

import pytest

from tests.together import FEATURES, PAGE, ROWS, cell


def table() -> dict[str, dict[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    head, *rows = lines
    assert head[1:] == list(FEATURES)
    return {name: dict(zip(head[1:], values, strict=True)) for name, *values in rows}


def test_the_page_has_its_rows() -> None:
    assert list(table()) == list(ROWS), "run python -m tests.together"


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("WanImageToVideoPipeline", "LoRA"),
        ("WanImageToVideoPipeline", "MagCache"),
        ("CogVideoXImageToVideoPipeline", "PAB"),
        ("StableVideoDiffusionPipeline", "fp8"),
        ("StableVideoDiffusionPipeline", "guidance 1"),
        ("LTXImageToVideoPipeline", "group offload"),
    ],
)
def test_cells(name: str, feature: str) -> None:
    assert cell(name, feature) == table()[name][feature]
