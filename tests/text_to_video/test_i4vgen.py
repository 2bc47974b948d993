"""`unstill.i4vgen` on tiny pipelines: where the anchor goes, what is counted, kept, resumed and refused."""

import copy
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

import unstill
from tests.pipelines import SMALL, embeddings, picture, pipeline
from tests.text_to_video.stubs import CALL, animatediff, reward
from tests.text_to_video.test_rewards import words
from unstill.errors import UnstillError
from unstill.families.animatediff import without_motion
from unstill.text_to_video.candidates import Halving, ImageMode
from unstill.text_to_video.rewards import proxy


TEXT = {**SMALL, **embeddings(4, 8)}
PIPELINES: dict[str, dict[str, Any]] = {
    "AnimateDiffPipeline": TEXT,
    "AnimateDiffPAGPipeline": TEXT,
    "AnimateDiffSDXLPipeline": {**SMALL, **embeddings(4, 8, pooled=8)},
    "AnimateDiff IP-Adapter": {**TEXT, "ip_adapter_image_embeds": [torch.ones(2, 1, 8)]},
    "LaViePipeline": TEXT,
    "TextToVideoSDPipeline": TEXT,
    "WanPipeline": {**SMALL, "num_frames": 5, **embeddings(4, 8)},
    "CogVideoXPipeline": {**SMALL, "num_frames": 9, "max_sequence_length": 4, **embeddings(4, 8)},
    "PicoPipeline": {"num_frames": 3, "guidance_scale": 2.0},
}
GIVEN = {
    "AnimateDiffSparseControlNetPipeline": TEXT,
    "DynamiCrafterPipeline": TEXT,
    "VideoCrafterPipeline": TEXT,
    "I2VGenXLPipeline": TEXT,
}
CAPTION = "a red ring and a blue star drifting left over green"


def make(name: str, seed: int = 0, steps: int = 4, **options: Any) -> Any:
    generator = options.pop("generator", None) or torch.Generator().manual_seed(seed)
    call = {**(PIPELINES | GIVEN)[name], "num_inference_steps": steps}
    defaults = {"candidates": 3, "preset": unstill.NIVSDS(tau=0.1), "reward": proxy}
    torch.manual_seed(seed)  # I2VGenXL encodes its image with the global generator
    return unstill.i4vgen(pipeline(name), CAPTION, generator=generator, **{**call, **defaults, **options})


def stub(seed: int = 0, **options: Any) -> Any:
    """The same with a formula for the network."""
    generator = torch.Generator().manual_seed(seed)
    defaults = {"candidates": 4, "reward": reward, "num_inference_steps": 10}
    return unstill.i4vgen(animatediff(), CAPTION, generator=generator, **{**CALL, **defaults, **options})


@pytest.mark.parametrize("name", PIPELINES)
def test_text_to_video(name: str) -> None:
    heard: dict[str, list[tuple[int, int]]] = {}
    made = make(name, progress=lambda part, done, total: heard.setdefault(part, []).append((done, total)))
    assert len(made.candidates) == 3 and made.candidates[made.choice].image is not None
    assert made.choice == int(np.argmax([one.score for one in made.candidates]))
    assert made.anchor.tobytes() == made.candidates[made.choice].image.tobytes()
    assert len({one.image.tobytes() for one in made.candidates}) == 3
    for video in (made.frames, made.static, made.animated):
        assert video.dtype == torch.uint8 and video.shape == (made.frames.shape[0], 3, *made.anchor.size[::-1])
    assert torch.equal(made.static[0].permute(1, 2, 0), torch.from_numpy(np.array(made.anchor)))
    assert not torch.equal(made.frames, made.static)
    for part in ("candidates", "motion"):
        done, totals = zip(*heard[part], strict=True)
        assert list(done) == sorted(done) and done[-1] == totals[-1] and len(set(totals)) == 1


@pytest.mark.parametrize("name", GIVEN)
def test_a_given_image_is_the_anchor(name: str) -> None:
    wide = picture(64).resize((96, 48))  # of another aspect: its middle fills the video
    made = make(name, image=wide)
    assert made.candidates == () and made.choice is None and made.anchor.size == (16, 16)
    assert np.abs(np.asarray(made.anchor)[8, 8].astype(int) - np.asarray(wide)[24, 48]).max() < 12
    assert torch.isfinite(made.frames.float()).all() and not torch.equal(made.frames, made.static)
    with pytest.raises(UnstillError, match="cannot generate pictures from a prompt alone; pass image="):
        make(name)


def test_sparse_control_sees_the_anchor_in_both_loops() -> None:
    pipe, seen = pipeline("AnimateDiffSparseControlNetPipeline"), []
    hook = pipe.controlnet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["controlnet_cond"].clone()), with_kwargs=True
    )
    try:
        make("AnimateDiffSparseControlNetPipeline", image=picture())
    finally:
        hook.remove()
    assert len(seen) == 3 + 4 and all(torch.equal(one, seen[0]) and one.abs().sum() > 0 for one in seen)


def test_the_image_mode_of_animatediff_is_the_model_it_was_made_from() -> None:
    pipe = pipeline("AnimateDiffPipeline")
    spatial = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    shared = {key: value for key, value in pipe.unet.state_dict().items() if "motion_modules" not in key}
    spatial.load_state_dict(shared)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    words = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = spatial(x, 500, words).sample
        with without_motion(pipe):
            picture_mode = pipe.unet(x[:, :, None], 500, words).sample[:, :, 0]
        moving = pipe.unet(x[:, :, None], 500, words).sample[:, :, 0]
    torch.testing.assert_close(picture_mode, expected, rtol=1e-5, atol=1e-5)
    assert (moving - expected).abs().max() > 1e-3
    assert not any("forward" in vars(module) for module in pipe.unet.modules())


def test_a_candidate_is_the_same_alone_and_in_any_batch() -> None:
    whole = make("AnimateDiffPipeline", candidates=5)
    split = make("AnimateDiffPipeline", candidates=5, batch=2)
    for a, b in zip(whole.candidates, split.candidates, strict=True):
        torch.testing.assert_close(a.sample, b.sample, rtol=1e-4, atol=1e-4)


def mode(pipe: Any, steps: int = 20, batch: int = 8) -> ImageMode:
    call = {**CALL, "num_inference_steps": steps, "guidance_scale": 7.5}
    return ImageMode(pipe, "a prompt", call, (64, 64), batch, torch.Generator().manual_seed(101))


def test_halving_stops_losers_and_leaves_winners_as_they_were() -> None:
    score = functools.partial(reward, "a prompt")
    heard: list[tuple[int, int]] = []
    full = mode(animatediff()).make(8, score, None, lambda *done: None)
    pipe = animatediff()
    early = mode(pipe).make(8, score, Halving(at=(0.25, 0.5)), lambda *done: heard.append(done))
    assert sorted(one.stopped or 99 for one in early) == [5] * 4 + [10] * 2 + [99] * 2
    # 8 pictures for 5 steps, 4 for 5, 2 for 10, each with and without the prompt
    assert pipe.unet.calls == [(16, 1)] * 5 + [(8, 1)] * 5 + [(4, 1)] * 10
    assert heard[-1] == (8 * 5 + 4 * 5 + 2 * 10,) * 2
    finished = [i for i, one in enumerate(early) if one.stopped is None]
    for i in finished:
        torch.testing.assert_close(early[i].sample, full[i].sample, rtol=1e-4, atol=1e-4)
    stopped = next(i for i, one in enumerate(early) if one.stopped == 5)
    torch.testing.assert_close(mode(pipe).finish(early[stopped]).sample, full[stopped].sample, rtol=1e-4, atol=1e-4)
    assert len(mode(pipe).make(1, score, Halving(), lambda *done: None)) == 1


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "DDPMScheduler"])
def test_pieces_of_a_run_are_the_run(scheduler: str) -> None:
    pipe = animatediff()
    pipe.scheduler = getattr(diffusers, scheduler)()
    noise = mode(pipe).noise(2)
    whole = mode(pipe, 6)
    straight, _ = whole.advance(noise, 0, None, lambda done: None)
    pieces, again = noise, mode(pipe, 6)
    for since, until in ((0, 2), (2, 3), (3, None)):
        pieces, _ = again.advance(pieces, since, until, lambda done: None)
    torch.testing.assert_close(pieces, straight, rtol=1e-4, atol=1e-4)


def test_calls_of_the_denoiser_and_less_than_the_paper_says() -> None:
    # The paper: candidates 25 c, 0.6 x 25 c, and 25 c again: 65 c, where c is one call for the whole video.
    paper = {"preset": "paper", "num_inference_steps": 25, "guidance_scale": 7.5, **CALL}
    pipe = animatediff()
    unstill.i4vgen(pipe, "a prompt", candidates=8, reward=reward, **paper)
    assert pipe.unet.calls == [(16, 1)] * 25 + [(2, 8)] * (15 + 25)
    pictures = sum(rows * frames for rows, frames in pipe.unet.calls)
    assert pictures == 65 * 2 * 8  # with as many candidates as frames, and a picture as dear as a frame

    pipe = animatediff()
    unstill.i4vgen(pipe, "a prompt", candidates=8, reward=reward, early=Halving(at=(0.3, 0.6)), **paper)
    assert pipe.unet.calls == [(16, 1)] * 8 + [(8, 1)] * 7 + [(4, 1)] * 10 + [(2, 8)] * (15 + 25)

    # A picture is less dear than a frame, because motion modules are left out; so that all of it costs less than 65 c.
    unet, words = pipeline("AnimateDiffPipeline").unet, torch.zeros(3, 4, 8)
    with torch.no_grad(), FlopCounterMode(display=False) as video:
        unet(torch.zeros(1, 4, 3, 8, 8), 1, words)
    with (
        torch.no_grad(),
        FlopCounterMode(display=False) as candidates,
        without_motion(pipeline("AnimateDiffPipeline")),
    ):
        unet(torch.zeros(3, 4, 1, 8, 8), 1, words)
    assert 25 * candidates.get_total_flops() + (15 + 25) * video.get_total_flops() < 65 * video.get_total_flops()


def test_one_candidate_and_no_guidance() -> None:
    made = make("LaViePipeline", candidates=1, guidance_scale=1.0, reward=lambda prompt, images: 0.5)
    assert made.choice == 0 and made.candidates[0].score == 0.5 and len(made.frames) == 3


def test_text_to_image_pipelines_in_place_of_the_image_mode() -> None:
    asked = []

    def text_to_image(prompt: str, num_images_per_prompt: int, generator: Any, output_type: str, **more: Any) -> Any:
        asked.append((prompt, num_images_per_prompt, more))
        draws = torch.rand(num_images_per_prompt, 3, generator=generator)
        return SimpleNamespace(images=[Image.new("RGB", (40, 20), tuple((255 * x).int().tolist())) for x in draws])

    made = make("TextToVideoSDPipeline", text_to_image=functools.partial(text_to_image, guidance_scale=3.0), batch=2)
    assert asked == [(CAPTION, 2, {"guidance_scale": 3.0}), (CAPTION, 1, {"guidance_scale": 3.0})]
    assert {one.image.size for one in made.candidates} == {(16, 16)} and len(made.frames) == 3
    # Also for pipelines that make no pictures themselves.
    assert make("DynamiCrafterPipeline", text_to_image=text_to_image).choice is not None
    with pytest.raises(UnstillError, match="Only pictures of the video model itself can be stopped early"):
        make("TextToVideoSDPipeline", text_to_image=text_to_image, early=Halving())


@pytest.mark.parametrize("name", ["LaViePipeline", "PicoPipeline"])
def test_every_stage_can_be_resumed_from_what_the_one_before_has_kept(
    name: str, tmp_path: Any, monkeypatch: Any
) -> None:
    whole = make(name, folder=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"candidates.safetensors", "motion.safetensors", "video.safetensors", "anchor.png"} <= names
    assert {"candidates.png", "candidate_00.png", "candidate_02.png"} <= names
    heard: list[str] = []
    options = {"folder": tmp_path, "progress": lambda part, *done: heard.append(part)}
    assert torch.equal(make(name, **options).frames, whole.frames) and heard == []
    (tmp_path / "video.safetensors").unlink()
    assert torch.equal(make(name, **options).frames, whole.frames) and heard == ["motion"] * 4
    for part in ("video", "motion"):
        (tmp_path / f"{part}.safetensors").unlink()
    again = make(name, **options)
    assert torch.equal(again.frames, whole.frames) and torch.equal(again.animated, whole.animated)
    assert "candidates" not in heard
    # The same from a result that was saved later.
    whole.save(tmp_path / "later")
    heard.clear()
    options["folder"] = tmp_path / "later"
    assert torch.equal(make(name, **options).frames, whole.frames) and heard == []


def test_the_same_seed_gives_the_same_video() -> None:
    videos = [stub(seed).frames for seed in (0, 0, 1)]
    assert torch.equal(videos[0], videos[1]) and not torch.equal(videos[0], videos[2])


def test_another_candidate_is_picked_or_scored_again_without_making_them_again(tmp_path: Any) -> None:
    first = stub(folder=tmp_path)
    heard: list[str] = []
    options = {"folder": tmp_path, "progress": lambda part, *done: heard.append(part)}
    other = (first.choice + 1) % 4
    picked = stub(pick=other, **options)
    assert picked.choice == other and not torch.equal(picked.frames, first.frames)
    assert torch.equal(picked.frames, stub(pick=other).frames)

    def worst(prompt: str, images: Any) -> list[float]:
        return [-value for value in reward(prompt, images)]

    scored = stub(reward=worst, **options)
    assert scored.choice != first.choice and scored.reward == "worst" and "candidates" not in heard
    with pytest.raises(UnstillError, match="holds candidates of other settings"):
        stub(seed=1, folder=tmp_path)
    (tmp_path / "candidates.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnstillError, match="candidates.safetensors is damaged"):
        stub(folder=tmp_path)


def test_one_that_was_stopped_can_be_picked() -> None:
    halving = Halving(at=(0.5,))
    early = stub(early=halving)
    stopped = next(i for i, one in enumerate(early.candidates) if one.stopped is not None)
    picked, full = stub(early=halving, pick=stopped), stub(pick=stopped)
    assert np.abs(np.asarray(picked.anchor).astype(int) - np.asarray(full.anchor)).max() <= 1
    assert picked.choice == stopped and picked.candidates[stopped].stopped == 5


def test_a_reward_that_fails_loses_no_picture(tmp_path: Any) -> None:
    def broken(prompt: str, images: Any) -> list[float]:
        raise KeyError("no such word")

    whole = stub()
    heard: list[str] = []
    options = {"folder": tmp_path, "progress": lambda part, *done: heard.append(part)}
    says = "The reward broken failed on 4 pictures .KeyError: 'no such word'.; correct it.* The pictures are kept in "
    with pytest.raises(UnstillError, match=says):
        stub(reward=broken, **options)
    heard.clear()
    made = stub(**options)
    assert "candidates" not in heard and made.choice == whole.choice and torch.equal(made.frames, whole.frames)

    def reward(prompt: str, images: Any) -> list[float]:  # another one of the same name
        return [0.0, 0.0, 1.0, 0.0]

    assert stub(reward=reward, **options).choice == 2
    with pytest.raises(MemoryError):
        stub(reward=lambda prompt, images: (_ for _ in ()).throw(MemoryError()))


def test_candidates_of_other_settings_make_way_once_there_are_new_ones(tmp_path: Any) -> None:
    stub(folder=tmp_path)
    old = (tmp_path / "candidates.safetensors").read_bytes()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UnstillError, match="refuses this call"):
        stub(folder=tmp_path, replace=True, candidates=2, height=13)
    assert (tmp_path / "candidates.safetensors").read_bytes() == old
    assert torch.equal(stub(folder=tmp_path, replace=True, candidates=2).frames, stub(candidates=2).frames)
    left = {path.name for path in tmp_path.iterdir()}
    assert {"candidate_01.png", "mine.txt"} <= left and "candidate_02.png" not in left


def test_other_weights_are_other_candidates(tmp_path: Any) -> None:
    make("TextToVideoSDPipeline", folder=tmp_path)
    weight = next(pipeline("TextToVideoSDPipeline").unet.parameters())
    with torch.no_grad():
        weight.add_(0.01)
    try:
        with pytest.raises(UnstillError, match="holds candidates of other settings"):
            make("TextToVideoSDPipeline", folder=tmp_path)
    finally:
        with torch.no_grad():
            weight.sub_(0.01)


def test_a_negative_prompt_in_both_stages() -> None:
    pipe = copy.copy(pipeline("AnimateDiffPipeline"))
    width = {"hidden_size": pipe.unet.config.cross_attention_dim, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPTextConfig(
        vocab_size=8, intermediate_size=8, max_position_embeddings=16, eos_token_id=2, bos_token_id=1, **width
    )
    tokenizer = words("boat", "still")
    tokenizer.model_max_length = 16
    torch.manual_seed(0)
    pipe.text_encoder, pipe.tokenizer = CLIPTextModel(config), tokenizer

    def run(negative: Any) -> torch.Tensor:
        call = {**SMALL, "num_inference_steps": 4, "guidance_scale": 7.5, "negative_prompt": negative}
        generator = torch.Generator().manual_seed(0)
        return unstill.i4vgen(pipe, "boat", candidates=3, reward=proxy, generator=generator, **call).frames

    without, given, in_a_list = run(None), run("still"), run(["still"])
    assert torch.equal(given, in_a_list) and not torch.equal(given, without)


def nan(prompt: str, images: Any) -> list[float]:
    return [0.0, float("nan"), 1.0]


def short(prompt: str, images: Any) -> torch.Tensor:
    return torch.zeros(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": nan}, "The reward nan returned nan for picture 1"),
        ({"reward": short}, "The reward short returned 2 scores for 3 pictures"),
        ({"reward": lambda prompt, images: None}, "returned NoneType, but a number for each of the 3"),
        ({"reward": lambda prompt, images: 1.0}, "returned 1 scores for 3 pictures"),
        ({"candidates": 0}, "0 candidates cannot be chosen from"),
        ({"candidates": 2.5}, "2.5 candidates cannot be chosen from"),
        ({"batch": -1}, "number of pictures in one call, at least 1, not -1"),
        ({"pick": "1"}, "no candidate 1; they are numbered"),
        ({"reward": "proxy"}, "A reward is a callable .*, not 'proxy'; to load one by name, use unstill"),
        ({"early": True}, "early takes a Halving, .* not True"),
        ({"text_to_image": "sdxl"}, "takes a pipeline that was loaded, not 'sdxl'"),
        ({"text_to_image": lambda **call: None}, "returned NoneType, but PIL pictures in `.images` were expected"),
        ({"generator": 3}, "one torch.Generator, seeded by manual_seed, not 3"),
        ({"num_inference_step": 3}, "has an argument num_inference_step; did you mean num_inference_steps"),
        ({"num_videos_per_prompt": 2}, "itself passes num_videos_per_prompt to the pipeline"),
        ({"pick": 3}, "no candidate 3; they are numbered 0 to 2"),
        ({"pick": 1, "image": picture()}, "pick selects a candidate"),
        ({"image": "photo.jpg"}, "is a PIL picture, not str"),
        ({"preset": "draft"}, "no preset 'draft'"),
        ({"latents": torch.zeros(1)}, "itself passes latents to the pipeline"),
        ({"height": 13}, "AnimateDiffPipeline refuses this call"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnstillError, match=message):
        make("AnimateDiffPipeline", **options)


@pytest.mark.parametrize("prompt", ["", "  ", None, ["a", "b"]])
def test_no_prompt(prompt: Any) -> None:
    with pytest.raises(UnstillError, match="takes one prompt that says what happens"):
        unstill.i4vgen(pipeline("AnimateDiffPipeline"), prompt)


def test_pipelines_without_a_prompt_and_schedulers_of_two_calls_are_refused_before_any_work() -> None:
    with pytest.raises(UnstillError, match="StableVideoDiffusionPipeline takes no prompt"):
        unstill.i4vgen(pipeline("StableVideoDiffusionPipeline"), "a boat")
    pipe = animatediff()
    pipe.scheduler = diffusers.HeunDiscreteScheduler()
    with pytest.raises(UnstillError, match="NIVSDS needs one model call per noise level"):
        unstill.i4vgen(pipe, "a boat", **CALL)
    assert pipe.unet.calls == []


def test_halving_checks_its_shares() -> None:
    for wrong in ({"at": ()}, {"at": (0.5, 0.2)}, {"at": (1.0,)}, {"keep": 1.0}):
        with pytest.raises(UnstillError, match="rising shares"):
            Halving(**wrong)
    assert Halving(at=(0.01, 0.5, 0.99)).stops(10) == [5]


NAMES = ("anchor.png", "candidate_00.png", "candidates.png", "candidates.json")
STAGES = ("candidates.safetensors", "motion.safetensors", "video.safetensors")


@pytest.mark.parametrize("name", [*NAMES, *STAGES])
def test_a_file_of_the_users_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    if name in STAGES:
        save_file({"mine": torch.zeros(1)}, tmp_path / name, {"key": "mine", "notes": "{}"})
    else:
        (tmp_path / name).write_bytes(b"mine")
    before, heard = (tmp_path / name).read_bytes(), list[str]()
    with pytest.raises(UnstillError, match=f"{name} .*unstill did not write it"):
        stub(folder=tmp_path, replace=True, progress=lambda part, *done: heard.append(part))
    assert not heard and [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UnstillError, match=f"{name} .*unstill did not write it"):
        stub().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == before


def test_only_pictures_of_an_earlier_result_are_removed(tmp_path: Path) -> None:
    stub(folder=tmp_path)
    mine = ("candidate_00_mine.png", "candidate_17.png", "candidate_03.png")  # the last one was changed
    for name in mine:
        (tmp_path / name).write_bytes(b"mine")
    stub(folder=tmp_path, replace=True, candidates=2)
    left = {path.name for path in tmp_path.glob("candidate_*")}
    assert left == {"candidate_00.png", "candidate_01.png", *mine}
    assert all((tmp_path / name).read_bytes() == b"mine" for name in mine)
