"""How large a model is, before it is loaded; LoRAs, eight bits and offloading of what is loaded."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

import unstill
from tests.pipelines import CASES, _made, pipeline, sample
from unstill.errors import UnstillError
from unstill.models import registry
from unstill.models.loading_options import LoraFile, add_loras, denoisers_of, move_pipeline, quantise
from unstill.models.memory import Weights, check_memory, tensor_sizes, weights_of_folder, weights_of_hub
from unstill.models.registry import memory_needed


WAN = "WanImageToVideoPipeline"
GB = 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wan")
    pipeline("Wan 2.2 A14B").save_pretrained(path)
    return path


def numbers(network: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())


def test_sizes_of_a_folder_are_those_of_its_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, found = pipeline("Wan 2.2 A14B"), weights_of_folder(folder)
    assert found is not None
    assert found.parts == {name: numbers(getattr(pipe, name)) for name in ("transformer", "transformer_2", "vae")}
    total, largest = sum(found.parts.values()), max(found.parts.values())
    assert (found.needed(2), found.needed(2, "model")) == (2 * total, 2 * largest)
    assert found.needed(2, quantised=True) == 2 * total - found.parts["transformer"] - found.parts["transformer_2"]
    assert found.needed(2, "group") == 4 * found.largest < found.needed(2, "model")
    assert memory_needed(str(folder)) == ""  # too small to be worth a sentence
    monkeypatch.setattr(registry, "REPORTED_PARAMETERS", 0)
    assert "weights take 0.2 MB of memory (all at once), the video some more." in memory_needed(
        str(folder), device="cpu"
    )


def test_only_the_files_of_a_variant_count(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    save_file({"a": torch.zeros(3, 4)}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({"a": torch.zeros(5)}, tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert weights_of_folder(tmp_path) == Weights({"unet": 12}, 12)
    assert weights_of_folder(tmp_path, "fp16") == Weights({"unet": 5}, 5)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no safetensors file")
    assert weights_of_folder(tmp_path) is None
    with pytest.raises(ValueError, match="is no safetensors file"):
        list(tensor_sizes(tmp_path / "unet" / "diffusion_pytorch_model.safetensors"))


def test_a_local_copy_is_enough_and_nothing_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    index = folder / "model_index.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: str(index))
    assert weights_of_hub("owner/name") == weights_of_folder(folder)


def test_a_local_copy_without_headers_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: str(tmp_path / "model_index.json"))
    assert weights_of_hub("owner/name") is None


def test_headers_of_a_repository_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["model_index.json", "transformer/a.safetensors", "transformer/b.safetensors", "loose.safetensors"]
    header = SimpleNamespace(tensors={"x": SimpleNamespace(shape=[2, 5]), "y": SimpleNamespace(shape=[])})
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, timeout: info)
    monkeypatch.setattr(huggingface_hub, "parse_safetensors_file_metadata", lambda name, file: header)
    assert weights_of_hub("owner/name") == Weights({"transformer": 22}, 10)
    monkeypatch.setattr(registry, "REPORTED_PARAMETERS", 0)
    assert memory_needed("owner/name", device="cpu", dtype=torch.bfloat16).startswith("owner/name: 2.2e-08 billion")

    class NotAnOSError(Exception):
        """As the errors of httpx are."""

    def offline(name: str, timeout: float) -> None:
        raise NotAnOSError("offline")

    monkeypatch.setattr(huggingface_hub, "model_info", offline)
    assert weights_of_hub("owner/name") is None and memory_needed("owner/name", device="cpu") == ""


def test_too_little_memory_is_told_with_the_option_that_fits() -> None:
    weights = Weights({"transformer": 16 * GB, "text_encoder": 6 * GB}, GB // 10)
    check_memory("wan", weights, 48 * GB, 2)
    for free, option in (
        (40, "--offload needs 32.0 GB"),
        (24, "--quantise fp8 --offload needs 16.0 GB"),
        (8, "--group"),
    ):
        with pytest.raises(
            UnstillError, match=rf"wan need 44.0 GB, but {free}.0 GB are free on this device; {option}"
        ):
            check_memory("wan", weights, free * GB, 2)
    with pytest.raises(UnstillError, match="no option makes it small enough"):
        check_memory("wan", weights, GB // 10, 2)


def write_lora(path: Path, name: str) -> Path:
    network = denoisers_of(_made(CASES[name].build))[0]
    torch.manual_seed(1)
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    state = {f"transformer.{key}": value for key, value in get_peft_model_state_dict(network).items()}
    save_file(state, path)
    return path


def test_a_lora_reaches_the_expert_it_is_for_with_its_weight(tmp_path: Path) -> None:
    file = write_lora(tmp_path / "fast.safetensors", "Wan 2.2 A14B")
    pipe = _made(CASES["Wan 2.2 A14B"].build)
    add_loras(pipe, (LoraFile.parse(str(file)), LoraFile.parse(f"{file}:0.5:transformer_2")))
    weights = [
        {
            name: layer.scaling[name]
            for layer in network.modules()
            if hasattr(layer, "scaling")
            for name in layer.scaling
        }
        for network in denoisers_of(pipe)
    ]
    first, second = weights[0]["lora_0"], weights[1]["lora_1"]
    assert set(weights[0]) == {"lora_0"} and set(weights[1]) == {"lora_1"} and second == first / 2
    single = _made(CASES[WAN].build)
    plain = sample(CASES[WAN], single)
    with pytest.raises(UnstillError, match="has one denoiser"):
        add_loras(single, (LoraFile(file, 1.0, True),))
    add_loras(single, (LoraFile(file),))
    assert not torch.equal(sample(CASES[WAN], single), plain)


def test_loras_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_lora(tmp_path / "fast.safetensors", WAN)
    for text in ("nowhere.safetensors", f"{file}:much", f"{file}:nan"):
        with pytest.raises(UnstillError, match="names no file with a weight"):
            LoraFile.parse(text)
    assert LoraFile.parse(f"{file}:0.5") == LoraFile(file, 0.5)
    with pytest.raises(UnstillError, match="takes no LoRA files"):
        add_loras(_made(CASES["StableVideoDiffusionPipeline"].build), (LoraFile(file),))
    save_file({"nothing": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UnstillError, match="other.safetensors"):
        add_loras(_made(CASES[WAN].build), (LoraFile(tmp_path / "other.safetensors"),))
    pipe = _made(CASES[WAN].build)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnstillError, match="needs the package peft"):
        add_loras(pipe, (LoraFile(file),))


def test_weights_in_fp8_are_stored_so_and_still_make_a_video() -> None:
    pipe = _made(CASES[WAN].build)
    plain = sample(CASES[WAN], pipe)
    quantise(pipe, "fp8")
    assert torch.float8_e4m3fn in {parameter.dtype for parameter in pipe.transformer.parameters()}
    with torch.no_grad():
        coarse = sample(CASES[WAN], pipe)
    assert coarse.isfinite().all() and not torch.equal(coarse, plain)
    assert (coarse - plain).abs().mean() < 0.1 * plain.abs().mean()


def test_options_are_checked_before_anything_is_loaded(folder: Path) -> None:
    for options, words in (
        ({"quantise": "int3"}, "--quantise takes fp8 or int8"),
        ({"quantise": "int8"}, "needs the package torchao"),
        ({"offload": "some"}, "offload takes"),
        ({"loras": ["nowhere"]}, "--lora nowhere names no file"),
    ):
        with pytest.raises(UnstillError, match=words):
            unstill.load(str(folder), **options)
    missing = dict.fromkeys(("text_encoder", "tokenizer", "image_encoder", "image_processor"))
    loaded = unstill.load(str(folder), quantise="fp8", offload="group", **missing)  # on the CPU nothing is offloaded
    assert torch.float8_e4m3fn in {parameter.dtype for parameter in loaded.transformer_2.parameters()}


def test_offloading_is_asked_of_the_pipeline() -> None:
    asked: dict[str, object] = {}
    pipe = SimpleNamespace(
        to=lambda device: asked.update(to=device),
        enable_model_cpu_offload=lambda device: asked.update(model=device),
        enable_group_offload=lambda **how: asked.update(group=how["offload_type"]),
    )
    cuda = torch.device("cuda")
    for way in ("none", "model", "group"):
        move_pipeline(pipe, cuda, way)
    assert asked == {"to": cuda, "model": cuda, "group": "leaf_level"}
