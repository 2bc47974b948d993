"""Graphs for `/prompt`: a tiny Wan, sampled with nodes of unstill between."""

from pathlib import Path
from typing import Any


GIVEN = {
    "positive": 0, "negative": 1, "latent": 2, "image": 3, "clip": 4, "still": 5, "sigmas": 6, "noise": 7, "frames": 8,
}  # fmt: skip


def given(name: str) -> list[Any]:
    return ["given", GIVEN[name]]


def sample(
    folder: Path, out: Path, *nodes: tuple[str, dict[str, Any]], cfg: float = 5.0, file: str = "given.safetensors"
) -> dict[str, Any]:
    """
    The sampling graph; `nodes` are put in one after the other where their inputs fit.

    Each is a node's id without "Unstill", and its widgets.
    """
    at: dict[str, Any] = {name: given(name) for name in GIVEN} | {"model": ["model", 0]}
    graph: dict[str, Any] = {
        "given": {"class_type": "TestGiven", "inputs": {"file": str(folder / file)}},
        "model": {
            "class_type": "UNETLoader", "inputs": {"unet_name": "tiny_wan.safetensors", "weight_dtype": "default"}
        },
    }  # fmt: skip
    for index, (name, widgets) in enumerate(nodes):
        key, inputs, makes = f"unstill{index}", *SOCKETS[name]
        graph[key] = {"class_type": f"Unstill{name}", "inputs": {**{i: at[i] for i in inputs}, **widgets}}
        for slot, made in enumerate(makes):
            at[made] = [key, slot]
    graph |= {
        "guider": {
            "class_type": "CFGGuider",
            "inputs": {"model": at["model"], "positive": at["positive"], "negative": at["negative"], "cfg": cfg},
        },
        "sampler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "sample": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": at["noise"], "guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": at["sigmas"],
                "latent_image": at["latent"],
            },
        },
        "save": {"class_type": "TestSave", "inputs": {"file": str(out), "latent": ["sample", 0]}},
    }  # fmt: skip
    return graph


SOCKETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "EarlyStart": (("sigmas",), ("sigmas",)),
    "AnalyticInitNoise": (("noise", "model", "sigmas"), ("noise",)),
    "FrameInitNoise": (("noise", "model", "image"), ("noise",)),
    "FreeInitNoise": (("noise", "model"), ("noise",)),
    "ProgressiveNoise": (("noise",), ("noise",)),
    "ConditionNoise": (("model",), ("model",)),
    "ConditionAmplitude": (("positive", "negative"), ("positive", "negative")),
    "LowPassGuidance": (("model",), ("model",)),
    "ReferenceBias": (("model",), ("model",)),
    "NoiseRectification": (("model", "image"), ("model",)),
}
