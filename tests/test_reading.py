"""Files that are read back: what is damaged, hostile or of another kind is told in one sentence and not used."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unstill.errors import UnstillError, first_line, shown
from unstill.latent_statistics import LatentStatistics
from unstill.models.checkpoint import identify, read_checkpoint, scale_of
from unstill.models.convert import load_checkpoint
from unstill.models.registry import load, pipeline_class
from unstill.models.state_dict_keys import openclip, stable_diffusion_vae
from unstill.statistics_estimation import combine, estimate
from unstill.statistics_file import KEY


def refused(call: Any, *words: str) -> str:
    """The sentence of the `UnstillError` that a call raises."""
    with pytest.raises(UnstillError) as error:
        call()
    said = str(error.value)
    assert "\n" not in said and len(said) < 1000
    for word in words:
        assert re.search(word, said), said
    return said


def test_values_in_messages_are_short():
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (
        "x" * 10**7,
        list(range(10**6)),
        10**100_000,
        nested,
        {i: "y" * 10**6 for i in range(100)},
        b"z" * 10**6,
    ):
        assert len(shown(value)) < 1200
    assert shown(512) == "512" and shown("a'b") == repr("a'b")
    assert first_line(ValueError()) == "ValueError" and first_line(ValueError("a\nb")) == "a"


MEAN, M2 = torch.zeros(2, 3, 4, 5, dtype=torch.float64), torch.ones(2, 3, 4, 5, dtype=torch.float64)


def spoilt(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[0, 0, 0, 0] = value
    return tensor


@pytest.mark.parametrize(
    ("text", "tensors"),
    [
        ({}, {"mean": spoilt(MEAN, float("nan")), "m2": M2}),
        ({}, {"mean": spoilt(MEAN, float("inf")), "m2": M2}),
        ({}, {"mean": spoilt(MEAN, 1e308), "m2": M2}),
        ({}, {"mean": MEAN, "m2": spoilt(M2, -1.0)}),
        ({}, {"mean": MEAN, "m2": spoilt(M2, float("nan"))}),
        ({}, {"mean": MEAN, "m2": spoilt(M2, 1e308)}),
        ({}, {"mean": MEAN, "m2": M2[:1]}),
        ({}, {"mean": MEAN, "m2": M2.mean()}),
        ({}, {"mean": MEAN[0], "m2": M2[0]}),
        ({}, {"mean": MEAN[:0], "m2": M2[:0]}),
        ({}, {"mean": MEAN.float(), "m2": M2}),
        ({}, {"mean": MEAN.to(torch.int64), "m2": M2.to(torch.int64)}),
        ({}, {"mean": MEAN}),
        ({"count": -1}, {"mean": MEAN, "m2": M2}),
        ({"count": 1.5}, {"mean": MEAN, "m2": M2}),
        ({"count": "4"}, {"mean": MEAN, "m2": M2}),
        ({"count": True}, {"mean": MEAN, "m2": M2}),
        ({"count": 10**30}, {"mean": MEAN, "m2": M2}),
        ({"version": 99}, {"mean": MEAN, "m2": M2}),
        ({"version": "x"}, {"mean": MEAN, "m2": M2}),
        ({"meta": None}, {"mean": MEAN, "m2": M2}),
        (None, {"mean": MEAN, "m2": M2}),
        ([], {"mean": MEAN, "m2": M2}),
        ("[" * 20_000, {"mean": MEAN, "m2": M2}),
        ('{"version": 1', {"mean": MEAN, "m2": M2}),
    ],
)
def test_statistics_of_our_own_format_are_checked(tmp_path: Path, text: Any, tensors: dict[str, torch.Tensor]):
    described = {"version": 1, "count": 4, "meta": {}} | text if isinstance(text, dict) else text
    said = described if isinstance(described, str) else json.dumps(described)
    file = tmp_path / "s.safetensors"
    save_file(tensors, file, {KEY: said})
    refused(lambda: LatentStatistics.load(file), "s.safetensors")


def test_good_statistics_still_load(tmp_path: Path):
    kept = LatentStatistics({"model": "x"}).update(torch.randn(3, 2, 3, 4, 5))
    read = LatentStatistics.load(kept.save(tmp_path / "s.safetensors"))
    assert read.count == 3 and read.meta == {"model": "x"} and torch.equal(read.mean, kept.mean)
    torch.save({"Expectation_X0": MEAN.float()[None], "Tr_Cov_d": 0.5}, tmp_path / "released.pt")
    released = LatentStatistics.load(tmp_path / "released.pt")
    again = LatentStatistics.load(released.save(tmp_path / "r.safetensors"))
    assert again.count is None and float(again.variance) == 0.5


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        (MEAN, torch.tensor(float("inf"))),
        (MEAN, torch.tensor(float("nan"))),
        (MEAN, torch.tensor(-1.0)),
        (MEAN, torch.tensor(1e30)),
        (MEAN, "a word"),
        (MEAN, torch.tensor(1j)),
        ("a word", torch.tensor(1.0)),
        ([1.0, 2.0], torch.tensor(1.0)),
        ("sparse", torch.tensor(1.0)),
        (spoilt(MEAN, float("nan")), torch.tensor(1.0)),
        (MEAN[0], torch.tensor(1.0)),
    ],
)
def test_published_statistics_are_checked(tmp_path: Path, mean: Any, variance: Any):
    file = tmp_path / "s.pt"
    mean = MEAN.to_sparse() if isinstance(mean, str) and mean == "sparse" else mean
    torch.save({"Expectation_X0": mean, "Tr_Cov_d": variance}, file)
    refused(lambda: LatentStatistics.load(file), "s.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": None},
        {"nodes": [[0, 10**18, 1]]},
        {"nodes": [[0, 4, 9]]},
        {"nodes": [["0", 4, 4]]},
        {"done": 5},
        {"settings": []},
    ],
)
def test_the_state_of_an_interrupted_measurement_is_checked(tmp_path: Path, changes: dict[str, Any]):
    file = tmp_path / "s.safetensors.0-of-2"
    text = {"version": 1, "count": 4, "meta": {}, "done": 4, "nodes": [[0, 4, 4]], "settings": {"clips": 4}} | changes
    save_file({"0.mean": MEAN.clone(), "0.m2": M2.clone(), "mean": MEAN, "m2": M2}, file, {KEY: json.dumps(text)})
    refused(lambda: combine([file], {}), "0-of-2")
    assert file.exists()


def test_the_moments_of_an_interrupted_measurement_are_checked(tmp_path: Path):
    clips = [torch.rand(2, 3, 4, 4) for _ in range(3)]

    class Clip:
        def __init__(self, pixels: torch.Tensor) -> None:
            self.pixels = pixels

    file = tmp_path / "s.safetensors"
    partial = file.with_name(file.name + ".partial")

    def stopped(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if pixels is clips[2]:
            raise KeyboardInterrupt
        return pixels.transpose(0, 1)[None]

    with pytest.raises(KeyboardInterrupt):
        estimate(stopped, [Clip(c) for c in clips], out=file)  # type: ignore[arg-type]
    from safetensors import safe_open

    with safe_open(partial, "pt") as part:
        tensors, text = {name: part.get_tensor(name) for name in part.keys()}, part.metadata()  # noqa: SIM118
    tensors["0.m2"][0, 0, 0, 0] = float("nan")
    save_file(tensors, partial, text)
    refused(lambda: estimate(stopped, [Clip(c) for c in clips], out=file), "variance")  # type: ignore[arg-type]


CRAFTER = {"model.diffusion_model.init_attn.0.weight": torch.ones(2)}
ENTRY = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.ones(2)},
        {None: torch.ones(2), (1, 2): torch.ones(1)},
        CRAFTER | {"scale_arr": torch.ones(0)},
        CRAFTER | {"scale_arr": torch.ones(2, 2)},
        CRAFTER | {"scale_arr": torch.tensor(0.7)},
        CRAFTER | {"scale_arr": torch.full((3,), float("nan"))},
        CRAFTER | {"scale_arr": torch.full((3,), 1j)},
        CRAFTER | {ENTRY: torch.tensor(1.0)},
        CRAFTER | {"scale_arr": torch.full((3,), 0.7), "cond_stage_model.model.x": torch.tensor(1.0)},
        {"attn_temp.weight": torch.tensor(1.0)},
        {"shadow_params": [1, 2]},
        {"shadow_params": []},
        {"state_dict": {"a": torch.ones(2).to_sparse()}},
        [torch.ones(2)],
        torch.ones(2),
        "words",
        {},
    ],
)
def test_checkpoints_of_other_content(tmp_path: Path, state: Any):
    file = tmp_path / "x.ckpt"
    torch.save(state, file)
    refused(lambda: load_checkpoint(file), "x.ckpt")


def test_a_checkpoint_that_holds_itself(tmp_path: Path):
    state: dict[str, Any] = {}
    state["state_dict"] = state
    torch.save(state, tmp_path / "x.ckpt")
    refused(lambda: read_checkpoint(tmp_path / "x.ckpt"), "no weights by name")


@pytest.mark.parametrize(
    "content", [b"", b"root:x:0:0\n", b"\x80", b"PK\x03\x04", b"(lp0\n.", b"\x80\x02}q\x00.", b"0" * 9]
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ""])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, suffix: str):
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    refused(lambda: load_checkpoint(file), "x")


def test_weights_of_other_shapes_keep_their_names():
    odd = {"transformer.resblocks.0.attn.in_proj_weight": torch.tensor(1.0)}
    assert list(openclip(2)(odd)) == ["encoder.layers.0.attn.in_proj.weight"]
    empty = {"decoder.mid.attn_1.q.weight": torch.ones(1, 1, 0, 0)}
    assert next(iter(stable_diffusion_vae(empty).values())).ndim == 4
    assert scale_of({"scale_arr": torch.linspace(1, 0.7, 5)}) == 0.7 and scale_of({}) is None
    assert identify(CRAFTER | {ENTRY: torch.ones(8, 4, 3, 3)})[0] == "videocrafter-512"


@pytest.mark.parametrize(
    "index",
    [
        '{"_class_name": "UNet2DConditionModel"}',
        '{"_class_name": "logging"}',
        '{"_class_name": "__name__"}',
        '{"_class_name": "DPMSolverMultistepScheduler"}',
        '{"_class_name": "NoSuchPipeline"}',
        '{"_class_name": 5}',
        '{"_class_name": ["diffusers", "X"]}',
        '{"_class_name": "a\\nb"}',
        '{"_class_name": "os.path"}',
        "{}",
        "null",
        "[" * 20_000,
        '{"_class_name": "' + "A" * 100_000 + '"}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_folder_that_names_no_pipeline(tmp_path: Path, index: str):
    (tmp_path / "model_index.json").write_text(index, encoding="latin-1")
    refused(lambda: pipeline_class(str(tmp_path)))
    refused(lambda: load(str(tmp_path), device="cpu"))


def test_a_configuration_with_a_number_that_no_tensor_holds(tmp_path: Path):
    from tests import pipelines as tiny

    tiny.pico().save_pretrained(tmp_path)
    file = tmp_path / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": 10**40}))
    refused(lambda: load(str(tmp_path), device="cpu"), "vae has scaling_factor = a number of 133 bits")
