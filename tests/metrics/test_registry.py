"""The registry of metrics: a new file is seen everywhere, records follow versions and inputs, mistakes are refused."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import unstill.metrics
from tests.metrics.clips import SETTINGS, counting_reads, folder, metric_file
from unstill.cli import app
from unstill.metrics import EvaluationSettings
from unstill.metrics.evaluate import evaluate
from unstill.metrics.inputs import load_inputs
from unstill.metrics.reference_table import BEGIN, END, metrics_table, with_table
from unstill.metrics.registry import (
    INPUTS,
    Value,
    metric,
    metric_group,
    reported_values,
    set_metric,
    video_metrics,
)


DOCS = Path(__file__).parents[2] / "docs"
TOY = '''
"""A metric in a file of its own."""

from unstill.metrics import SetScore, metric, set_metric


@metric("toy_loop_error", label="last frame is not the first", topic="coherence", unit="levels", better="lower"{})
def toy_loop_error(video):
    frames = video.double()
    return (frames[-1] - frames[0]).square().mean().sqrt()


@set_metric("toy_spread", of="toy_loop_error", label="spread of the loop error", topic="coherence")
def toy_spread(generated):
    return SetScore(float(generated.max() - generated.min()))
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that puts text into a file on the path of the package; afterwards the registry is as it was."""
    with metric_file(tmp_path / "package" / "toy.py", monkeypatch) as write:
        yield write


def test_a_new_file_is_a_new_metric_everywhere(package, tmp_path: Path) -> None:
    made = folder(tmp_path / "made", 1.0, count=2)
    words = ("evaluate", made, "--size", "64x48", "--cache", tmp_path / "cache")

    def run(*more: str) -> str:
        result = CliRunner().invoke(app, [str(word) for word in (*words, *more)])
        assert result.exit_code == 0, result.output
        return result.stdout

    before = json.loads(run("--json"))
    package(TOY.format(""))
    after = json.loads(run("--json"))
    score = after["scores"].pop("toy_loop_error")
    assert score["unit"] == "levels" and score["better"] == "lower" and score["count"] == 2 and not score["proxy"]
    values = [of_video.pop("toy_loop_error") for of_video in after["by_video"].values()]
    assert score["value"] == pytest.approx(sum(values) / 2) and min(values) > 0
    assert after["scores"].pop("toy_spread")["value"] == pytest.approx(max(values) - min(values))
    assert after["scores"] == before["scores"] and after["by_video"] == before["by_video"]
    assert "last frame is not the first" in run()
    assert "| `toy_loop_error` | last frame is not the first | levels | lower | nothing |" in metrics_table()


def test_a_new_metric_or_version_leaves_the_records_of_others(package, tmp_path: Path, monkeypatch) -> None:
    made = folder(tmp_path / "made", 1.0, count=1)
    reads = counting_reads(monkeypatch)

    def records() -> set[str]:
        evaluate(made, None, SETTINGS, cache=tmp_path / "cache")
        return {path.name for path in (tmp_path / "cache").iterdir()}

    kept = [records()]
    for more in ("", ", version=2"):
        package(TOY.format(more))
        kept.append(records())
    assert [len(after - before) for before, after in zip(kept, kept[1:], strict=False)] == [1, 1]
    assert kept[0] < kept[1] < kept[2] and len(reads) == 3
    assert records() == kept[2] and len(reads) == 3


def test_records_follow_the_inputs_that_a_metric_uses(tmp_path: Path) -> None:
    made, cache = folder(tmp_path / "made", 1.0, count=1), tmp_path / "cache"

    def new_records(settings: EvaluationSettings, reference: Path | None = None) -> int:
        before = len(list(cache.iterdir())) if cache.exists() else 0
        evaluate(made / "clip0.mp4", reference, settings, cache=cache)
        return len(list(cache.iterdir())) - before

    everything = new_records(SETTINGS)
    of_the_video = load_inputs(SETTINGS).keys() | {"fps"}
    assert everything == sum(entry.needs <= of_the_video for entry in video_metrics())
    assert new_records(EvaluationSettings(size=(48, 96))) == 1  # only the group of the optical flow uses the size
    assert new_records(EvaluationSettings(size=(48, 64), unbiased=False)) == 0
    real = folder(tmp_path / "real", 3.0, count=1)
    of_real = everything
    # Of the generated video: the first frame's error, and the three proxies that compare with the image.
    assert new_records(SETTINGS, real) == of_real + 4
    assert new_records(EvaluationSettings(size=(48, 64), frames=3)) == everything


def test_every_input_exists_and_every_value_has_its_place(clip_folder: Path, dino_folder: Path) -> None:
    loaded = load_inputs(EvaluationSettings(clip=str(clip_folder), dino=str(dino_folder)))
    assert loaded.keys() < INPUTS.keys()
    needed = set().union(*(needs for _, needs in reported_values().values()))
    assert needed <= INPUTS.keys()
    hidden = {value.name for entry in video_metrics() for value in entry.values if value.label is None}
    assert hidden == {"frames", "proxy_features", "i3d_logits", "c3d_probabilities"}
    names = list(reported_values())
    assert names[:2] == ["motion_score", "motion_per_pair"] and names[-1] == "proxy_frechet_distance"
    assert all(value.proxy == name.startswith("proxy_") for name, (value, _) in reported_values().items())


def test_the_page_has_the_table_of_the_registry() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert with_table(page) == page, "run python -m unstill.metrics.reference_table docs/metrics.md"


def test_mistakes_in_a_declaration_are_refused(package) -> None:
    package("")
    with pytest.raises(ValueError, match="needs \\['sound'\\]; known inputs are fps"):
        metric("loud", label="is loud", needs={"sound"})(lambda video, sound: 1.0)
    with pytest.raises(ValueError, match="has no arguments \\['image'\\]"):
        metric("far", label="is far", needs={"image"})(lambda video: 1.0)
    with pytest.raises(ValueError, match="Two metrics are called motion_score"):
        metric("motion_score", label="moves")(lambda video: 1.0)
    with pytest.raises(ValueError, match="Two metrics are called zoom"):
        set_metric("zoom", of="frames", label="zooms")(lambda generated: None)
    metric_group(Value("one", "is one"), Value("two", "is two"))(lambda video: {"three": 3.0})
    group = next(entry for entry in video_metrics() if len(entry.values) == 2 and entry.values[0].name == "one")
    with pytest.raises(ValueError, match="did not declare: \\['three'\\]"):
        group(torch.zeros(2, 3, 4, 4), {})


def test_a_decorated_function_stays_a_plain_function() -> None:
    assert unstill.metrics.first_frame_error(torch.ones(2, 3, 4, 4), torch.zeros(3, 4, 4)) == 1
