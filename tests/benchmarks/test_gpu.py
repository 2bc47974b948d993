"""benchmarks/gpu.py on a CPU: its tiny pipelines, and what it writes of parts that fail or get no time."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

import unstill
from benchmarks import gpu


CPU = torch.device("cpu")


def test_costs_of_methods_and_of_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = gpu.methods_for("wan", (16, 3, 4, 4))
    wrong = unstill.ConditioningAugmentation()  # its denoiser sees no image
    monkeypatch.setattr(gpu, "methods_for", lambda *_: {"EarlyStart": cases["EarlyStart"], "wrong": (wrong,)})
    costs = gpu.methods_on("wan", CPU, True, 3, time.monotonic() + 60)
    assert list(costs) == ["plain", "EarlyStart", "wrong", "plain again"]
    assert costs["wrong"]["error"].startswith("UnstillError: ")
    for label in ("plain", "EarlyStart"):
        assert costs[label]["ms a step"] > 0 and costs[label]["finite"] and costs[label]["finite in float16"]
        assert costs[label]["synchronisations a call of 2 steps"] > 0


def test_the_small_pipeline_of_svd_takes_its_methods() -> None:
    pipe, call = gpu.svd(CPU, torch.float32, True)  # in half precision a CPU takes seconds
    cases = gpu.methods_for("svd", (4, 4, 8, 8))
    assert {"apply(pipe)", "FreeInit", "ConditioningAugmentation"} < cases.keys()
    assert gpu.run_call(pipe, call, cases["AnalyticInit"], 2, "svd")["finite"]


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def methods_on(name: str, *_: object) -> dict[str, object]:
        if name == "svd":
            raise RuntimeError("no memory")
        return {"plain": 1}

    monkeypatch.setattr(gpu, "methods_on", methods_on)
    monkeypatch.setattr(gpu, "pico_training", lambda *_: {"2": 3.0})
    monkeypatch.setattr(gpu, "dynamicrafter", lambda *_: {"half, eager": 1.0})
    results = written(tmp_path, monkeypatch, "450")
    assert results["svd 14x576x1024"] == {"error": "RuntimeError: no memory"}
    assert results["wan 1.3B 81x480x832"] == {"plain": 1} and results["device"] == "CPU" and results["small"]
    assert set(written(tmp_path, monkeypatch, "0").values()) > {"no time left"}


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: str) -> dict[str, object]:
    out = folder / "gpu.json"
    words = ["gpu.py", "--small", "--device", "cpu", "--seconds", seconds, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    gpu.main()
    results: dict[str, object] = json.loads(out.read_text())
    return results
