"""`unstill animate --prompt`: from words to a chosen picture to a video."""

import json
from pathlib import Path

import diffusers
import pytest
import torch

from tests.cli.conftest import _clip, _words
from unstill.data.video import read_video
from unstill.models import registry


WORDS = ("--steps", 3, "--frames", 3, "--candidates", 3)
CAPTION = "a red ring drifting left over green"


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_candidates_are_kept_and_another_one_can_be_picked(unstill, model, tmp_path):
    out = tmp_path / "ring.mp4"
    say = ("animate", "--model", model, "--prompt", CAPTION, *WORDS, "--method", "ni_vsds:tau=0.1", "--out", out)
    result = unstill(*say, "--json")
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path) == {"ring.mp4", "ring_plain.mp4", "ring.json", "ring_candidates"}
    kept = tmp_path / "ring_candidates"
    assert {"candidates.png", "anchor.png", "candidate_00.png", "candidate_02.png"} <= files(kept)
    told = json.loads(result.stdout)
    assert len(told["candidates"]["scores"]) == 3 and told["candidates"]["reward"] == "world"
    assert told["methods"][0]["parameters"]["tau"] == 0.1 and told["call"]["guidance_scale"] == 2
    assert all(0 <= told["scores"][name]["reward"] <= 1 for name in ("plain", "improved"))
    assert told["methods"][0]["name"] == "ni_vsds" and len(read_video(out)) == 3

    made = (kept / "candidates.safetensors").stat().st_mtime_ns
    other = (told["candidates"]["choice"] + 1) % 3
    result = unstill(*say, "--pick", other, "--compare")
    assert result.exit_code == 0 and f"Made from candidate {other} of 3" in result.stdout
    assert "score" in result.stdout and "by world, those of the plain one" in result.stdout
    assert read_video(tmp_path / "ring_compare.mp4").frames.shape[-1] > 4 * 256
    assert (kept / "candidates.safetensors").stat().st_mtime_ns == made


def test_a_text_to_video_pipeline_whose_candidates_make_way_for_those_of_another_seed(
    unstill, diffusers_models, tmp_path
):
    words = ("--prompt", "boat", "--size", "32x16", "--reward", "proxy", "--early", "--upscale", 1, "--no-plain")
    say = ("animate", "--model", diffusers_models["animatediff"], *WORDS, *words, "--out", tmp_path / "x.gif")
    result = unstill(*say, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)["candidates"]
    assert told["reward"] == "proxy" and sorted(one or 9 for one in told["stopped"]) == [2, 9, 9]
    assert read_video(tmp_path / "x.gif").frames.shape == (3, 3, 16, 32)
    kept = tmp_path / "x_candidates"
    made = (kept / "candidates.safetensors").read_bytes()
    assert unstill(*say, "--seed", 5).exit_code == 0
    assert (kept / "candidates.safetensors").read_bytes() != made
    made = (kept / "candidates.safetensors").read_bytes()
    result = unstill(*say, "--seed", 6, "--size", "33x33")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert (kept / "candidates.safetensors").read_bytes() == made


def text_to_image(folder: Path) -> Path:
    torch.manual_seed(0)
    small = {"block_out_channels": (8, 8), "norm_num_groups": 2, "layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        **small,
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    parts = {"text_encoder": _clip(8), "tokenizer": _words(), "safety_checker": None, "feature_extractor": None}
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(latent_channels=4, **blocks, **small),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        requires_safety_checker=False,
        **parts,
    )
    pipe.save_pretrained(folder)
    return folder


def test_pictures_of_another_model(unstill, model, tmp_path):
    out = tmp_path / "x.gif"
    words = ("--prompt", CAPTION, "--model", model, "--steps", 3, "--frames", 3, "--candidates", 2, "--out", out)
    result = unstill("animate", *words, "--text-to-image", text_to_image(tmp_path / "sd"), "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert len(told["candidates"]["scores"]) == 2
    assert told["scores"]["plain"]["first_frame_error"] >= 0  # plainly, from the same picture
    kept = (tmp_path / "x_candidates" / "candidates.safetensors").read_bytes()
    result = unstill("animate", *words, "--text-to-image", tmp_path / "nothing")
    assert result.exit_code == 2 and f"model {tmp_path / 'nothing'} could not be loaded" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "x_candidates" / "candidates.safetensors").read_bytes() == kept


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--reward", "taste"], "no reward 'taste'"),
        (["--pick", 16], "no candidate 16; they are numbered 0 to 15"),
        (["--prompt", " "], "--prompt is empty"),
        (["--early", "--text-to-image", "sdxl"], "leave it out, or leave out --text-to-image"),
        (["--candidates", 3, "--method", "early_start"], "without other methods"),
        (["--pick", 1, "--model", "svd"], "a model that makes videos from text"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(unstill, tmp_path, monkeypatch, words, says):
    monkeypatch.setattr(registry, "load", lambda *args, **options: pytest.fail("a model was loaded"))
    result = unstill("animate", "--prompt", CAPTION, "--out", tmp_path / "x.mp4", *words)
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1
    assert files(tmp_path) == set()
