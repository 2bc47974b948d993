"""The page of what works together says what happens here now: its rows, and some of its cells."""

import diffusers
import pytest

import unstill
from tests.pipelines import CASES, _made, sample
from tests.together import FEATURES, PAGE, ROWS, cell
from unstill.errors import UnstillError


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
        ("LTXImageToVideoPipeline", "model offload"),
        ("CogVideoXImageToVideoPipeline", "VAE tiling"),
    ],
)
def test_cells(name: str, feature: str) -> None:
    assert cell(name, feature) == table()[name][feature]


def test_faster_cache_needs_a_first_timestep_outside_of_its_skip_range() -> None:
    case = CASES["HunyuanVideoPipeline"]
    pipe = _made(case.build)

    def enable(end: int) -> None:
        config = diffusers.FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, end),
            is_guidance_distilled=True,
            current_timestep_callback=lambda: pipe.current_timestep,
        )
        pipe.transformer.enable_cache(config)

    enable(961)
    plain = sample(case, pipe)  # from 1000
    with unstill.apply(pipe, unstill.EarlyStart(start=0.96)):
        with pytest.raises(UnstillError, match=r"between -1 and 961, but .* is 960, .* ends at 960 or below"):
            sample(case, pipe)
        pipe.transformer.disable_cache()
        enable(960)
        assert not sample(case, pipe).equal(plain)
        pipe.transformer.disable_cache()
        sample(case, pipe)
