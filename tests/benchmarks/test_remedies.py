"""The page of `benchmarks/remedies.py`, written from recorded cells, and its count of network calls."""

import json
import re
import sys

import pytest

from benchmarks import remedies
from unstill.errors import UnstillError
from unstill.lab.method_grid import PLAIN, expand
from unstill.lab.sweeps import SWEEPS, Sweep


MORE = f"plain, {remedies.MORE_STEPS} steps"
# Differences from plain: of travel, outline and error of the first frame.
EFFECTS = {
    PLAIN: (0.0, 0.0, 0.0),
    "early-start:sigma=20": (0.5, -0.01, 0.0),
    "noise-rectification": (-0.3, 0.05, -0.002),
    "reference-bias": (0.0, 0.0, 0.0),
    "progressive-noise": (-0.1, -0.1, 0.0),
    "predict-and-perturb:repeats=3": (0.4, 0.0, 0.0),
}


def settings() -> list[str]:
    return [PLAIN, *(name for text in SWEEPS["remedies"].settings for name in expand(text)), MORE]


def record(out, picture: int, left_out: str = "") -> None:
    """The cells of one picture, as a comparison writes them."""
    for number, name in enumerate(settings()):
        if name == left_out:
            continue
        folder = out / (f"{picture}-more-steps" if name == MORE else str(picture)) / "done"
        folder.mkdir(parents=True, exist_ok=True)
        travel, outline, error = EFFECTS.get(name, (0.2 if (picture + number) % 2 else -0.2, 0.0, 0.0))
        measured = {
            **{"motion": 1.0 + travel, "fidelity": 0.8, "colour": 0.8, "detail": 0.9, "coherence": 0.99},
            **{"first_frame_error": 0.01 + error, "motion_onset": 0.1, "seconds": 3.0},
            **{"travel": 0.6 + travel + 0.01 * picture, "outline": 0.85 + outline, "toy_colour": 0.8},
        }
        cell = {"model": "pico-still", "setting": name, "motion_asked": None, "image": "world 0", "seed": picture}
        (folder / f"{number}.json").write_text(json.dumps(cell | measured))


def write(tmp_path, monkeypatch, pictures: int) -> None:
    cost = dict.fromkeys(settings(), 15) | {"predict-and-perturb:repeats=3": 24, MORE: 24}
    monkeypatch.setattr(remedies, "calls", lambda model: cost)
    docs = tmp_path / "docs"
    (docs / "lab").mkdir(parents=True, exist_ok=True)
    words = ["--pictures", str(pictures), "--out", str(tmp_path / "out"), "--docs", str(docs), "--pages"]
    monkeypatch.setattr(sys, "argv", ["remedies.py", *words])
    remedies.main()


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_page_says_what_the_cells_say(tmp_path, monkeypatch) -> None:
    for picture in range(4):
        record(tmp_path / "out", picture)
    record(tmp_path / "out", 4, left_out=MORE)  # not finished: it is left out
    write(tmp_path, monkeypatch, 6)
    page = (tmp_path / "docs" / "lab" / "remedies.md").read_text("utf-8")
    still, wild, closer = (
        section(page, t) for t in ("It stands still", "It moves too much", "It loses its image, or its objects")
    )
    assert "--pictures 4 " in page and "4 pictures of the synthetic world" in page
    assert "`early-start:sigma=20` | 15 | +0.5 (0.5 to 0.5)" in still and "noise-rectification`" not in still
    assert still.index("early-start:sigma=20`") < still.index("`predict-and-perturb:repeats=3` | 24 |")
    assert "`noise-rectification` | 15 | \u22120.3" in wild and "early-start:sigma=20`" not in wild
    assert "`noise-rectification`" in closer and "early-start:sigma=20`" not in closer
    nothing, undecided = section(page, "What does nothing here").split("Undecided, ")
    assert "`reference-bias`" in nothing and "`early-start:sigma=50`" in undecided
    front = re.findall("`([^`]+)`", section(page, "At equal cost").split("one of these: ")[1].split(".\n")[0])
    assert {"early-start:sigma=20", "noise-rectification"} <= set(front)
    assert not {"progressive-noise", "predict-and-perturb:repeats=3", MORE} & set(front)  # beaten; costs more
    table = [line for line in section(page, "All settings").splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in table] == settings()
    found = json.loads((tmp_path / "docs" / "remedies.json").read_text("utf-8"))
    assert found["pictures"] == 4 and len(found["rows"]) == len(settings())
    assert (tmp_path / "docs" / "lab" / "remedies-front.svg").read_text("utf-8").startswith("<svg")


def test_nothing_is_written_of_pictures_that_are_not_finished(tmp_path, monkeypatch) -> None:
    record(tmp_path / "out", 0, left_out="early-start:sigma=20")
    with pytest.raises(UnstillError, match="holds no finished picture"):
        write(tmp_path, monkeypatch, 1)
    assert not (tmp_path / "docs" / "remedies.json").exists()


def test_calls_are_counted_on_the_pipeline_itself(monkeypatch) -> None:
    """15 steps; three of them with three repeats; a further pass in all of them but the last."""
    texts = ("predict-and-perturb:repeats=3", "reference-bias", "image-guidance:scale=2", "early-start:sigma=20")
    monkeypatch.setitem(SWEEPS, "remedies", Sweep(about="", settings=texts))
    found = remedies.calls("pico-still")
    assert found == {PLAIN: 20, texts[0]: 29, texts[1]: 20, texts[2]: 39, texts[3]: 20, MORE: 33}
