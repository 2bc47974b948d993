"""
The pages of docs/guide: every block of code is run as it stands there, on the tiny pipeline of its class (see
`tests.docs.tiny_hub`), and the first of a page also as a script of its own.
"""

import os
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

import unstill
from tests.docs.tiny_hub import replace_hub
from tests.pipelines import CASES, _made, picture, pipeline
from tests.processes import finish, start
from unstill.data import read_video


FOLDER = Path(__file__).parents[2] / "docs" / "guide"
BLOCKS = {
    f"{page.stem}-{number}": (page, block)
    for page in sorted(FOLDER.glob("*.md"))
    for number, block in enumerate(re.findall(r"^```py\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a photo, in which models can be fetched and a GPU is the CPU."""
    replace_hub(monkeypatch)
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


def run_script(folder: Path, name: str) -> None:
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        replace_hub(patch)
        runpy.run_path(name, run_name="__main__")


def test_a_script_in_an_empty_folder(tmp_path: Path) -> None:
    """One page as a user runs it, in a process of its own; benchmarks/walks.py times all."""
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "photo.jpg")
    (tmp_path / "video.py").write_text(BLOCKS["wan21-0"][1], "utf-8")
    finish([start(run_script, tmp_path, "video.py")])
    assert len(read_video(tmp_path / "video.mp4")) > 1


PIPELINES = {
    "animatediff": ("AnimateDiffPipeline", "AnimateDiffSparseControlNetPipeline"),
    "cogvideox": ("CogVideoXImageToVideoPipeline",),
    "dynamicrafter": ("DynamiCrafterPipeline",),
    "hunyuanvideo15": ("HunyuanVideo15ImageToVideoPipeline",),
    "ltx": ("LTXImageToVideoPipeline", "LTX2ImageToVideoPipeline"),
    "svd": ("StableVideoDiffusionPipeline",),
    "wan21": ("WanImageToVideoPipeline",),
    "wan22": ("Wan 2.2 A14B",),
}


@pytest.mark.parametrize("page", sorted(path.stem for path in FOLDER.glob("*.md")))
def test_the_remedies_of_a_page_work_on_its_pipelines(page: str) -> None:
    text = (FOLDER / f"{page}.md").read_text("utf-8").split("\n## Other remedies\n")[1].split("\n## ")[0]
    codes = re.findall(r"^\|[^|]*\| `([^`]+)`", text, re.MULTILINE)
    assert len(codes) >= 3 and "(../lab/remedies.md)" in text
    for code in codes:
        method = eval(f"unstill.{code}", {"unstill": unstill})
        for name in PIPELINES[page]:
            image = {} if CASES[name].image else {"image": picture()}
            unstill.apply(pipeline(name), method, **image).remove()
