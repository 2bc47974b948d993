"""
The hub in small: `from_pretrained` of diffusers returns tiny random pipelines, and a GPU is the CPU.

    python -m tests.docs.tiny_hub SCRIPT.py     # runs a script of docs/guide as it stands there

Only what comes from a network is replaced. The call of a tiny pipeline makes a small video of prepared prompt
embeddings; one with an argument that the pipeline does not have fails.
"""

import functools
import inspect
import runpy
import sys
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_model import FromOriginalModelMixin

import unstill
from tests.pipelines import CASES, _made, animatediff_ip_adapter
from unstill.models import registry


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


def replace_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until `monkeypatch` is undone, models are fetched from here."""

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


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        replace_hub(patch)
        runpy.run_path(sys.argv[1], run_name="__main__")
