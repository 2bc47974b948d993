"""Three models made by hand, whose leakage is known, and what is made of the numbers."""

import math
import random

import numpy as np
import pytest
import torch

from tests.pipelines import CASES, pico, pipeline
from tests.processes import finish, kill_after, start
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.hooks import adapter_for
from unstill.lab.bayes_optimal import posterior_mean
from unstill.lab.bootstrap import Interval, stretch, weights
from unstill.lab.diagnosis_report import command, diagnosis_page, diagnosis_verdict
from unstill.lab.diagnosis_run import DiagnosisRun, Findings
from unstill.lab.leakage import gathered, measure_leakage, summarise_leakage
from unstill.lab.leakage_measures import measure_latents
from unstill.lab.probe_clips import Folder, ProbeClip, World, from_world, picture_of
from unstill.lab.probe_conditions import NoiseLevel
from unstill.models.call_arguments import arguments
from unstill.models.pico import PicoTransformer


LEVELS = (100.0, 8.0, 0.1)


class Made(PicoTransformer):
    """Predicts what `x0_of(noisy, image, sigma)` says, as a v-prediction on preconditioned input."""

    def forward(self, sample, timestep, encoder_hidden_states=None, added_time_ids=None, return_dict=True):
        sigma = math.exp(4 * float(timestep))
        scaled, image = sample.chunk(2, 2)
        x0 = self.x0_of(scaled * math.hypot(1, sigma), image, sigma)
        return ((scaled - math.hypot(1, sigma) * x0) / sigma,)


@pytest.fixture(scope="module")
def subjects():
    return list(from_world(4, frames=4, size=(64, 64), others=24))


@pytest.fixture(scope="module")
def pipe(subjects):
    return made(subjects)


def made(subjects):
    torch.manual_seed(0)
    pipe = pico()
    pipe.transformer, vae = Made(**pipe.transformer.config), pipe.vae
    with torch.no_grad():
        latents = vae.encoder(torch.cat([one.video for one in subjects]) * 2 - 1)
    vae.standardise(latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    return pipe


def probed(pipe, subjects, x0_of):
    pipe.transformer.x0_of = x0_of

    def call(subject: ProbeClip, picture):
        return arguments(type(pipe), image=picture, motion=subject.motion, guidance=1.0, frames=4)

    return measure_leakage(pipe, subjects, call, LEVELS, conditions=("image", "removed"))


def test_a_model_that_copies_its_image_leaks_everything(pipe, subjects):
    found = probed(pipe, subjects, lambda noisy, image, sigma: image)
    for i in range(len(LEVELS)):
        assert found.curves["image"]["explained"][i].value == pytest.approx(0, abs=1e-4)
        assert found.curves["image"]["flow"][i].value == pytest.approx(0, abs=0.02)
        assert found.leak[i].value == pytest.approx(1, abs=1e-4)
        assert found.pull[i].value == pytest.approx(1, abs=1e-3)
    assert found.start is None and "leaks" in diagnosis_verdict(found)[0]


def test_a_model_that_sees_no_image_does_not_leak(pipe, subjects):
    """However little it knows: the best guess of latents of unit variance, which at high noise is nothing at all."""
    found = probed(pipe, subjects, lambda noisy, image, sigma: noisy / (1 + sigma**2))
    assert all(one.value == one.low == one.high == 0 for one in [*found.leak, *found.pull])
    assert found.curves["image"] == found.curves["removed"]
    assert found.curves["image"]["explained"][0].value < 0.5
    assert "does not leak" in diagnosis_verdict(found)[0]


def test_the_best_possible_model_does_not_leak(pipe, subjects):
    """Though it explains less than everything, and looks at its image as hard as it can."""
    adapter = adapter_for(pipe)
    known = [torch.cat([adapter.encode_video(pipe, v) for v in one.others]) for one in subjects]

    def best(noisy, image, sigma):
        seen = image[0, 0]
        fits = next((k for k in known if torch.allclose(k[0, :, 0], seen, atol=1e-4)), torch.cat(known))
        return posterior_mean(noisy[0].transpose(0, 1), fits, sigma)[0].transpose(0, 1)[None]

    found = probed(pipe, subjects, best)
    assert all(one.value < 1e-3 for one in found.leak)
    assert found.curves["image"]["explained"][0].value < 0.9 < found.curves["image"]["explained"][-1].value
    assert found.pull[0].value > 0.1
    assert "does not leak" in diagnosis_verdict(found)[0]


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("StableVideoDiffusionPipeline", {"image", "weakened", "removed"}),
        ("AnimateDiffPipeline", {"image"}),  # conditioned on no image
        ("LTXImageToVideoPipeline", {"image", "removed"}),  # its frame 0 is the image: there is nothing to weaken
        ("WanImageToVideoPipeline", {"image", "weakened", "removed"}),
    ],
)
def test_it_works_on_pipelines_of_every_kind(name, sources):
    case, pipe = CASES[name], pipeline(name)
    side = case.latents[2] * adapter_for(pipe).compression(pipe)[0]
    video = torch.rand(case.encoded, 3, side, side, generator=torch.Generator().manual_seed(0))

    def call(subject: ProbeClip, picture):
        return {**case.call, "image": picture} if case.image else case.call

    level = case.level.get("sigma", 0.9)
    found = measure_leakage(pipe, [ProbeClip(video, 0.5)], call, (level, level / 2), name=name)
    assert set(found.curves) == sources and bool(found.leak) == ("removed" in sources)
    assert all(np.isfinite(one.value) for by in found.curves.values() for curve in by.values() for one in curve)
    assert diagnosis_verdict(found)[0] and found.as_dict()["model"] == name


def test_the_recommended_start_is_the_highest_level_that_holds_all_the_way_down():
    """Explained: 0.6, 0.4, 0.7, 0.9 of the motion; half of it is asked for."""
    levels = [NoiseLevel(v, 1.0, v) for v in (200.0, 50.0, 8.0, 1.0)]
    error = np.tile([0.4, 0.6, 0.3, 0.1], (5, 1))
    one = {"error": error, "flow": np.ones((5, 4)), "first": np.zeros((5, 4))}
    truth = {"flow": np.ones((5, 1)), "moved": np.ones((5, 1)), "image": np.full((5, 1), 4.0)}
    found = summarise_leakage({"truth": truth, "image": one}, levels, "sigma", name="some/model", share=0.5)
    assert [round(x.value, 6) for x in found.curves["image"]["explained"]] == [0.6, 0.4, 0.7, 0.9]
    assert found.start == 8.0 and found.leak == []
    assert command(found, statistics=False).endswith("--model some/model --method early-start:sigma=8 --compare")
    assert "analytic-init:sigma=8" in command(found, statistics=True)

    # Without the image 0.1 more is explained at the second level, in every clip: that much is leaked for certain.
    removed = {**one, "error": error - [0, 0.1, 0, 0], "change": np.full((5, 4), 1.0)}
    found = summarise_leakage({"truth": truth, "image": one, "removed": removed}, levels, "sigma", name="m")
    assert found.certain[1].low == pytest.approx(0.1) and found.certain[0].value == 0
    assert [round(x.value, 6) for x in found.leak] == [0.4, 0.6, 0.3, 0.1]  # at most: against the truth
    assert "10% more of the motion at sigma 50" in diagnosis_verdict(found)[0]


def test_an_interval_covers_the_truth_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    for _ in range(200):
        x = draw.exponential(size=30)
        interval = Interval.of(weights(30, 400) @ x / 30)
        hits += interval.low < 1 < interval.high
    assert 0.87 < hits / 200 < 0.98  # percentile intervals of 30 skewed values cover a little less than 95 %


@pytest.mark.parametrize("units", [3, 8])
def test_an_interval_of_few_covers_the_truth_as_well(units):
    """Percentiles alone cover 75 % and 88 %."""
    draw, hits, w = np.random.default_rng(0), 0, weights(units, 400)
    for _ in range(400):
        interval = Interval.of(w @ draw.normal(size=units) / units, units)
        hits += interval.low < 0 < interval.high
    assert 0.92 < hits / 400 < 0.98


def test_the_stretch_is_that_of_students_t():
    for units, t in ((2, 12.7062), (5, 2.7764), (6, 2.5706), (8, 2.3646), (20, 2.0930), (1000, 1.9623)):
        assert stretch(units) == pytest.approx(t / 1.959964 * math.sqrt(units / (units - 1)), rel=2e-3)
    assert Interval.of(np.array([0.9, 0.5, 1.0, 1.0]), 2, (0, 1)).high == 1  # what cannot be is in no interval
    assert not Interval.of(np.ones(9), 1).known


def run_in(folder, pipe, **changes):
    """A diagnosis of two clips, and two videos for each requested motion, in a folder."""

    def call(subject: ProbeClip, picture, motion=None):
        return arguments(type(pipe), image=picture, motion=motion or subject.motion, frames=4, steps=2)

    clips = World(count=2, frames=4, size=(64, 64))
    given = {"pipe": pipe, "subjects": clips, "answers": clips, "call": call, "levels": LEVELS[:2], "name": "m"}
    return DiagnosisRun(
        work=folder,
        decides={"weights": "those"},
        conditions=("image", "removed"),
        ask=lambda subject, level: call(subject, picture_of(subject), level),
        **{**given, **changes},
    )


def halfway(noisy, image, sigma):
    return (image + noisy / (1 + sigma**2)) / 2


def share(folder, rank):
    pipe = made(from_world(4, frames=4, size=(64, 64), others=24))
    pipe.transformer.x0_of = halfway
    assert (run_in(folder, pipe).run(rank, 2) is None) == (rank == 1)


def test_killed_and_shared_by_two_a_diagnosis_ends_as_undisturbed(pipe, tmp_path):
    """Real processes."""
    pipe.transformer.x0_of = halfway
    found, answered, *rest = run_in(tmp_path / "a", pipe).run()
    assert found.clips == 2 and len(answered.measured) == 4
    draw = random.Random(0)

    def numbers():
        return len(list((tmp_path / "b").rglob("*.json")))

    for _ in range(4):
        kill_after(start(share, tmp_path / "b", 0), numbers, numbers() + draw.randint(0, 2), draw.uniform(0, 0.05))
    assert 0 < numbers() < 10
    finish([start(share, tmp_path / "b", rank) for rank in (0, 1)])
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*.json")}
    assert len(before) == 2 + 2 * 4
    again, answers, *others = run_in(tmp_path / "b", pipe).run()
    assert again.as_dict() == found.as_dict() and answers == answered
    assert others[:2] == rest[:2]
    assert {s: len(films) for s, films in again.shown.items()} == {"truth": 1, "image": 2, "removed": 2}
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "b").rglob("*.json")} == before


def test_another_diagnosis_never_finds_the_numbers_of_this_one(pipe, tmp_path):
    keys = {
        run_in(tmp_path, pipe, **changes)._key
        for changes in (
            {},
            {"levels": LEVELS[:1]},
            {"seed": 1},
            {"answers": None},
            {"subjects": World(count=2, frames=4, size=(64, 64), seed=1)},
        )
    }
    assert len(keys) == 5


def test_a_clip_that_cannot_be_read_is_replaced_or_left_out(pipe, tmp_path, caplog):
    for i in range(3):
        write_video(tmp_path / "clips" / f"{i}.mp4", torch.rand(8, 3, 64, 64), fps=8)
    (tmp_path / "clips" / "0.mp4").write_bytes(b"no video")
    folder = Folder(folder=tmp_path / "clips", count=2, frames=4, fps=None, size=(64, 64))
    assert len(folder) == 2
    torch.testing.assert_close(folder[0].video, folder._clips[2].pixels)  # number 0 is spoilt, 1 is another's
    (tmp_path / "clips" / "2.mp4").write_bytes(b"no video either")
    with pytest.raises(UnstillError, match="0.mp4"):
        folder[0]
    pipe.transformer.x0_of = lambda noisy, image, sigma: image
    found = run_in(tmp_path / "run", pipe, subjects=folder, answers=None).run().diagnosis
    assert found.clips == 1 and "Skipping clip 0" in caplog.text and not found.shown
    told = diagnosis_page(Findings(found), None, {}).html()  # one clip is no sample: estimates without intervals
    assert not found.leak[0].known and "nan" not in told and "nan" not in " ".join(diagnosis_verdict(found)).lower()


def test_the_page_says_what_was_found(pipe, subjects):
    found = probed(pipe, subjects[:2], lambda noisy, image, sigma: image)
    html = diagnosis_page(Findings(found), None, {"command": "unstill <b>"}).html()
    assert diagnosis_verdict(found)[0] in html and "unstill &lt;b&gt;" in html and html.count("<video") == 3 * 3 + 1
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "") and "https://" not in html


def test_leakage_of_latents_alone():
    """Without decoding: copying the image leaks as much as the image can take; a correct level is the start."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 5, 8, 8, generator=generator)
    still = clean[:, :, :1].expand_as(clean)
    predicted = {"image": torch.cat([still, clean]), "removed": torch.cat([torch.zeros_like(clean), clean])}
    levels = [NoiseLevel(1.0, 0.0, 1.0), NoiseLevel(0.8, 0.2, 0.8)]
    rows = [measure_latents(clean, still, predicted, levels)]
    found = summarise_leakage(gathered(rows), levels, "start", name="made")
    assert [one.value for one in found.curves["image"]["explained"]] == pytest.approx([0, 1])
    assert [one.value for one in found.pull] == pytest.approx([1, 0])
    assert [one.value for one in found.leak] == pytest.approx(
        [min(1, float(still.square().sum() / (still - clean).square().sum())), 0]
    )
    assert found.start == 0.8 and "flow" not in found.curves["image"]
    with pytest.raises(UnstillError, match="level 0.8 is not finite"):
        measure_latents(clean, still, {"image": torch.cat([clean, clean * math.nan])}, levels)
