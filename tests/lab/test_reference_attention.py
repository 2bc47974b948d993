"""The attention to the first frame, by blocks and levels, and the gap between videos with and without an image."""

import json
import math
from html import escape
from types import SimpleNamespace

import pytest
import torch

import unstill
from tests.pipelines import CASES, pico, pipeline, random_pico, sample
from unstill.data.video import write_video
from unstill.errors import UnstillError
from unstill.lab.bootstrap import Interval
from unstill.lab.diagnosis_image import attention_sentence, gap_sentence
from unstill.lab.image_gap import ImageGap, VideoPairs, summarise_image_gap
from unstill.lab.leakage import probe_clip
from unstill.lab.probe_clips import World, picture_of
from unstill.lab.reference_attention import (
    AttentionRecorder,
    has_reference_attention,
    measure_reference_attention,
    summarise_attention,
)


@pytest.mark.parametrize(
    "name", ["WanImageToVideoPipeline", "CogVideoXImageToVideoPipeline", "LTXImageToVideoPipeline"]
)
def test_tiny_networks_attend_evenly(name: str) -> None:
    """Random weights know no first frame: their attention is near the uniform share, less that of text."""
    pipe, case = pipeline(name), CASES[name]
    plain = sample(case, pipe)
    found = measure_reference_attention(pipe, lambda: sample(case, pipe))
    assert found.mass.shape == (2, 1) and len(found.levels) == 2
    assert found.uniform == 1 / case.latents[1]
    assert ((found.mass > 0.3 * found.uniform) & (found.mass < 1.5 * found.uniform)).all()
    assert torch.equal(sample(case, pipe), plain)


def test_the_bias_is_what_the_first_frame_lacks_in_the_next_block() -> None:
    """Measured before the bias, which changes what later blocks see, and not the first block of the first step."""
    pipe = random_pico(num_layers=2)

    def call() -> None:
        image = torch.rand(1, 3, pipe.size, pipe.size, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(0)
        pipe(image, motion=None, num_frames=4, num_inference_steps=2, output_type="latent", generator=generator)

    plain = measure_reference_attention(pipe, call)
    biased = measure_reference_attention(pipe, call, unstill.ReferenceBias(gamma=5.0, steps=1.0))
    assert plain.mass.shape == (2, 2)
    assert torch.equal(biased.mass[0, 0], plain.mass[0, 0]) and not torch.equal(biased.mass[0, 1], plain.mass[0, 1])


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(UnstillError, match="is about the attention to the first frame"):
        measure_reference_attention(pipeline("Kandinsky5I2VPipeline"), lambda: None)


def test_the_gap_is_paired() -> None:
    gap = summarise_image_gap([(1.0, 0.5), (2.0, 1.5), (4.0, 3.5)])
    assert gap.without.value == pytest.approx(7 / 3) and gap.with_image.value == pytest.approx(7 / 3 - 0.5)
    assert (gap.gap.value, gap.gap.low, gap.gap.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert gap.without.low < gap.without.value < gap.without.high


def test_attention_of_clips_is_averaged_by_level_and_attention() -> None:
    found = summarise_attention([[[0.1, 0.2], [0.3, 0.4]], [[0.3, 0.2], [0.5, 0.8]]], 0.25)
    assert [one.value for row in found.mass for one in row] == pytest.approx([0.2, 0.2, 0.4, 0.6])
    assert [one.value for one in found.mean] == pytest.approx([0.2, 0.5])
    assert found.mass[0][1].low == pytest.approx(0.2) and found.mass[0][0].low < 0.2
    assert found.as_dict()["uniform"] == 0.25 and not summarise_attention([[[0.1]]], 0.5).mean[0].known


def test_a_diagnosis_measures_attention_at_its_levels_and_changes_no_prediction(monkeypatch) -> None:
    """As a direct computation of the softmax, and with the measurement or without it, the same records bit for bit."""
    pipe, clips = random_pico(num_layers=2), World(count=1, frames=4, size=(64, 64))

    def probed():
        def call(subject, picture):
            return {"image": picture, "guidance_scale": 1.0, "num_frames": 4, "output_type": "pt"}

        return probe_clip(pipe, clips[0], call, (50.0, 5.0, 0.5), ("image", "removed"), (), 0)

    queries: list[torch.Tensor] = []
    plain_attention = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, *args, **kwargs):
        queries.append(((query @ key.mT) * query.shape[-1] ** -0.5).softmax(-1))
        return plain_attention(query, key, value, *args, **kwargs)

    found = probed()
    monkeypatch.setattr("unstill.lab.reference_attention.has_reference_attention", lambda pipe: False)
    monkeypatch.setattr("unstill.models.pico.transformer.scaled_dot_product_attention", watched)
    plain = probed()
    assert plain.attention is None and found.attention is not None
    assert found.attention.mass.shape == (3, 2) and found.attention.uniform == 1 / 4
    for source, by in found.records.items():
        for quantity, values in by.items():
            assert (values == plain.records[source][quantity]).all()
    tokens = 4 * (pipe.transformer.config.sample_size // pipe.transformer.config.patch_size) ** 2
    assert len(queries) == 3 * 2 * 2  # levels, layers, with and without the image
    for number, weights in enumerate(queries[:6]):
        text, first = weights.shape[-1] - tokens, tokens // 4
        share = weights[..., text + first :, text : text + first].sum(-1).mean()
        assert found.attention.mass[number // 2, number % 2].item() == pytest.approx(share.item(), rel=1e-4)


def pairs(pipe, *methods: unstill.Method) -> VideoPairs:
    return VideoPairs(
        pipe=pipe,
        text_pipe=lambda: pipe,
        text_of=lambda index: ("a red ring drifting left", "a blue star over green")[index],
        methods=methods,
        frames=3,
        size=(64, 64),
        seed=4,
    )


def test_a_pair_is_of_one_text_and_the_first_frame_of_the_video_without_image() -> None:
    calls = []

    class Pipe:
        def __call__(self, image=None, prompt="", motion=None, num_frames=None, output_type="pt", generator=None):
            calls.append((image, prompt, motion, num_frames, generator.initial_seed()))
            return SimpleNamespace(frames=[torch.full((3, 3, 8, 8), 0.2 if image is None else 0.6)])

    free, held = pairs(Pipe()).make(1)
    assert (free == 51 / 255).all() and (held == 153 / 255).all()
    assert calls[0] == (None, "a blue star over green", None, 3, 5)
    assert calls[1][1:] == calls[0][1:] and calls[1][0].getpixel((0, 0)) == (51, 51, 51)


def test_methods_act_in_the_video_with_an_image() -> None:
    pipe = random_pico()
    free, held = pairs(pipe).make(0)
    again, changed = pairs(pipe, unstill.ReferenceBias(gamma=8.0, steps=1.0)).make(0)
    assert torch.equal(free, again) and not torch.equal(held, changed) and not torch.equal(free, held)


def test_what_attention_and_gap_say() -> None:
    def at(*values: float) -> Interval:
        return Interval(*values)

    sure = ImageGap(at(0.6, 0.5, 0.7), at(0.2, 0.1, 0.3), at(-0.4, -0.5, -0.3))
    assert gap_sentence(sure).startswith("The image takes motion away: videos of a text alone move 0.6 (0.5 to 0.7)")
    assert gap_sentence(ImageGap(sure.with_image, sure.without, at(0.4, 0.3, 0.5))).startswith("The image adds motion")
    for one in (at(-0.4, -0.5, 0.1), at(-0.4, math.nan, math.nan)):
        assert "no certain effect" in gap_sentence(ImageGap(sure.without, sure.with_image, one))


@pytest.fixture
def clips(tmp_path):
    for i in range(2):
        pixels = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(i))
        write_video(tmp_path / "clips" / f"{i}.mp4", pixels, fps=8)
    return tmp_path / "clips"


def test_diagnose_reports_attention_and_gap(clips, tmp_path) -> None:
    """The function: in the result, the JSON file and the page. A second call computes nothing anew."""
    random_pico(num_layers=2).save_pretrained(tmp_path / "model")
    asked = {"clips": clips, "prompt": "a red ring", "count": 2, "levels": (50, 5), "response": 0, "gap": 2}
    asked |= {"frames": 3, "out": tmp_path / "a.html"}
    found = unstill.diagnose(str(tmp_path / "model"), **asked)
    assert found is not None and found.attention is not None and found.gap is not None
    assert len(found.attention.mass) == 2 and len(found.attention.mass[0]) == 2
    assert found.gap.gap.value == pytest.approx(found.gap.with_image.value - found.gap.without.value)
    record, html = json.loads((tmp_path / "a.json").read_text()), (tmp_path / "a.html").read_text()
    assert record["attention"] == found.attention.as_dict() and record["image_gap"] == found.gap.as_dict()
    assert (
        escape(attention_sentence(found.attention, found.diagnosis)) in html
        and escape(gap_sentence(found.gap)) in html
    )
    assert "<title>2, 50: " in html  # of the heatmap
    assert html.count("Motion with and without an image") == 1 and html.count("<video") == 3 * 2 + 1 + 2
    cells = {one: one.stat().st_mtime_ns for one in (tmp_path / "a.cells").rglob("*.json")}
    assert len(cells) == 2 + 2
    again = unstill.diagnose(str(tmp_path / "model"), **asked)
    assert again is not None and again.as_dict() == found.as_dict()
    assert cells == {one: one.stat().st_mtime_ns for one in (tmp_path / "a.cells").rglob("*.json")}


def test_a_twin_makes_the_videos_of_a_text_alone(clips, tmp_path) -> None:
    for seed in (0, 1):
        random_pico(seed).save_pretrained(tmp_path / str(seed))
    asked = {"clips": clips, "prompt": "a red ring", "count": 2, "levels": (5,), "response": 0, "gap": 2, "frames": 3}
    own = unstill.diagnose(str(tmp_path / "0"), **asked, out=tmp_path / "a.html")
    other = unstill.diagnose(str(tmp_path / "0"), **asked, text_model=str(tmp_path / "1"), out=tmp_path / "a.html")
    assert own is not None and other is not None and own.gap is not None and other.gap is not None
    assert own.gap.without != other.gap.without
    assert json.loads((tmp_path / "a.json").read_text())["text_model"] == str(tmp_path / "1")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"text_model": "pico"}, "also give the number of pairs"),
        ({"gap": 2, "clips": "."}, "needs a text; give a prompt"),
        ({"gap": 2, "model": "svd"}, "does not take both an image and a text"),
        ({"gap": 2, "model": "dynamicrafter-512", "prompt": "a boat"}, "name the text-to-video model"),
        ({"gap": 2, "text_model": "svd"}, "svd makes no video of a text alone; leave out the gap"),
    ],
)
def test_a_gap_that_cannot_be_is_refused_before_the_model_is_loaded(asked, sentence, tmp_path, monkeypatch) -> None:
    write_video(tmp_path / "clip.mp4", torch.rand(4, 3, 16, 16), fps=8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unstill.models.registry.load", lambda *args, **kwargs: pytest.fail("was loaded"))
    with pytest.raises(UnstillError, match=sentence):
        unstill.diagnose(**asked)


def test_a_network_with_attention_of_its_own_is_diagnosed_without_it(monkeypatch) -> None:
    pipe = pico()

    def own(query, key, value):
        return ((query @ key.mT) * query.shape[-1] ** -0.5).softmax(-1) @ value

    monkeypatch.setattr("unstill.models.pico.transformer.scaled_dot_product_attention", own)
    clip = World(count=1, frames=4, size=(64, 64))[0]

    def call(subject, picture):
        return {"image": picture, "num_frames": 4, "output_type": "pt"}

    assert has_reference_attention(pipe)
    assert probe_clip(pipe, clip, call, (50.0, 5.0), ("image",), (), 0).attention is None
    with pytest.raises(UnstillError, match="No attention over the frames was seen"):
        measure_reference_attention(pipe, lambda: pipe(**call(clip, picture_of(clip)), num_inference_steps=2))
    assert not has_reference_attention(pipeline("Kandinsky5I2VPipeline"))


def test_steps_with_different_numbers_of_attentions_are_left_out_of_a_diagnosis() -> None:
    """As where guidance calls the network twice in some steps."""
    recorder = AttentionRecorder(
        levels=[2.0, 1.0], masses={0: [torch.ones(())], 1: [torch.ones(())] * 2}, frames=[2, 2]
    )
    assert not recorder.complete and not AttentionRecorder().complete
    with pytest.raises(UnstillError, match=r"different numbers of attentions \(\[1, 2\]\)"):
        recorder.result()
    pipe, clip = random_pico(), World(count=1, frames=4, size=(64, 64))[0]

    def call(subject, picture):
        return {"image": picture, "guidance_scale": 2.0, "num_frames": 4, "output_type": "pt"}

    found = probe_clip(pipe, clip, call, (200.0, 50.0, 5.0, 0.5), ("image",), (), 0)
    assert len(found.levels) == 4 and set(found.records) == {"truth", "image"}
