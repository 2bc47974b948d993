"""The names and signatures that code outside relies on. What a signature has beyond them must be optional."""

import inspect
from importlib import import_module

import pytest

import unstill


REQUIRED = inspect.Parameter.empty
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
SIGNATURES = {
    "forward_process.ForwardProcess.of": {"scheduler": REQUIRED, "kind": None},
    "forward_process.ForwardProcess.alpha_sigma": {"t": REQUIRED},
    "forward_process.ForwardProcess.add_noise": {"x0": REQUIRED, "eps": REQUIRED, "t": REQUIRED},
    "forward_process.ForwardProcess.to_x0": {"output": REQUIRED, "sample": REQUIRED, "t": REQUIRED},
    "forward_process.ForwardProcess.to_eps": {"output": REQUIRED, "sample": REQUIRED, "t": REQUIRED},
    "forward_process.ForwardProcess.correct": dict.fromkeys(("output", "delta_eps", "sample", "t"), REQUIRED),
    "latent_statistics.LatentStatistics.update": {"latents": REQUIRED},
    "latent_statistics.LatentStatistics.merge": {"other": REQUIRED},
    "latent_statistics.LatentStatistics.save": {"path": REQUIRED},
    "latent_statistics.LatentStatistics.load": {"path": REQUIRED},
    "methods.analytic_init.initial_latents": dict.fromkeys(("mean", "variance", "alpha", "sigma", "noise"), REQUIRED),
    "methods.noise_rectification.frame_weights": {"frames": REQUIRED, "start": 1.0, "end": 0.5},
    "methods.noise_rectification.rectify": {"eps": REQUIRED, "noise": REQUIRED, "weights": REQUIRED},
    "methods.ni_vsds.update": dict.fromkeys(("video", "eps", "noise", "weight", "step_size"), REQUIRED),
    "methods.time_noise.center": {"t": REQUIRED, "exponent": REQUIRED, "scale": 1.0},
    "methods.time_noise.sample_level": {
        **dict.fromkeys(("t", "maximum", "exponent", "normal"), REQUIRED),
        "scale": 1.0,
    },
    "methods.frequency.low_pass": {
        **dict.fromkeys(("shape", "kind", "spatial", "temporal"), REQUIRED),
        "order": 4,
        "parity": False,
    },
    "methods.frequency.mix": {"low": REQUIRED, "high": REQUIRED, "mask": REQUIRED},
    "methods.progressive_noise.mixed": {"shared": REQUIRED, "independent": REQUIRED, "alpha": REQUIRED},
    "methods.progressive_noise.progressive": {"first": REQUIRED, "independent": REQUIRED, "alpha": REQUIRED},
    "metrics.frechet_distance": {"x": REQUIRED, "y": REQUIRED, "unbiased": True},
    "metrics.inception_score": {"probabilities": REQUIRED, "splits": 10},
    "metrics.motion_score": {"video": REQUIRED, "flow": "farneback", "size": (450, 800), "reduction": "sum"},
    "metrics.motion_affinity": {"video": REQUIRED, "condition_frame": 0, "edges": True},
    "animate": {"image": None},
    "compare": {"settings": ()},
    "diagnose": {"model": "pico"},
    "verify": {"model": REQUIRED},
    "evaluate": {"generated": REQUIRED, "reference": None},
    "load": {"name_or_path": REQUIRED},
    "i4vgen": {"pipe": REQUIRED, "prompt": REQUIRED, "image": None},
}


def find(name: str):
    """What stands at a dotted name below `unstill`, modules imported on the way."""
    thing = unstill
    path = "unstill"
    for part in name.split("."):
        path = f"{path}.{part}"
        thing = getattr(thing, part) if hasattr(thing, part) else import_module(path)
    return thing


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    parameters = inspect.signature(find(name)).parameters
    given = {key: one.default for key, one in parameters.items() if one.kind in POSITIONAL and key != "self"}
    expected = SIGNATURES[name]
    assert dict(list(given.items())[: len(expected)]) == expected
    assert list(given)[: len(expected)] == list(expected)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    beyond = [one for key, one in parameters.items() if key not in expected and key != "self"]
    assert all(one.default is not REQUIRED or one.kind in variable for one in beyond)


def test_apply_takes_a_pipeline_and_methods():
    pipe, methods, *beyond = inspect.signature(unstill.apply).parameters.values()
    assert (pipe.name, pipe.kind in POSITIONAL) == ("pipe", True)
    assert (methods.name, methods.kind) == ("methods", inspect.Parameter.VAR_POSITIONAL)
    assert all(one.default is not REQUIRED for one in beyond)


@pytest.mark.parametrize("package", ["unstill", "unstill.metrics", "unstill.text_to_video"])
def test_every_public_name_is_there(package):
    module = import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None, name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
