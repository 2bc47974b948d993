"""Names, folders and hub ids: what loads, and what is said of what does not."""

import copy
import json
import shutil
import socket
from types import SimpleNamespace

import diffusers
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file

from tests.pipelines import pipeline, random_pico
from unstill.errors import UnstillError
from unstill.models import hub
from unstill.models.call_arguments import arguments, native_size
from unstill.models.pico import PicoPipeline
from unstill.models.registry import MODELS, defaults_of, find, load, pipeline_class, pipeline_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random pipeline as `save_pretrained` leaves it."""
    path = tmp_path_factory.mktemp("model")
    random_pico().save_pretrained(path)
    return path


def test_names_are_unique_and_every_pipeline_class_exists():
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert pipeline_class(model.name).__name__ == model.pipeline


def test_a_hub_id_of_a_known_model_finds_its_entry():
    assert find("stabilityai/stable-video-diffusion-img2vid").name == "svd"
    assert find("SVD").name == "svd"
    assert find("somebody/something") is None and pipeline_name("somebody/something") is None


def test_a_folder_loads_bit_for_bit(folder):
    assert find(str(folder)) is None
    first, second = load(str(folder)), load(str(folder), dtype=torch.bfloat16)
    assert type(first) is PicoPipeline and first.transformer.dtype == torch.float32
    assert second.transformer.dtype == torch.bfloat16
    for name, tensor in load(str(folder)).transformer.state_dict().items():
        assert torch.equal(tensor, first.transformer.state_dict()[name])
    assert native_size(first) == (first.size, first.size)


def test_a_folder_takes_the_level_of_its_class_but_no_statistics(folder):
    assert defaults_of(str(folder)).keys() == {next(m for m in MODELS if m.name == "pico").start[0]}


@pytest.mark.parametrize("name", ["svx", "a/b/c"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(UnstillError, match="Known: pico, pico-still, pico-still-time-noise, animatediff"):
        find(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("wan2.2", "'wan2.2-i2v-a14b' or 'wan2.2-ti2v-5b'"),
        ("LTX2", "'ltx-2'"),
        ("hunyuan1.5", "'hunyuanvideo-1.5-i2v'"),
        ("svd-tx", "'svd-xt'"),
    ],
)
def test_near_names_are_offered(name, meant):
    with pytest.raises(UnstillError, match=rf"There is no model '{name}'; did you mean {meant}\? Known"):
        find(name)


def test_frames_are_asked_for_under_the_name_that_a_pipeline_has_for_them():
    for name, key in {
        "LattePipeline": "video_length",
        "SanaVideoPipeline": "frames",
        "WanPipeline": "num_frames",
    }.items():
        call = arguments(getattr(diffusers, name), prompt="a boat", frames=9)
        assert call[key] == 9 and ("num_frames" in call) == (key == "num_frames")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all"])
def test_paths_that_are_not_there_are_taken_for_paths(name):
    with pytest.raises(UnstillError, match=f"There is no folder {name}; .* unstill models"):
        find(name)


def test_folders_that_are_no_pipeline(tmp_path):
    with pytest.raises(UnstillError, match="no model_index.json"):
        find(str(tmp_path))
    for broken in ("", "[]", "{}", "not json"):
        (tmp_path / "model_index.json").write_text(broken)
        with pytest.raises(UnstillError, match="save the pipeline again"):
            load(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "NoSuchPipeline"}))
    with pytest.raises(UnstillError, match="NoSuchPipeline"):
        load(str(tmp_path))
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableVideoDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]})
    )
    with pytest.raises(UnstillError, match="cannot be loaded"):
        load(str(tmp_path))
    with pytest.raises(UnstillError, match="is a file"):
        find(str(tmp_path / "model_index.json"))


def test_a_folder_does_not_hide_a_known_name(folder, tmp_path, monkeypatch):
    import shutil

    from diffusers import StableVideoDiffusionPipeline

    shutil.copytree(folder, tmp_path / "svd")
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        StableVideoDiffusionPipeline, "from_pretrained", lambda *args, **_: asked.append(args) or load(str(folder))
    )
    load("svd")
    assert asked == [("stabilityai/stable-video-diffusion-img2vid",)]
    assert type(load("./svd")) is PicoPipeline


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    from diffusers import DiffusionPipeline

    def unreachable(*args, **kwargs):
        raise OSError("no connection\nmany\nlines")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", unreachable)
    with pytest.raises(UnstillError, match="somebody/something could not be fetched") as error:
        load("somebody/something")
    assert "\n" not in str(error.value)


@pytest.fixture
def silent_hub(monkeypatch):
    """A hub that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.2)
        yield


@pytest.mark.usefixtures("silent_hub")
def test_a_model_in_the_cache_loads_without_an_answer_of_the_hub(tmp_path):
    repository = tmp_path / "models--owner--name"
    pipeline("StableVideoDiffusionPipeline").save_pretrained(repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert load("owner/name", device="cpu", cache_dir=tmp_path).unet is not None
    with pytest.raises(UnstillError, match="owner/other could not be fetched"):
        load("owner/other", device="cpu", cache_dir=tmp_path)


def test_a_hub_that_answers_is_asked_for_a_newer_version(monkeypatch):
    given = []
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, timeout: None)
    monkeypatch.setattr(
        diffusers.DiffusionPipeline, "from_pretrained", lambda name, **options: given.append(options) or random_pico()
    )
    load("owner/name", device="cpu")
    assert "local_files_only" not in given[0]

    def gated(name, timeout):
        raise GatedRepoError("its licence must be accepted", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "model_info", gated)
    load("owner/name", device="cpu")
    assert "local_files_only" not in given[1]


@pytest.mark.parametrize(("device", "says"), [("gpu!", "is not a device"), ("meta", "There is no device meta")])
def test_devices_are_checked_before_loading(folder, device, says):
    with pytest.raises(UnstillError, match=says):
        load(str(folder), device=device)


def test_arguments_in_the_words_of_each_class():
    class Image: ...

    svd, cog = pipeline_class("svd"), pipeline_class("cogvideox-5b-i2v")
    call = arguments(svd, image=Image, motion=0.5, frames=14, steps=3, size=(320, 512), fps=7)
    assert (call["motion_bucket_id"], call["num_frames"], call["num_inference_steps"]) == (128, 14, 3)
    assert (call["height"], call["width"], call["fps"]) == (320, 512, 7)
    assert arguments(cog, image=Image, prompt="a boat", fps=8).keys() == {"image", "prompt", "output_type"}
    assert arguments(svd, image=Image, guidance=2.5)["max_guidance_scale"] == 2.5
    assert arguments(cog, image=Image, prompt="a boat", guidance=1.0)["guidance_scale"] == 1.0
    for wrong, says in (
        ({"image": None}, "give one"),
        ({"image": Image}, "needs a prompt"),
        ({"image": Image, "prompt": "a", "motion": 0.5}, "no motion level"),
        ({"image": Image, "prompt": "a", "motion": 1.5}, "from 0"),
    ):
        with pytest.raises(UnstillError, match=says):
            arguments(cog, **wrong)
    with pytest.raises(UnstillError, match="takes no prompt"):
        arguments(svd, image=Image, prompt="a boat")
    assert "image" not in arguments(pipeline_class("animatediff"), image=Image, prompt="a boat")
    assert "prompt" not in arguments(pipeline_class("dynamicrafter-512"), image=Image)  # its own default is empty
    sparse = pipeline_class("animatediff-sparsectrl")
    assert arguments(sparse, image=Image, prompt="a boat")["conditioning_frames"] == [Image]
    with pytest.raises(UnstillError, match="give one"):
        arguments(sparse, prompt="a boat")


def test_a_released_file_that_cannot_be_fetched_is_one_sentence(monkeypatch):
    def unreachable(repository, file, **options):
        raise OSError(f"no connection to {repository}/{file}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(UnstillError, match="model.ckpt of Doubiiu/DynamiCrafter_512 could not be fetched"):
        load("dynamicrafter-512")
    with pytest.raises(UnstillError, match="There is no checkpoint file nowhere.ckpt"):
        load("lavie", checkpoint="nowhere.ckpt")


def test_a_checkpoint_of_the_denoiser_goes_into_a_folder(folder, tmp_path):
    tuned = {key: torch.full_like(value, 0.5) for key, value in load(str(folder)).transformer.state_dict().items()}
    torch.save({f"module.{key}": value for key, value in tuned.items()}, tmp_path / "tuned.pt")
    pipe = load(str(folder), checkpoint=tmp_path / "tuned.pt")
    assert all(torch.equal(value, tuned[key]) for key, value in pipe.transformer.state_dict().items())
    with pytest.raises(UnstillError, match="no motion modules"):
        load(str(folder), frame_norm=True)


def test_a_folder_of_another_network_is_refused_in_one_sentence(folder, tmp_path):
    """diffusers leaves a network without its weights, and only warns."""
    old = shutil.copytree(folder, tmp_path / "old")
    weights = old / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({name.replace("blocks.0", "block.0"): value for name, value in state.items()}, weights, {"format": "pt"})
    with pytest.raises(
        UnstillError, match=r"old cannot be loaded: its transformer holds no weights for blocks\.0\.\S+ and \d+ "
    ):
        load(str(old))


def test_a_pico_of_the_first_generation_is_refused_in_one_sentence(folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    index = json.loads((old / "model_index.json").read_text())
    del index["transformer"]
    (old / "model_index.json").write_text(json.dumps({**index, "unet": ["unstill.models.pico.unet", "PicoUNet"]}))
    for opened in (load, PicoPipeline.from_pretrained):
        with pytest.raises(
            UnstillError, match=r"old holds a pico of the first generation .*; use the embedded"
        ) as error:
            opened(str(old))
        assert "\n" not in str(error.value)


def test_autoencoders_of_big_clips_work_in_tiles(tmp_path):
    assert {"cogvideox-5b-i2v", "hunyuanvideo-i2v", "ltx-2"} < {model.name for model in MODELS if model.tiled}
    assert hasattr(pipeline("HunyuanVideo token_replace").vae, "enable_tiling")
    pipeline("CogVideoXImageToVideoPipeline").save_pretrained(tmp_path)
    loaded = load(str(tmp_path), text_encoder=None, tokenizer=None)
    assert loaded.vae.use_tiling and not pipeline("CogVideoXImageToVideoPipeline").vae.use_tiling


def test_animatediff_begins_with_the_noise_it_starts_from(monkeypatch):
    """As diffusers' documentation recommends: linspace, from 999 to 0."""
    made = {}

    def of_the_hub(cls, source, **options):
        made[cls.__name__] = source
        return copy.copy(pipeline("AnimateDiffPipeline")) if cls is diffusers.AnimateDiffPipeline else None

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", classmethod(of_the_hub))
    monkeypatch.setattr(diffusers.MotionAdapter, "from_pretrained", classmethod(of_the_hub))
    scheduler = load("animatediff", device="cpu").scheduler
    assert made["MotionAdapter"] == "guoyww/animatediff-motion-adapter-v1-5-2"
    assert type(scheduler) is diffusers.DDIMScheduler and not scheduler.config.clip_sample
    assert scheduler.config.beta_schedule == "linear" and scheduler.config.steps_offset == 1
    scheduler.set_timesteps(25)
    assert (scheduler.timesteps[0], scheduler.timesteps[-1]) == (999, 0)
