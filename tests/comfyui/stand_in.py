"""
What the nodes use of ComfyUI, made here: `comfy_api.latest` and `folder_paths`, a model and its wrappers.

It records what a schema declares and runs wrappers as ComfyUI does; test_real.py runs the same nodes in the real one.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


class Socket:
    def __init__(self, kind: str, way: str, id: str = "", **declared: Any) -> None:
        self.kind, self.way, self.id = kind, way, id or declared.pop("display_name", "")
        self.declared = declared


class Type:
    def __init__(self, kind: str) -> None:
        self.Input = lambda id, **declared: Socket(kind, "in", id, **declared)
        self.Output = lambda **declared: Socket(kind, "out", **declared)


class Schema(SimpleNamespace):
    def frozen(self) -> dict[str, Any]:
        """As it is kept: what a workflow file of a user depends on."""
        return {
            "name": self.display_name,
            "category": self.category,
            "inputs": {
                one.id: [one.kind, {k: v for k, v in one.declared.items() if k != "tooltip"}] for one in self.inputs
            },
            "outputs": {one.id: one.kind for one in self.outputs},
        }


class NodeOutput(tuple):
    def __new__(cls, *values: Any, ui: Any = None) -> "NodeOutput":
        return super().__new__(cls, values)


def install() -> None:
    """Puts the stand-ins where the nodes import from, unless the real ones are there."""
    if "comfy_api.latest" in sys.modules:
        return
    kinds = "Sigmas Noise Model Latent Combo Float Int Boolean String Image Guider Conditioning".split()
    io = SimpleNamespace(ComfyNode=object, Schema=Schema, NodeOutput=NodeOutput, **{k: Type(k) for k in kinds})
    latest, paths = ModuleType("comfy_api.latest"), ModuleType("folder_paths")
    latest.io, latest.ui, latest.ComfyExtension = io, SimpleNamespace(PreviewText=str), object  # type: ignore[attr-defined]
    paths.models_dir, paths.folder_names_and_paths, paths.files = "models", {}, {}  # type: ignore[attr-defined]
    paths.add_model_folder_path = lambda name, path: paths.folder_names_and_paths.update({name: path})  # type: ignore
    paths.get_filename_list = lambda name: sorted(paths.files)  # type: ignore[attr-defined]
    paths.get_full_path_or_raise = lambda name, file: paths.files[file]  # type: ignore[attr-defined]
    sys.modules |= {"comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest, "folder_paths": paths}


class Flow:
    sigma_max = 1.0

    def noise_scaling(self, sigma: Any, noise: Any, image: Any, max_denoise: bool = False) -> Any:
        return sigma * noise + (1 - sigma) * image


class Exploding:
    """Stable Video Diffusion's: x = video + sigma noise."""

    sigma_max = 700.0

    def noise_scaling(self, sigma: Any, noise: Any, image: Any, max_denoise: bool = False) -> Any:
        return noise * ((1 + sigma**2) ** 0.5 if max_denoise else sigma) + image

    def percent_to_sigma(self, percent: float) -> float:
        return float(0.002 * (700 / 0.002) ** (1 - percent))


class Model:
    def __init__(self, sampling: Any = None) -> None:
        self.objects = {"model_sampling": sampling or Flow(), "process_latent_in": lambda x: (x - 1) / 2}
        self.wrappers: list[tuple[str, Any]] = []
        self.post_cfg: list[Any] = []

    def get_model_object(self, name: str) -> Any:
        return self.objects[name]

    def clone(self) -> "Model":
        made = Model()
        made.objects, made.wrappers, made.post_cfg = self.objects, [*self.wrappers], [*self.post_cfg]
        return made

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Any) -> None:
        self.wrappers.append((kind, wrapper))

    def set_model_sampler_post_cfg_function(self, function: Any) -> None:
        self.post_cfg.append(function)

    def seen(self, x: torch.Tensor, sigma: float, c_concat: Any = None, **more: Any) -> dict[str, Any]:
        """What the network would be called with."""
        got: dict[str, Any] = {}

        def network(x: Any, t: Any, c_concat: Any, context: Any, control: Any, options: Any, **more: Any) -> Any:
            got.update(x=x, c_concat=c_concat, options=options, **more)
            return x

        call = network
        for kind, wrapper in self.wrappers:
            if kind == "apply_model":
                call = lambda *a, w=wrapper, c=call, **k: w(c, *a, **k)  # noqa: E731
        options = {"sample_sigmas": torch.linspace(1, 0, 11), "cond_or_uncond": [0] * len(x)}
        options |= more.pop("options", {})
        call(x, torch.full((len(x),), sigma), c_concat, None, None, options, **more)
        return got


class Noise:
    def __init__(self, seed: int = 3) -> None:
        self.seed = seed

    def generate_noise(self, latent: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(self.seed))
