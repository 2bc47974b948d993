"""docs/extend.md: every recipe is run as it stands there."""

import re
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch
from torch.nn.functional import interpolate

import unstill
from tests.pipelines import CASES, LONG, hunyuan_embeddings, hunyuan_video, picture, pipeline, sample
from unstill.families.base import VideoAdapter
from unstill.families.registry import ADAPTERS
from unstill.metrics.torchmetrics_wrappers import VideoMean
from unstill.metrics.video_checks import as_float


PAGE = (Path(__file__).parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")


def run(name: str, **names) -> dict:
    """The names that the marked block of the page leaves behind."""
    code = re.search(rf"<!-- tests/docs/test_extend.py: {name} -->\n```py\n(.*?)```", PAGE, re.DOTALL)[1]
    names |= {"__name__": __name__, "torch": torch, "unstill": unstill, "ADAPTERS": ADAPTERS}
    exec(code, names)
    return names


def test_a_method() -> None:
    tiny = pipeline("PicoPipeline")
    names = run("method", pipe=tiny, image=picture(64), dataclass=dataclass, interpolate=interpolate)
    assert len(names["video"]) == tiny.transformer.config.num_frames
    pipe, case = pipeline("StableVideoDiffusionPipeline"), CASES["StableVideoDiffusionPipeline"]
    plain = sample(case, pipe)
    with unstill.apply(pipe, names["BlurredCondition"](until=0.0)):
        assert torch.equal(sample(case, pipe), plain)
    with unstill.apply(pipe, names["BlurredCondition"](until=0.5)):
        assert not torch.equal(sample(case, pipe), plain)


def test_a_pipeline(monkeypatch) -> None:
    monkeypatch.delitem(ADAPTERS, "HunyuanVideoPipeline", raising=False)
    parts = dict(hunyuan_video("token_replace").components)
    del parts["image_processor"]
    torch.manual_seed(0)
    pipe = diffusers.HunyuanVideoPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    call = {**LONG, **hunyuan_embeddings(), "num_inference_steps": 2, "output_type": "latent"}
    with pytest.raises(unstill.UnstillError, match="HunyuanVideoPipeline is not a supported pipeline"):
        unstill.apply(pipe)
    plain = pipe(**call, generator=torch.Generator().manual_seed(0)).frames[0]
    monkeypatch.setitem(ADAPTERS, "HunyuanVideoPipeline", None)  # so that the recipe's row goes with this test
    moved = run("pipeline", pipe=pipe, call=call, VideoAdapter=VideoAdapter)["video"]
    assert moved.isfinite().all() and not torch.equal(moved, plain)
    with unstill.apply(pipe):
        assert torch.equal(pipe(**call, generator=torch.Generator().manual_seed(0)).frames[0], plain)


def test_an_image_pipeline(monkeypatch) -> None:
    """The recipe's adapter and the library's own do the same with a method of every hook."""
    name = "WanImageToVideoPipeline"
    pipe, case = pipeline(name), CASES[name]
    methods = unstill.NoiseRectification(period=(0, 1)), unstill.ConditioningAugmentation(level=0.5)
    monkeypatch.setitem(ADAPTERS, name, ADAPTERS[name])
    videos = []
    for recipe in (False, True):
        if recipe:
            run("image pipeline", VideoAdapter=VideoAdapter)
        with unstill.apply(pipe, *methods):
            videos.append(sample(case, pipe))
    assert torch.equal(*videos) and not torch.equal(videos[0], sample(case, pipe))


def test_a_metric(capsys) -> None:
    still, away = torch.zeros(3, 3, 4, 4), torch.zeros(3, 3, 4, 4)
    away[-1] = 0.5
    names = run("metric", videos=[still, away], as_float=as_float, VideoMean=VideoMean)
    assert names["loop_error"](away) == 0.5
    assert capsys.readouterr().out == "tensor(0.2500, dtype=torch.float64)\n"
    with pytest.raises(unstill.UnstillError):
        names["loop_error"](still[0])
