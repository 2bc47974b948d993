"""Verdicts on made-up numbers, and the pages that are written of them."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from benchmarks.papers.__main__ import main
from benchmarks.papers.experiments import CLAIMS
from benchmarks.papers.leak import figures, findings
from benchmarks.papers.pages import comparison_table, write_experiment
from benchmarks.papers.verdicts import Claim, Finding, Measured, alike, both, less, more, rises, within
from unstill.lab.aggregate import summarise_cells
from unstill.lab.comparison_plots import plots_of
from unstill.lab.leakage import summarise_leakage as diagnosed
from unstill.lab.method_grid import PLAIN as PLAIN_SETTING
from unstill.lab.method_grid import expand
from unstill.lab.motion_response import summarise_response
from unstill.lab.probe_conditions import NoiseLevel
from unstill.lab.sweeps import SWEEPS
from unstill.lab.video_measures import METRICS


def results(**motions):
    """By setting the motion of each image; fidelity is one minus a tenth of it."""
    return [
        {"model": "m", "setting": name, "motion_asked": None, "image": f"i{i}", "seed": 0, "cell": f"{name}{i}"}
        | dict.fromkeys(METRICS, 0.5)
        | {"motion": value, "fidelity": 1 - value / 10}
        for name, values in motions.items()
        for i, value in enumerate(values)
    ]


PLAIN = [1.0, 3.0, 5.0, 2.0]
SAME = [1.01, 2.99, 5.01, 1.99]
MEASURED = Measured(
    results(plain=PLAIN, up=[x + 1 for x in PLAIN], noise=[1.5, 2.4, 5.6, 1.6], top=[x + 2 for x in PLAIN], same=SAME)
)


@pytest.mark.parametrize(
    ("judge", "verdict"),
    [
        (more("up", "plain"), "reproduced"),
        (more("plain", "up"), "not reproduced"),
        (more("noise", "plain"), "undecided"),
        (more("up", "plain", by=1.5), "not reproduced"),
        (less("up", "plain"), "not reproduced"),
        (less("up", "plain", "fidelity"), "reproduced"),
        (rises(["plain", "up", "top"]), "reproduced"),
        (rises(["plain", "up", "top"], "fidelity", falls=True), "reproduced"),
        (rises(["top", "up", "plain"]), "not reproduced"),
        (within("up", "plain", "fidelity", 0.2), "reproduced"),
        (within("up", "plain", "fidelity", 0.05), "not reproduced"),
        (both(more("up", "plain"), more("top", "up")), "reproduced"),
        (both(more("up", "plain"), more("plain", "up")), "in part"),
        (both(more("noise", "plain"), more("plain", "up")), "not reproduced"),
        (more("up", "never made"), "undecided"),
        (alike("same", "plain", "motion", 0.1), "reproduced"),
        (alike("same", "plain", "motion", 0.001), "undecided"),
        (alike("up", "plain", "motion", 0.1), "not reproduced"),  # not "in part": more is not alike
        (alike("plain", "up", "motion", 0.1), "not reproduced"),
        (alike("noise", "plain", "motion", 0.1), "undecided"),
        (alike("up", "never made", "motion", 0.1), "undecided"),
    ],
)
def test_a_verdict_is_where_the_whole_interval_lies(judge, verdict):
    assert judge(MEASURED)[0] == verdict


def test_differences_are_paired_and_said_with_their_interval():
    gain = MEASURED.gain("up", "plain", "motion")  # the same in every image, however much images differ
    assert (gain.value, gain.low, gain.high) == pytest.approx((1, 1, 1))
    slope = MEASURED.trend(["plain", "up", "top"], "motion")
    assert (slope.value, slope.low, slope.high) == pytest.approx((1, 1, 1))
    assert more("up", "plain")(MEASURED)[1] == "motion +1 (1 to 1), up against plain (2.75)"


def test_what_would_be_needed_is_said_unless_it_is_reproduced():
    assert Claim("It moves.", "Tab. 1", more("up", "plain"), "more").judged(MEASURED).needed == ""
    assert Claim("It moves.", "Tab. 1", more("plain", "up"), "more").judged(MEASURED).needed == "more"
    proxy = Claim("It is better.", "Tab. 1", more("up", "plain"), "more", firm="FVD.")
    assert proxy.judged(MEASURED).needed == "FVD."  # of a stand-in it is said in any case
    assert "fidelity (proxy) " in less("up", "plain", "fidelity")(MEASURED)[1]
    untested = Claim("It wins.", "Tab. 2", None, "a GPU").judged(MEASURED)
    assert untested == Finding("It wins.", "Tab. 2", "not testable here", "", "a GPU")


def test_one_picture_decides_nothing():
    one = Measured(results(plain=[1.0], up=[9.0], top=[19.0]))
    for judge in (
        more("up", "plain"),
        less("plain", "up"),
        rises(["plain", "up", "top"]),
        within("up", "plain", "motion", 0.5),
        alike("plain", "plain", "motion", 0.5),
    ):
        verdict, said = judge(one)
        assert verdict == "undecided" and "nan" not in said and " to " not in said.replace("1 to 19", "")


def leaking(copies):
    """A diagnosis at three levels: the best possible explains all of the motion, the model as it is told."""
    levels = [NoiseLevel(v, 1.0, v) for v in (200.0, 8.0, 1.0)]
    error = np.tile(copies, (5, 1)).astype(float)
    one = {"error": error, "flow": 1 - error, "first": np.zeros((5, 3))}
    best = {"error": np.zeros((5, 3)), "flow": np.ones((5, 3)), "first": np.zeros((5, 3)), "truth": np.ones((5, 3))}
    truth = {"flow": np.ones((5, 1)), "moved": np.ones((5, 1)), "image": np.full((5, 1), 4.0)}
    removed = {**one, "change": np.full((5, 3), 1.0)}
    records = {"truth": truth, "image": one, "removed": removed, "reference": best}
    return diagnosed(records, levels, "sigma", name="m")


@pytest.mark.parametrize(
    ("copies", "verdicts"),
    [
        ((0.8, 0.4, 0.1), ["reproduced", "reproduced", "reproduced"]),
        ((0.0, 0.4, 0.0), ["not reproduced", "undecided", "in part"]),
        ((0.0, 0.0, 0.4), ["not reproduced", "not reproduced", "in part"]),
        ((0.0, 0.0, 0.0), ["not reproduced", "undecided", "not reproduced"]),
    ],
)
def test_what_the_leakage_paper_says_of_one_step_predictions(copies, verdicts):
    assert [one.verdict for one in findings(leaking(copies), None)] == verdicts


def test_flow_that_may_be_that_of_the_clips_is_no_finding_and_falling_is_judged_in_pairs():
    """Flow differs between clips, but in each of them it rises by a tenth from the first level to the last."""
    levels = [NoiseLevel(v, 1.0, v) for v in (200.0, 1.0)]
    flow = np.array([[0.5, 0.6], [1.0, 1.1], [1.6, 1.7], [0.8, 0.9], [1.3, 1.4]])
    one = {"error": np.full((5, 2), 0.5), "flow": flow, "first": np.zeros((5, 2))}
    truth = {"flow": np.ones((5, 1)), "moved": np.ones((5, 1)), "image": np.full((5, 1), 4.0)}
    found = diagnosed({"truth": truth, "image": one}, levels, "sigma", name="m")
    high, low = found.curves["image"]["flow"]
    assert high.low < 1 < high.high and high.high > low.low  # unpaired, nothing is to be seen
    assert found.falls["flow"].low == pytest.approx(0.1)
    less_motion, falling, image = findings(found, None)
    assert (less_motion.verdict, falling.verdict, image.verdict) == ("undecided", "in part", "not testable here")
    assert "flow 1.04 at sigma 200, 1.14 at sigma 1: +0.1 (0.1 to 0.1)" in falling.evidence


def test_videos_that_follow_what_is_asked_of_them_and_such_that_do_not():
    asked = (0.1, 0.4, 0.7, 1.0)

    def answering(motion):
        made = {(i, j): motion(a) + 0.01 * i for i in range(4) for j, a in enumerate(asked)}
        return summarise_response(made, dict.fromkeys(range(4), 0.5))

    lazy, willing = answering(lambda a: 0.3 + 0.1 * a), answering(lambda a: 1.2 * a)
    found = leaking((0.8, 0.4, 0.1))
    assert findings(found, lazy)[-1].verdict == "reproduced" and lazy.slope.value == pytest.approx(0.1)
    assert findings(found, willing)[-1].verdict == "not reproduced"
    assert [one.name for one in figures(found, lazy)] == ["explained", "leakage", "flow", "first-frame", "response"]


def test_an_experiment_writes_its_page_and_the_page_of_all_claims(tmp_path):
    sweep = {f"early-start:sigma={s}": [x + 50 / s for x in PLAIN] for s in (50, 20, 10)}
    rows = summarise_cells(results(plain=PLAIN, **sweep))
    columns, table = comparison_table(rows)
    for name, verdict in (("start-sweep", "reproduced"), ("leak", "undecided")):
        write_experiment(
            tmp_path,
            name,
            title=f"About {name}",
            made_of="m, 4 pictures",
            command=f"python -m benchmarks.papers {name}",
            findings=[Finding("It moves | it does.", "Tab. 1", verdict, "+1", "more")],
            columns=columns,
            rows=table,
            figures=plots_of(rows),
        )
    page = (tmp_path / "lab" / "start-sweep.md").read_text()
    assert "It moves \\| it does." in page and "| `early-start:sigma=20` | 5.25 " in page and "../claims.md" in page
    pictures = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert "start-sweep-motion-by-start.svg" in pictures
    for picture in pictures:
        assert ElementTree.parse(tmp_path / "lab" / picture).getroot().tag.endswith("svg")
    claims = (tmp_path / "claims.md").read_text()
    assert claims.index("About leak") < claims.index("About start-sweep")
    assert "reproduced: 1, in part: 0, undecided: 1" in claims
    assert json.loads((tmp_path / "lab" / "leak.json").read_text())["findings"][0]["verdict"] == "undecided"


class Asked(Measured):
    """Measurements which settings a claim asks for."""

    def __init__(self, names):
        super().__init__(results(**dict.fromkeys(names, PLAIN)))
        self.asked = set()

    def combined(self, factors, metric):
        self.asked |= set(factors)
        return super().combined(factors, metric)


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_about_settings_of_its_sweep(name):
    names = {PLAIN_SETTING, *(one for text in SWEEPS[name].settings for one in expand(text))}
    for claim in CLAIMS[name]:
        asked = Asked(names)
        claim.judged(asked)
        assert asked.asked <= names and (bool(asked.asked) or claim.judge is None)


def test_one_command_runs_an_experiment_and_writes_its_pages(tmp_path, capsys):
    """Without a model: the distribution of TimeNoise."""
    main(["time-noise", "--docs", str(tmp_path)])
    assert (tmp_path / "lab" / "time-noise.md").is_file() and (tmp_path / "claims.md").is_file()
    assert "time-noise: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["start-swep"])
