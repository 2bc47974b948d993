"""The nodes without ComfyUI: schemas frozen, and `execute` against the library's functions."""

import asyncio
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from tests.comfyui import stand_in
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.methods.analytic_init import initial_latents
from unstill.methods.conditioning_augmentation import augment
from unstill.methods.frequency import low_pass, mix
from unstill.methods.noise_rectification import frame_weights, rectify_x0
from unstill.methods.progressive_noise import progressive
from unstill.metrics.camera import motion_parts
from unstill.sigma_schedule import respace_sigmas


HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SIZE = 2, 4, 5, 6, 8


@pytest.fixture(scope="module")
def nodes():
    stand_in.install()
    return {node.define_schema().node_id: node for node in importlib.import_module("comfyui.nodes").NODES}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_entry_point_gives_every_node(nodes):
    package = importlib.import_module("comfyui")
    extension = asyncio.run(package.comfy_entrypoint())
    assert [node.define_schema().node_id for node in asyncio.run(extension.get_node_list())] == list(nodes)
    assert len(nodes) >= 10


def test_schemas_are_what_saved_workflows_expect(nodes):
    """Names, types, defaults and ranges: a change of one breaks workflows. New ones are added to the file by hand."""
    frozen = json.loads((HERE / "schemas.json").read_text("utf-8"))
    assert set(nodes) <= set(frozen)
    for name, node in nodes.items():
        assert json.loads(json.dumps(node.define_schema().frozen())) == frozen[name], name


def test_every_node_says_what_it_is_good_for(nodes):
    for node in nodes.values():
        schema = node.define_schema()
        assert schema.description.startswith(("For ", "Measures", "Tells")) and schema.category.startswith("unstill")
        widgets = [one for one in schema.inputs if one.kind in ("Float", "String")]
        assert all(one.declared.get("tooltip") or one.id in ("fps",) for one in widgets)


def test_the_files_are_short_and_fetch_nothing():
    files = [*(ROOT / "comfyui").glob("*.py"), *(ROOT / "comfyui/nodes").glob("*.py")]
    assert len(files) >= 9
    for file in files:
        text = file.read_text("utf-8")
        assert text.count("\n") < 150, file
        assert not any(word in text for word in ("urllib", "requests", "diffusers", "subprocess", "http"))


def test_early_start(nodes):
    node, u = nodes["UnstillEarlyStart"], torch.linspace(1, 0, 11)
    sigmas = 5 * u / (1 + 4 * u)
    (made,) = node.execute(sigmas, 0.8)
    assert torch.equal(made, respace_sigmas(sigmas, 0.8)) and len(made) == 11
    assert node.execute(sigmas, 1.0)[0] is sigmas
    assert node.execute(700 * sigmas, 0.9, 100.0)[0][0] == 100
    with pytest.raises(UnstillError, match="set `sigma`, such as 100"):
        node.execute(700 * sigmas, 0.9)


@pytest.mark.parametrize("sampling,first", [(stand_in.Flow(), 0.8), (stand_in.Exploding(), 100.0)])
def test_analytic_init(nodes, sampling, first, tmp_path):
    statistics = LatentStatistics().update(draw(6, *SIZE[1:]) + 0.3)
    sys.modules["folder_paths"].files["some.safetensors"] = statistics.save(tmp_path / "some.safetensors")
    node, model, sigmas = nodes["UnstillAnalyticInitNoise"], stand_in.Model(sampling), torch.tensor([first, 0.0])
    (noise,) = node.execute(stand_in.Noise(), model, sigmas, "some.safetensors")
    unit = stand_in.Noise().generate_noise({"samples": torch.zeros(SIZE)})
    start = sampling.noise_scaling(first, noise.generate_noise({"samples": torch.zeros(SIZE)}), 0)
    alpha = 1 - first if first < 1 else 1.0
    wanted = initial_latents(statistics.mean.float(), float(statistics.variance), alpha, first, unit)
    torch.testing.assert_close(start, wanted)
    assert node.validate_inputs("some.safetensors") is True and "is one of" in node.validate_inputs("../other")
    with pytest.raises(UnstillError, match="this call makes 3x6x8"):
        noise.generate_noise({"samples": torch.zeros(2, 4, 3, 6, 8)})


def test_frame_init_free_init_and_progressive_noise(nodes):
    model, empty, image = stand_in.Model(), {"samples": torch.zeros(SIZE)}, {"samples": draw(1, 4, 1, 6, 8, seed=5)}
    unit = stand_in.Noise().generate_noise(empty)
    mask = low_pass((5, 6, 8), "gaussian", 0.25, 0.25)
    (noise,) = nodes["UnstillFrameInitNoise"].execute(
        stand_in.Noise(), model, image, 0.85, "gaussian", 0.25, 0.25
    )  # fmt: skip
    still = ((image["samples"] - 1) / 2).expand(SIZE)
    torch.testing.assert_close(noise.generate_noise(empty), mix(0.15 * still + 0.85 * unit, unit, mask))
    (noise,) = nodes["UnstillFreeInitNoise"].execute(
        stand_in.Noise(), model, {"samples": draw(*SIZE, seed=6)}, 9, 0.9, "gaussian", 0.25, 0.25
    )
    clean = (draw(*SIZE, seed=6) - 1) / 2
    torch.testing.assert_close(noise.generate_noise(empty), mix(0.1 * clean + 0.9 * unit, draw(*SIZE, seed=9), mask))
    (noise,) = nodes["UnstillProgressiveNoise"].execute(stand_in.Noise(), "progressive", 2.0)
    assert torch.equal(noise.generate_noise(empty), progressive(unit[:, :, :1], unit, 2.0))
    (noise,) = nodes["UnstillProgressiveNoise"].execute(stand_in.Noise(), "mixed", 2.0)
    made = noise.generate_noise({"samples": torch.zeros(1, 4, 40, 16, 16)})
    assert abs(float(made.var()) - 1) < 0.1  # the shared part is not one of the frames it is mixed with
    assert float((made[:, :, 0] * made[:, :, 9]).mean()) == pytest.approx(0.8, abs=0.1)
    (noise,) = nodes["UnstillProgressiveNoise"].execute(stand_in.Noise(), "mixed", 0.0)
    assert torch.equal(noise.generate_noise(empty), unit)


def test_noise_of_stable_video_diffusion_has_its_frames_in_the_batch(nodes):
    empty = {"samples": torch.zeros(5, 4, 6, 8)}
    (noise,) = nodes["UnstillProgressiveNoise"].execute(stand_in.Noise(), "progressive", 2.0)
    unit = stand_in.Noise().generate_noise(empty).transpose(0, 1)[None]
    assert torch.equal(noise.generate_noise(empty), progressive(unit[:, :, :1], unit, 2.0)[0].transpose(0, 1))


@pytest.mark.parametrize("layout", ["wan", "hunyuan", "svd", "ltx"])
@pytest.mark.parametrize("schedule", ["constant", "t2"])
def test_condition_noise_in_every_layout(nodes, layout, schedule):
    (model,) = nodes["UnstillConditionNoise"].execute(stand_in.Model(), schedule, 0.2, 4)
    x, more = draw(*SIZE), {}
    if layout == "ltx":
        mask = torch.ones(1, 1, 5, 1, 1)
        mask[:, :, 0] = 0
        more, part = {"denoise_mask": mask}, (slice(None), slice(None), slice(0, 1))
        before = x
    else:
        channels = {"wan": 8, "hunyuan": 5, "svd": 4}[layout]
        x = draw(6, 4, 6, 8) if layout == "svd" else x
        before = more["c_concat"] = draw(len(x), channels, *x.shape[2:], seed=8)
        image = slice(4, 8) if layout == "wan" else slice(0, 4)
        part = (slice(None), image) if layout == "svd" else (slice(None), image, slice(0, 1))
    kept = before.clone()
    seen = model.seen(x, 0.5, **more)
    after = seen["x"] if layout == "ltx" else seen["c_concat"]
    changed = after - before
    outside = torch.ones_like(before, dtype=torch.bool)
    outside[part] = False
    assert (changed[outside] == 0).all() and changed[part].std() > 0.01
    assert torch.equal(before, kept)  # what the sampler keeps is not written into
    if schedule == "constant":
        one = before[part] if layout != "svd" else before[part][:, :, None]
        level = torch.tensor([0.2])
        noise = draw(1, *(x.shape[1:] if layout == "ltx" else one.shape[1:]), seed=4)
        noise = noise[:, :, :1]
        wanted = augment(one, 1 - level, level, noise)
        torch.testing.assert_close(after[part], wanted[:, :, 0] if layout == "svd" else wanted)


def test_condition_noise_needs_an_image(nodes):
    (model,) = nodes["UnstillConditionNoise"].execute(stand_in.Model(), "t2", 0.2, 4)
    with pytest.raises(UnstillError, match="shown no image latents"):
        model.seen(draw(*SIZE), 0.5)
    blank = torch.zeros(2, 8, 5, 6, 8)
    assert torch.equal(model.seen(draw(*SIZE), 0.5, blank)["c_concat"], blank)  # a pass without any image


def test_noise_rectification(nodes):
    image = {"samples": draw(1, 4, 1, 6, 8, seed=5)}
    (model,) = nodes["UnstillNoiseRectification"].execute(stand_in.Model(), image, 0.5, 0.5)
    (correct,) = model.post_cfg
    sigmas, still = torch.tensor([0.9, 0.6, 0.3, 0.1, 0.0]), (image["samples"] - 1) / 2
    first = draw(*SIZE, seed=1)
    noise = (first - 0.1 * still) / 0.9
    for step, sigma in enumerate([0.9, 0.6, 0.3]):
        sample, x0 = first if step == 0 else draw(*SIZE, seed=2 + step), draw(*SIZE, seed=20 + step)
        options = {"transformer_options": {"sample_sigmas": sigmas}}
        made = correct({"denoised": x0, "input": sample, "sigma": torch.tensor([sigma]), "model_options": options})
        if step < 2:
            wanted = rectify_x0(x0, sample, noise, still, frame_weights(5), 1 - sigma, sigma)
            torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
        else:
            assert made is x0


def test_reference_bias(nodes):
    """The logits of the first frame's keys, in the conditional row alone, and in the first steps alone."""
    (model,) = nodes["UnstillReferenceBias"].execute(stand_in.Model(), 0.6, 0.25)
    x, passes = draw(*SIZE), {"options": {"cond_or_uncond": [0, 1]}}
    assert "optimized_attention_override" not in model.seen(x, 0.7, **passes)["options"]
    override = model.seen(x, 1.0, **passes)["options"]["optimized_attention_override"]
    asked = []
    sys.modules.setdefault("comfy.ldm.modules.attention", sys.modules[__name__])
    q = k = draw(2, 60, 16)
    override(lambda *a, **kw: asked.append(kw.get("mask")), q, k, k, heads=2)
    override(lambda *a, **kw: asked.append(kw.get("mask")), q, k[:, :8], k[:, :8], heads=2)  # to the text
    assert asked[1] is None and asked[0].shape == (2, 1, 1, 60)
    assert torch.equal(asked[0][0, 0, 0], torch.cat([torch.full((12,), -0.6), torch.zeros(48)]))
    assert (asked[0][1] == 0).all()


def get_attention_function(name, default):
    return default


def test_motion_score(nodes):
    video = torch.zeros(6, 64, 64, 3)
    picture = torch.nn.functional.interpolate(draw(1, 3, 12, 12), size=64, mode="bicubic").sigmoid()[0]
    for i in range(6):
        video[i] = picture.roll(2 * i, -1).permute(1, 2, 0)
    motion, camera, objects, onset = nodes["UnstillMotionScore"].execute(video, 8.0)
    parts = motion_parts((video.permute(0, 3, 1, 2) * 255).round().byte(), "dis", None)
    assert (motion, camera, objects) == pytest.approx((parts.total, parts.camera, parts.objects)) and onset == 0
    assert motion == pytest.approx(2, abs=0.5)
    assert nodes["UnstillMotionScore"].execute(video[:1].expand(4, -1, -1, -1), 8.0)[3] == -1


@pytest.mark.parametrize("levels", ["1", "0.5, 0.9", "1, x", "1, 0", "", "1, nan"])
def test_levels_of_the_probe(nodes, levels):
    assert "falling numbers above 0" in nodes["UnstillLeakProbe"].validate_inputs(levels)
    assert nodes["UnstillLeakProbe"].validate_inputs("1, 0.5") is True


def make():
    spec = importlib.util.spec_from_file_location("make", ROOT / "comfyui/workflows/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_workflows_are_those_of_their_script_and_use_the_nodes_as_they_are(nodes):
    made = make().WORKFLOWS
    assert {file.stem for file in (ROOT / "comfyui/workflows").glob("*.json")} == set(made)
    for name, build in made.items():
        graph = json.loads((ROOT / f"comfyui/workflows/{name}.json").read_text("utf-8"))
        assert graph == build(), f"run python comfyui/workflows/make.py ({name})"
        assert sum(one["class_type"] in nodes for one in graph.values()) >= 2
        for one in graph.values():
            if one["class_type"] in nodes:
                assert set(one["inputs"]) == {x.id for x in nodes[one["class_type"]].define_schema().inputs}
            assert all(x[0] in graph for x in one["inputs"].values() if isinstance(x, list))
