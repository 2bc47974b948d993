"""
The pages of docs/guide: every block of code is run as it stands there, on the tiny pipeline of its class.

Only what comes from a network is replaced: `from_pretrained` returns the tiny pipeline of `tests/pipelines.py`, and
its call makes a small video of prepared prompt embeddings. A call with an argument that the pipeline does not have
fails.
"""

import functools
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_model import FromOriginalModelMixin
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

import unstill
from tests.pipelines import CASES, _made, animatediff_ip_adapter
from unstill.data import read_video
from unstill.models import registry


FOLDER = Path(__file__).parents[2] / "docs" / "guide"
BLOCKS = {
    f"{page.stem}-{number}": (page, block)
    for page in sorted(FOLDER.glob("*.md"))
    for number, block in enumerate(re.findall(r"^```py\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))
}
CPU = torch.device("cpu")


def case_of(name: str, model: str = "") -> str:
    """The row of tests/pipelines.py for a pipeline class and a hub id."""
    return next((row for part, row in (("A14B", "Wan 2.2 A14B"), ("5B", "Wan 2.2 5B")) if part in model), name)


def small(name: str) -> Any:
    """The tiny pipeline of a row, whose call takes all that its class takes, and makes little."""
    case = CASES[name]
    made = _made(case.build)
    real = type(made).__call__

    @functools.wraps(real)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(list(inspect.signature(real).bind(self, *args, **kwargs).arguments.items())[1:])
        assert given.pop("prompt", "") or "prompt" not in inspect.signature(real).parameters
        if name == "HunyuanVideo15ImageToVideoPipeline":  # its size is that of its image
            given["image"] = given["image"].resize((16, 16))
        tiny = {key: value for key, value in case.call.items() if key not in ("image", "conditioning_frames")}
        to = lambda x: x.to(self.dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x  # noqa: E731
        tiny = {key: to(value) for key, value in tiny.items()}
        return real(self, **{**given, **tiny, "num_inference_steps": min(given.get("num_inference_steps", 2), 2)})

    made.__class__ = type(type(made).__name__, (type(made),), {"__call__": call})
    return made


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a photo, in which models can be fetched and a GPU is the CPU."""
    from PIL import Image

    def pipe_from(cls: type, model: str, *, dtype: torch.dtype, variant: str | None = None, **parts: Any) -> Any:
        made = small(case_of(cls.__name__, model))
        assert set(parts) <= set(inspect.signature(made.__init__).parameters), parts
        made.register_modules(**{key: part for key, part in parts.items() if key in ("transformer", "transformer_2")})
        return made.to(dtype)

    def part_from(cls: type, model: str, *, subfolder: str = "", dtype: torch.dtype, **options: Any) -> Any:
        assert set(options) <= {"quantization_config", "config"}, options
        if subfolder not in ("transformer", "transformer_2"):
            return torch.nn.Identity()
        names = {"WanTransformer3DModel": "WanImageToVideoPipeline"}
        name = names.get(cls.__name__, cls.__name__.replace("Transformer3DModel", "ImageToVideoPipeline"))
        return getattr(_made(CASES[case_of(name, options.get("config") or model)].build), subfolder).to(dtype)

    def load(name: str, **options: Any) -> Any:
        inspect.signature(registry.load).bind(name, **options)
        found = registry.find(name)
        assert found is not None
        return small(found.pipeline).to(options["dtype"])

    def load_ip_adapter(self: Any, model: str, *, subfolder: str, weight_name: str) -> None:
        self.register_modules(unet=animatediff_ip_adapter().unet.to(self.dtype))
        embeds = [each.to(self.dtype) for each in CASES["AnimateDiff IP-Adapter"].call["ip_adapter_image_embeds"]]
        self.prepare_ip_adapter_image_embeds = lambda *args, **kwargs: embeds

    to_cpu = {"enable_model_cpu_offload": {"device": "cpu"}, "enable_group_offload": {"onload_device": CPU}}
    for name, changes in to_cpu.items():
        offload = getattr(diffusers.DiffusionPipeline, name)

        def on_cpu(self: Any, *, offload: Any = offload, changes: Any = changes, **options: Any) -> None:
            inspect.signature(offload).bind(self, **options)
            options.pop("use_stream", None)
            offload(self, **{**options, **changes})

        monkeypatch.setattr(diffusers.DiffusionPipeline, name, on_cpu)
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", classmethod(pipe_from))
    monkeypatch.setattr(diffusers.ModelMixin, "from_pretrained", classmethod(part_from))
    monkeypatch.setattr(FromOriginalModelMixin, "from_single_file", classmethod(part_from))
    monkeypatch.setattr(diffusers.AnimateDiffPipeline, "load_ip_adapter", load_ip_adapter)
    monkeypatch.setattr(unstill, "load", load)
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").convert("RGB").save("photo.jpg")
    return tmp_path


def write_lora(file: str, name: str) -> None:
    """A file of random low-rank weights for the denoiser of a tiny pipeline."""
    pipe = _made(CASES[name].build)
    part = "transformer" if getattr(pipe, "transformer", None) else "unet"
    network = getattr(pipe, part)
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    save_file({f"{part}.{key}": value for key, value in get_peft_model_state_dict(network).items()}, file)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs(block: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, code = BLOCKS[block]
    if "torchao" in code:  # it is not among the packages of this library
        torchao = ModuleType("torchao.quantization")
        torchao.Int8WeightOnlyConfig = SimpleNamespace
        monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
        monkeypatch.setitem(sys.modules, "torchao.quantization", torchao)
        monkeypatch.setattr(diffusers, "TorchAoConfig", lambda kind: kind)
    script = BLOCKS[f"{page.stem}-0"][1]
    model, picture, video = re.match(r"(# 1\..*?)(# 2\..*?)(# 3\..*)", script, re.DOTALL).groups()
    for file in re.findall(r'load_lora_weights\("(.*?)"', code):
        kinds = {"ltx": "LTX2ImageToVideoPipeline", "animatediff": "AnimateDiffPipeline", "wan22": "Wan 2.2 A14B"}
        write_lora(file, kinds.get(page.stem, "WanImageToVideoPipeline"))
    if "statistics.safetensors" in code:
        unstill.LatentStatistics().update(torch.zeros(2, 4, 3, 8, 8)).save("statistics.safetensors")
    if "# 1. The model" in code or ("from_pretrained" in code and "write_video(" in code):
        parts = [code]  # a whole script
    elif "from_pretrained" in code:
        parts = [code, picture, video]  # in place of part 1
    elif "write_video(" in code:
        parts = [model, picture, code]  # in place of part 3
    else:  # in place of the offload of part 1
        parts = [model.replace("pipe.enable_model_cpu_offload()\n", ""), code, picture, video]
    names: dict[str, Any] = {"__name__": "__main__"}
    for part in parts:
        exec(compile(part, f"{page.name}, block {block}", "exec"), names)
    assert len(read_video("video.mp4")) == len(names["frames"]) > 1


def test_every_page_of_the_guide_has_a_whole_script_and_a_smaller_card() -> None:
    assert len({page for page, _ in BLOCKS.values()}) == 8
    for page in sorted(FOLDER.glob("*.md")):
        assert BLOCKS[f"{page.stem}-0"][1].startswith("# 1. The model\n")
        assert page.read_text("utf-8").count("## It must fit my card") == 1
