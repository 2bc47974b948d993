"""
The nodes in the real ComfyUI, on a tiny Wan with random weights.

Runs where the environment variable UNSTILL_COMFYUI names a checkout of ComfyUI; UNSTILL_COMFYUI_PYTHON the Python
that has its dependencies, by default the one of the tests.
"""

import inspect
import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.comfyui.graphs import given, sample
from tests.comfyui.server import ROOT, Server
from tests.comfyui.tiny_wan import comfyui_layout, tiny_wan
from unstill.latent_statistics import LatentStatistics


pytestmark = pytest.mark.skipif(not os.environ.get("UNSTILL_COMFYUI"), reason="UNSTILL_COMFYUI names no ComfyUI")
STEPS = 6


def write_inputs(folder: Path, steps: int = STEPS, shift: float = 5.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    latents = 1, 16, 5, 8, 8
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    mask = torch.ones(1, 1, 5, 8, 8)
    mask[:, :, 0] = 0
    image = torch.randn(1, 16, 1, 8, 8, generator=draw)
    values = {
        "positive": torch.randn(1, 8, 4096, generator=draw),
        "negative": torch.randn(1, 8, 4096, generator=draw),
        "latent": torch.zeros(latents),
        "noise": torch.randn(latents, generator=draw),
        "image": image,
        "condition": torch.cat([image, 0.3 * torch.randn(1, 16, 4, 8, 8, generator=draw)], 2),
        "mask": mask,
        "clip": torch.cat([image, image + 0.5 * torch.randn(1, 16, 4, 8, 8, generator=draw)], 2),
        "still": image.expand(latents).contiguous(),
        "sigmas": (shift * u / (1 + (shift - 1) * u)).float(),
        "frames": torch.rand(4, 32, 32, 3, generator=draw),
    }
    save_file(values, folder / "given.safetensors")
    return values


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    (base / "models/diffusion_models").mkdir(parents=True)
    (base / "models/latent_statistics").mkdir(parents=True)
    save_file(comfyui_layout(tiny_wan()), base / "models/diffusion_models/tiny_wan.safetensors")
    draw = torch.Generator().manual_seed(2)
    statistics = LatentStatistics().update(torch.randn(4, 16, 5, 8, 8, generator=draw) + 0.5)
    statistics.save(base / "models/latent_statistics/wan.safetensors")
    write_inputs(base)
    with Server(base) as running:
        yield running


@pytest.fixture(scope="module")
def sampled(server):
    count = iter(range(1000))

    def sampled(*nodes, **options):
        out = server.base / f"out{next(count)}.safetensors"
        history = server.run(sample(server.base, out, *nodes, **options))
        assert history["status"]["status_str"] == "success", history["status"]
        return load_file(out)["latent"]

    return sampled


@pytest.fixture(scope="module")
def plain(sampled):
    made = sampled()
    assert torch.equal(made, sampled()) and made.isfinite().all()
    return made


FREQUENCY = {"filter": "gaussian", "spatial": 0.25, "temporal": 0.25}
RECTIFIED = ("NoiseRectification", {"until": 0.6, "freedom": 0.5})
SET = [
    ("EarlyStart", {"start": 0.8, "sigma": 0.0}),
    ("ProgressiveNoise", {"kind": "progressive", "alpha": 2.0}),
    ("FrameInitNoise", {"level": 0.85, **FREQUENCY}),
    ("FreeInitNoise", {"video": given("clip"), "fresh_seed": 1, "level": 0.95, **FREQUENCY}),
    ("ConditionNoise", {"schedule": "t2", "strength": 0.5, "seed": 0}),
    ("ConditionNoise", {"schedule": "constant", "strength": 0.1, "seed": 0}),
    ("ConditionAmplitude", {"amplitude": 1.3}),
    ("LowPassGuidance", {"factor": 0.4, "until": 0.2}),
    ("ReferenceBias", {"gamma": 0.6, "until": 0.2}),
    ("ReferenceBias", {"gamma": -0.6, "until": 0.2}),
    RECTIFIED,
]
OFF = [
    ("EarlyStart", {"start": 1.0, "sigma": 0.0}),
    ("AnalyticInitNoise", {"statistics": "wan.safetensors", "resize": False}),  # at sigma 1 it is the noise itself
    ("ProgressiveNoise", {"kind": "mixed", "alpha": 0.0}),
    ("FrameInitNoise", {"level": 0.85, **FREQUENCY, "temporal": 0.0}),
    ("FreeInitNoise", {"video": given("clip"), "fresh_seed": 1, "level": 0.95, **FREQUENCY, "spatial": 0.0}),
    ("ConditionNoise", {"schedule": "t2", "strength": 0.0, "seed": 0}),
    ("ConditionAmplitude", {"amplitude": 1.0}),
    ("LowPassGuidance", {"factor": 1.0, "until": 0.2}),
    ("ReferenceBias", {"gamma": 0.0, "until": 0.2}),
    ("ReferenceBias", {"gamma": 0.6, "until": 0.0}),
    ("NoiseRectification", {"until": 0.0, "freedom": 0.5}),
]


@pytest.mark.parametrize("node", OFF, ids=lambda node: node[0])
def test_off_is_bit_equal(node, sampled, plain):
    assert torch.equal(sampled(node), plain)


@pytest.mark.parametrize("node", SET, ids=lambda node: node[0])
def test_a_setting_changes_the_video(node, sampled, plain):
    made = sampled(node)
    assert made.isfinite().all() and (made - plain).abs().max() > 1e-3


def test_analytic_init_after_an_early_start_differs_from_it(sampled):
    early = ("EarlyStart", {"start": 0.8, "sigma": 0.0})
    made = sampled(early, ("AnalyticInitNoise", {"statistics": "wan.safetensors", "resize": False}))
    assert (made - sampled(early)).abs().max() > 1e-3


def test_all_together(server, sampled, plain):
    names = dict(SET)
    known = server.get("/object_info")
    every = [(name, names[name]) for name in names if f"Unstill{name}" in known]
    every.insert(1, ("AnalyticInitNoise", {"statistics": "wan.safetensors", "resize": False}))
    made = sampled(*every)
    assert made.isfinite().all() and (made - plain).abs().max() > 1e-3
    assert sampled(*every, cfg=1.0).isfinite().all()  # a distilled model, without the unconditional pass


def test_the_probe_and_the_score(server):
    out = server.base / "probe.safetensors"
    graph = sample(server.base, out)
    graph["probe"] = {
        "class_type": "UnstillLeakProbe",
        "inputs": {
            "guider": ["guider", 0], "noise": given("noise"), "video": given("clip"), "still": given("still"),
            "levels": "1, 0.8, 0.4",
        },
    }  # fmt: skip
    graph["score"] = {"class_type": "UnstillMotionScore", "inputs": {"images": given("frames"), "fps": 8.0}}
    graph["save"] = {
        "class_type": "TestSave",
        "inputs": {
            "file": str(out), "text": ["probe", 0], "picture": ["probe", 1],
            **{name: ["score", i] for i, name in enumerate("abcd")},
        },
    }  # fmt: skip
    history = server.run(graph)
    assert history["status"]["status_str"] == "success", history["status"]
    with safe_open(out, "pt") as file:
        found = json.loads(file.metadata()["text"])
    saved = load_file(out)
    assert [level["start"] for level in found["levels"]] == [1.0, 0.8, 0.4]
    assert all(one["value"] > 0 for one in found["pull"]), "removing the image changes the prediction"
    assert found["verdict"] and saved["picture"].ndim == 4
    assert saved["a"] > 0 and torch.isclose(saved["a"], saved["a"])


@pytest.mark.parametrize(
    "node,widget,words",
    [
        (("EarlyStart", {"start": 1.5, "sigma": 0.0}), "start", "bigger than max"),
        (("EarlyStart", {"start": 0.0, "sigma": 0.0}), "start", "smaller than min"),
        (("ConditionAmplitude", {"amplitude": 2.5}), "amplitude", "bigger than max"),
        (("LowPassGuidance", {"factor": 0.0, "until": 0.2}), "factor", "smaller than min"),
        (("ReferenceBias", {"gamma": 99.0, "until": 0.2}), "gamma", "bigger than max"),
        (("ProgressiveNoise", {"kind": "none", "alpha": 1.0}), "kind", "is one of progressive, mixed"),
        (
            ("AnalyticInitNoise", {"statistics": "../given.safetensors", "resize": False}),
            "statistics",
            "one of wan",
        ),
    ],
)
def test_bad_values_are_refused(server, node, widget, words):
    status, answer = server.queue(sample(server.base, server.base / "never", node))
    errors = [error for one in answer["node_errors"].values() for error in one["errors"]]
    assert status == 400 and len(errors) == 1
    assert words in errors[0]["message"] + errors[0]["details"] and widget in errors[0]["details"]
    assert not (server.base / "never").exists()


def test_what_only_a_run_can_tell_is_a_sentence(server):
    # An image of another size than the video; LatentUpscale counts in pixels.
    graph = sample(server.base, server.base / "never", RECTIFIED)
    resized = {
        "samples": given("image"),
        "upscale_method": "bilinear",
        "width": 128,
        "height": 128,
        "crop": "disabled",
    }
    graph["other"] = {"class_type": "LatentUpscale", "inputs": resized}
    graph["unstill0"]["inputs"]["image"] = ["other", 0]
    history = server.run(graph)
    messages = [message for kind, message in history["status"]["messages"] if kind == "execution_error"]
    assert len(messages) == 1 and "encode the image at the size of the video" in messages[0]["exception_message"]


def wan_normalised(latents):
    """ComfyUI gives back latents of the VAE."""
    config = dict(inspect.signature(AutoencoderKLWan).parameters)
    mean, std = (torch.tensor(config[name].default).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return (latents - mean) / std


def test_a_wan_sample_is_the_one_of_diffusers_and_apply(server, sampled):
    """10 steps, the same weights, noise and levels: nodes against `apply` are as close as plain against plain."""
    import unstill
    from tests.comfyui.diffusers_wan import diffusers_sample, scheduler

    values = load_file(server.base / "given.safetensors")
    levels = scheduler()
    levels.set_timesteps(10)
    values["sigmas"] = levels.sigmas.clone()
    save_file(values, server.base / "ten.safetensors")  # another name: ComfyUI keeps what it has read
    statistics = LatentStatistics.load(server.base / "models/latent_statistics/wan.safetensors")
    cases = {
        "plain": ((), ()),
        "analytic": (
            [("EarlyStart", {"start": 0.8, "sigma": 0.0}),
             ("AnalyticInitNoise", {"statistics": "wan.safetensors", "resize": False})],
            [unstill.AnalyticInit(statistics=statistics, start=0.8)],
        ),
        "rectified": ([RECTIFIED], [unstill.NoiseRectification()]),
    }  # fmt: skip
    plain = None
    for name, (nodes, methods) in cases.items():
        ours = wan_normalised(sampled(*nodes, file="ten.safetensors"))
        theirs = diffusers_sample(tiny_wan(), values, methods)
        off = float((ours - theirs).abs().max())
        print(f"{name}: greatest difference {off:.2g} of values up to {float(theirs.abs().max()):.2g}")
        plain = off if plain is None else plain
        assert off < max(5 * plain, 1e-4), name


@pytest.mark.parametrize("name", ["wan_21", "wan_22", "ltx", "svd", "hunyuan_video"])
def test_example_workflows_lack_nothing_but_files(server, name):
    graph = json.loads((ROOT / f"comfyui/workflows/{name}.json").read_text("utf-8"))
    status, answer = server.queue(graph)
    errors = [error for one in answer["node_errors"].values() for error in one["errors"]]
    assert status == 400 and errors
    for error in errors:
        assert "not in list" in error["message"] or "Invalid image file" in error["details"], error
