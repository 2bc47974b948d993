"""Cells, summary and report of a comparison, with a random model."""

import base64
import json
import random
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipelines import pico
from tests.processes import finish, kill_after, start
from unstill.errors import UnstillError
from unstill.lab.aggregate import summarise_cells
from unstill.lab.comparison_cells import ComparedModel, Comparison, Setting
from unstill.lab.comparison_plots import plots_of
from unstill.lab.comparison_report import comparison_page, comparison_verdict, write_comparison
from unstill.lab.fingerprint import model_fingerprint
from unstill.lab.method_grid import expand, split
from unstill.lab.video_measures import METRICS, measure_video
from unstill.methods.early_start import EarlyStart
from unstill.methods.free_init import FreeInit
from unstill.metrics import first_frame_error
from unstill.models.call_arguments import generate
from unstill.models.pico import PicoPipeline


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("plain", ["plain"]),
        ("early-start:sigma=50|20", ["early-start:sigma=50", "early-start:sigma=20"]),
        ("early-start:start=1.0,0.98,0.96", [f"early-start:start={x}" for x in ("1.0", "0.98", "0.96")]),
        ("a:paper,x=1|2,y=u", ["a:paper,x=1,y=u", "a:paper,x=2,y=u"]),
        ("a:x=1|2,y=3|4", ["a:x=1,y=3", "a:x=1,y=4", "a:x=2,y=3", "a:x=2,y=4"]),
        ("a:x=1|2+b", ["a:x=1+b", "a:x=2+b"]),
        ("a:x=1e+2", ["a:x=1e+2"]),
        ("noise-rectification:period=0:0.4|0:0.6", [f"noise-rectification:period=0:{x}" for x in (0.4, 0.6)]),
    ],
)
def test_a_sweep_is_the_settings_it_stands_for(text, settings):
    assert expand(text) == settings


def test_settings_that_say_nothing_are_refused():
    for text in ("", "a:x=|1", "a+", "+a"):
        with pytest.raises(UnstillError, match="is not a setting"):
            expand(text)
    assert split("plain") == [] and split("a:x=1+b") == ["a:x=1", "b"]


def tiny() -> PicoPipeline:
    torch.manual_seed(0)
    return pico()


SETTINGS = (
    Setting(name="plain", methods=()),
    Setting(name="early", methods=(EarlyStart(sigma=10.0),), described=({"name": "early_start", "sigma": 10.0},)),
    Setting(name="free", methods=(FreeInit(iterations=2),), described=({"name": "free_init"},)),
    Setting(name="wrong", methods=(EarlyStart(start=0.9),), described=({"name": "early_start", "start": 0.9},)),
)


def comparison(folder, seeds=(0,), settings=SETTINGS, load=tiny):
    model = ComparedModel(name="tiny", load=load, size=(64, 64), settings=settings, frames=4, steps=2)
    shades = {f"picture {i}": Image.new("RGB", (80, 64), (40 * i, 90, 200 - 30 * i)) for i in range(2)}
    return Comparison(folder, [model], shades, seeds, motions=(0.5,))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    made = comparison(tmp_path_factory.mktemp("comparison"))
    assert made.run() == 8
    return made


def test_every_cell_is_made_and_measured_and_what_cannot_be_says_why(done):
    results = {(one["setting"], one["image"]): one for one in done.results()}
    assert len(results) == 8
    for (setting, _), one in results.items():
        if setting == "wrong":
            assert "sigma" in one["error"] and not done.video(one["cell"]).exists()
        else:
            assert set(METRICS) < set(one) and done.video(one["cell"]).exists()
            assert one["motion_asked"] == 0.5 and one["fidelity"] == pytest.approx((one["colour"] + one["detail"]) / 2)


def test_the_same_comparison_goes_on_and_another_is_refused(done):
    def never():
        raise AssertionError("nothing is left to make")

    assert comparison(done.folder, load=never).run() == 0
    with pytest.raises(UnstillError, match="holds another comparison"):
        comparison(done.folder, seeds=(0, 1))


def test_a_cell_that_is_lost_is_made_again_and_is_the_same(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done.folder, folder)
    lost = next(one for one in done.results() if one["setting"] == "early")
    (folder / "done" / f"{lost['cell']}.json").unlink()
    again = comparison(folder)
    assert again.run() == 1
    found = next(one for one in again.results() if one["cell"] == lost["cell"])
    assert {**found, "seconds": 0} == {**lost, "seconds": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"motion": 1e308},
        {"motion": float("nan")},
        {"fidelity": float("inf")},
        {"seconds": -1.0},
        {"motion": "5"},
        {"motion": None},
        {"image": "another"},
        {"seed": 10**6},
        {"more": 1},
    ],
)
def test_a_cell_with_other_content_reaches_no_table(done, tmp_path, caplog, change):
    shutil.copytree(done.folder, tmp_path / "copy")
    again = comparison(tmp_path / "copy")
    key = next(one["cell"] for one in again.results() if "error" not in one)
    file = tmp_path / "copy" / "done" / f"{key}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    again = comparison(tmp_path / "copy")
    assert key not in [one["cell"] for one in again.results()] and f"{key}.json is damaged" in caplog.text
    assert again.run() == 1
    assert len(again.results()) == len(again.cells)


def test_whatever_decides_a_result_is_in_the_name_of_its_cell(tmp_path):
    first = set(comparison(tmp_path / "a").cells)
    other = Setting(name="early", methods=(EarlyStart(sigma=5.0),), described=({"name": "early_start", "sigma": 5.0},))
    changed = set(comparison(tmp_path / "b", settings=(SETTINGS[0], other)).cells)
    assert len(first & changed) == 2 and len(changed - first) == 2


def test_a_second_free_init_is_refused(tmp_path):
    twice = Setting(name="twice", methods=(FreeInit(iterations=2), FreeInit(iterations=3)))
    made = comparison(tmp_path, settings=(twice,))
    made.run()
    assert all("FreeInit was given twice" in one["error"] for one in made.results())


def test_where_only_the_methods_know_the_picture_the_model_makes_its_video_from_the_caption(tmp_path):
    """A model that takes an image and a caption, sampled from the caption alone."""
    model = ComparedModel(name="tiny", load=tiny, size=(64, 64), settings=SETTINGS[:1], frames=4, steps=2)
    picture = Image.new("RGB", (64, 64), (200, 40, 90))
    made = Comparison(tmp_path, [model], {"a": picture}, (3,), prompts={"a": "a red ring"}, caption_only=True)
    made.run()
    pipe = tiny()
    pipe.set_progress_bar_config(disable=True)
    alone = generate(pipe, {"prompt": "a red ring", "num_frames": 4, "num_inference_steps": 2, "output_type": "pt"}, 3)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    (cell,) = made.results()
    assert cell["first_frame_error"] == pytest.approx(first_frame_error(alone, pixels), abs=1e-6)
    assert set(made.cells) != set(comparison(tmp_path / "other", settings=SETTINGS[:1]).cells)


def test_weights_trained_further_are_another_model(tmp_path):
    """Results that are kept must not pass for those of other weights under the same name."""
    folder = tmp_path / "model"
    pipe = tiny()
    pipe.save_pretrained(folder)
    first = model_fingerprint(str(folder))
    assert first == model_fingerprint(str(folder))
    with torch.no_grad():
        next(iter(pipe.transformer.parameters())).add_(1e-3)
    pipe.save_pretrained(folder)
    assert model_fingerprint(str(folder)) != first


def fake(values, metric="motion"):
    """Results with `values[setting][image][seed]` of one metric; every other metric is 0.5."""
    return [
        {"model": "m", "setting": s, "motion_asked": None, "image": f"i{i}", "seed": j, "cell": f"{s}{i}{j}"}
        | {name: 0.5 for name in METRICS}
        | {metric: value}
        for s, images in values.items()
        for i, seeds in enumerate(images)
        for j, value in enumerate(seeds)
    ]


def test_means_gains_and_the_front_of_known_numbers():
    plain = [[1.0, 3.0], [5.0, 7.0], [0.0, 2.0]]
    more = [[x + 1 for x in seeds] for seeds in plain]
    rows = summarise_cells(fake({"plain": plain, "more": more}))
    assert rows[0].means["motion"].value == pytest.approx(3) and rows[1].means["motion"].value == pytest.approx(4)
    assert rows[0].gains == {}
    gain = rows[1].gains["motion"]  # paired: the same in every cell, however much the cells differ
    assert gain.value == pytest.approx(1) and gain.low == pytest.approx(1) and gain.high == pytest.approx(1)
    assert rows[0].means["motion"].high - rows[0].means["motion"].low > 2
    assert (rows[0].front, rows[1].front, rows[1].certainty) == (False, True, 1.0)
    assert "more moves most, +33%" in comparison_verdict(rows)[0]


def test_intervals_are_over_images_not_over_cells():
    """Many seeds of one picture are not many pictures."""
    draw = np.random.default_rng(0)
    images = 5 + draw.normal(size=6)
    rows = summarise_cells(fake({"plain": [[x] * 50 for x in images]}))
    interval = rows[0].means["motion"]
    expected = 2 * 2.571 * images.std(ddof=1) / 6**0.5  # Student's t of five degrees of freedom
    assert interval.high - interval.low == pytest.approx(expected, rel=0.15)


def test_of_one_picture_and_one_seed_nothing_is_certain():
    rows = summarise_cells(fake({"plain": [[1.0]], "more": [[9.0]]}))
    assert rows[1].gains["motion"].value == 8 and not rows[1].gains["motion"].known
    assert rows[1].certainty is None and "One image and one seed" in comparison_verdict(rows)[0]
    assert "NaN" not in json.dumps([row.as_dict() for row in rows])
    for one in plots_of(rows):
        assert "nan" not in one.svg.lower()
    several = summarise_cells(
        fake({"plain": [[1.0, 2.0, 3.0]], "more": [[9.0, 10.0, 11.5]]})
    )  # of one picture: over seeds
    assert several[1].gains["motion"].known and several[1].certainty == 1


def test_who_failed_on_some_pictures_is_held_against_others_on_the_rest_only():
    """`lucky` was made for the liveliest picture alone, where all are as lively."""
    results = fake({"plain": [[1.0], [9.0], [2.0]], "good": [[1.5], [9.5], [2.5]], "lucky": [[0.0], [9.2], [0.0]]})
    for one in results:
        if one["setting"] == "lucky" and one["image"] != "i1":
            one["error"] = "Too large."
    rows = {row.setting: row for row in summarise_cells(results)}
    assert rows["lucky"].means["motion"].value > rows["good"].means["motion"].value
    assert [name for name, row in rows.items() if row.front] == ["good"]
    assert rows["lucky"].gains["motion"].value == pytest.approx(0.2) and rows["lucky"].failed == ("Too large.",)


def test_where_plain_itself_fails_nothing_is_held_against_another():
    results = [{**one, "error": "No."} if one["setting"] == "plain" else one for one in fake({"plain": [[1.0]] * 3})]
    results += fake({"a": [[1.0]] * 3, "b": [[2.0]] * 3})
    assert "No video of plain" in comparison_verdict(summarise_cells(results))[0]


def test_where_nothing_moves_more_the_most_faithful_is_named():
    rows = summarise_cells(
        fake({"plain": [[0.2], [0.4]], "true": [[0.7], [0.8]], "truer": [[0.8], [0.9]]}, "fidelity")
    )
    assert comparison_verdict(rows) == [
        "No setting certainly moves more than plain. With no certain loss of motion, truer is the most faithful."
    ]


def test_nothing_beaten_is_on_the_front_and_failures_are_told():
    results = fake({"plain": [[1.0], [1.0]], "lively": [[3.0], [3.0]], "bad": [[2.0], [2.0]]})
    for one in results:
        one["fidelity"] = {"plain": 0.9, "lively": 0.6, "bad": 0.5}[one["setting"]]
    results += [{**results[0], "setting": "broken", "error": "It does not work here."}]
    rows = {row.setting: row for row in summarise_cells(results)}
    assert [name for name, row in rows.items() if row.front] == ["plain", "lively"]
    assert rows["broken"].failed == ("It does not work here.",) and rows["broken"].means == {}


def test_the_report_is_one_file_that_needs_nothing(done):
    rows = summarise_cells(done.results())
    write_comparison(done, rows, {"command": "unstill compare"}, done.folder)
    html = (done.folder / "report.html").read_text()
    assert html.count("<video") == 6 and "wrong: " in html
    assert not re.search(r'(src|href)="(?!data:|#)', html) and "https://" not in html
    films = [base64.b64decode(text) for text in re.findall(r'id="film\d+">(.*?)</script>', html)]
    assert len(films) == 6 and all(film[4:8] == b"ftyp" for film in films)
    table = (done.folder / "summary.csv").read_text().splitlines()
    assert len(table) == 1 + 4 and len((done.folder / "cells.csv").read_text().splitlines()) == 1 + 8


def test_onset_is_in_every_table(done):
    rows = summarise_cells(done.results())
    write_comparison(done, rows, {}, done.folder)
    assert "<th>stands still for, s</th>" in (done.folder / "report.html").read_text()
    assert "motion_onset_low,motion_onset_high" in (done.folder / "summary.csv").read_text()
    assert "motion_onset" in rows[0].as_dict()["means"] and "motion_onset" in rows[1].as_dict()["gains"]


def test_a_video_that_moves_late_has_its_onset_and_a_still_one_its_length():
    frame = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    frame = torch.nn.functional.interpolate(frame[None], size=(96, 96), mode="bicubic")[0].clamp(0, 1)
    frame = (255 * frame).to(torch.uint8)
    shifts = (0, 0, 0, 0, 0, 3, 6, 9, 12)  # pixels: the pair of frames 4 and 5 is the first that moves
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    late = measure_video(torch.stack([frame.roll(shift, -1) for shift in shifts]), picture, fps=4)
    still = measure_video(frame.expand(9, -1, -1, -1), picture, fps=4)
    assert late["motion_onset"] == 1.0 and still["motion_onset"] == 2.0


def test_text_from_outside_stays_text(done):
    rows = summarise_cells(fake({"<script>alert(1)</script>": [[1.0], [2.0]]}))
    html = comparison_page(done, rows, {"command": "<img src=x>"}).html()
    assert "<script>alert" not in html and "<img src=x>" not in html


def share(folder, rank):
    comparison(folder, seeds=range(4), settings=SETTINGS[:3]).run(rank, 2)


def test_killed_ten_times_and_shared_by_two_it_ends_as_undisturbed(tmp_path):
    """Real processes on real videos."""
    undisturbed = comparison(tmp_path / "a", seeds=range(4), settings=SETTINGS[:3])
    undisturbed.run()
    folder, draw = tmp_path / "b", random.Random(0)

    def cells():
        return len(list((folder / "done").glob("*.json")))

    for _ in range(10):
        kill_after(start(share, folder, 0), cells, cells() + draw.randint(0, 2), draw.uniform(0, 0.1))
    assert 0 < cells() < 24
    made = comparison(folder, seeds=range(4), settings=SETTINGS[:3])
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "done").glob("*.json")}
    finish([start(share, folder, rank) for rank in (0, 1)])
    timed = [{**one, "seconds": 0} for one in made.results()]
    assert timed == [{**one, "seconds": 0} for one in undisturbed.results()] and len(timed) == 24
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "done").glob("*.json")}
    assert before.items() <= after.items()
    for key in made.cells:
        assert made.video(key).read_bytes() == undisturbed.video(key).read_bytes()
