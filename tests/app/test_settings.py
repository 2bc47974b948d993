"""What the page sets: the slider, the fields of the methods, and the code that says it all."""

import dataclasses
import re

import pytest

from unstill.app import form_fields, motion_slider
from unstill.app.code_export import expression, python_code
from unstill.app.words import brief, method_title, sentence
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.methods.analytic_init import AnalyticInit
from unstill.methods.early_start import EarlyStart
from unstill.methods.free_init import FreeInit
from unstill.methods.noise_rectification import NoiseRectification
from unstill.methods.registry import build_method, method_classes
from unstill.models import registry


def test_the_slider_starts_lower_the_more_should_move():
    assert motion_slider.start_level("pico", 0.5) == {"sigma": registry.defaults_of("pico")["sigma"]}
    assert motion_slider.start_level("svd", 0) == {"sigma": 200} and motion_slider.start_level("svd", 1) == {
        "sigma": 50
    }
    levels = [motion_slider.start_level("dynamicrafter-512", slider)["start"] for slider in (0, 0.25, 0.5, 0.75, 1)]
    assert levels[0] == 0.98 and levels[2] == 0.96 and levels[4] == 0.92
    assert levels == sorted(levels, reverse=True)


def test_the_slider_is_the_motion_level_of_models_that_have_one():
    assert motion_slider.motion_level("svd", 0.7) == 0.7
    assert motion_slider.motion_level("lavie", 0.7) is motion_slider.motion_level("pico", 0.7) is None


def test_models_with_statistics_of_their_own_use_them():
    assert registry.usual_method(registry.defaults_of("pico")) == "analytic_init"
    assert registry.usual_method(registry.defaults_of("svd")) == "early_start"
    method = build_method(AnalyticInit, {}, motion_slider.defaults("pico", 1))
    assert method.sigma == 5 and isinstance(method.statistics, LatentStatistics)


def test_every_parameter_of_every_method_is_a_field():
    for name, made in form_fields.form().items():
        expected = {field.name: field.default for field in dataclasses.fields(method_classes()[name])}
        expected.pop("statistics", None)  # come with the model: a path that a visitor types is never read
        assert {field.name: field.default for field in made} == expected
        assert all(field.read(field.shown()) is None for field in made)
        assert all(field.about for field in made if field.method != "image_start"), name
        for field in made:  # plain words before formulas
            first = re.split(r"[.:;,(]", field.about)[0]
            assert not re.search(r"[=^*_<>\[\]]", first) and first[:1] in (first[:1].upper(), '"'), field.about
            assert not re.search(r"[,(] ?see \w+[).]", field.about), field.about
    assert "time_noise" not in form_fields.form()  # for training only


def test_fields_give_what_the_dataclass_takes():
    read = {field.name: field.read for field in form_fields.form()["noise_rectification"]}
    given = {"period": read["period"]("0:0.3"), "posterior": read["posterior"]("mode")}
    assert build_method(NoiseRectification, given) == NoiseRectification(period=(0.0, 0.3), posterior="mode")
    read = {field.name: field.read for field in form_fields.form()["free_init"]}
    given = {"iterations": read["iterations"](3.0), "parity": read["parity"](True)}
    assert read["order"](None) is None
    assert build_method(FreeInit, given) == FreeInit(iterations=3, parity=True)
    assert form_fields.form()["ni_vsds"][1].read("2") == 2.0  # a number where one or several are taken


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("free_init", "iterations", "many"),
        ("free_init", "iterations", 2.5),
        ("free_init", "filter", "../../etc/passwd"),
        ("noise_rectification", "period", "a:b"),
        ("early_start", "sigma", ["1"]),
        ("free_init", "iterations", float("inf")),
    ],
)
def test_what_is_no_value_is_one_sentence(method, name, value):
    field = next(field for field in form_fields.form()[method] if field.name == name)
    with pytest.raises(UnstillError, match=f"{name} of {method_title(method)} takes "):
        field.read(value)


def test_only_methods_that_work_on_the_model_are_offered():
    assert "conditioning_augmentation" in form_fields.offered("PicoPipeline")
    assert "conditioning_augmentation" not in form_fields.offered("AnimateDiffPipeline")
    assert not form_fields.offered("NoSuchPipeline")
    assert "analytic_init" in form_fields.offered("PicoPipeline", registry.defaults_of("pico"))
    assert "analytic_init" not in form_fields.offered("PicoPipeline", {"sigma": 10.0})  # no statistics


def test_code_says_no_more_than_is_needed():
    methods = (EarlyStart(sigma=23.0), NoiseRectification(period=(0.0, 0.3)))
    call = {"output_type": "pt", "prompt": 'a "boat"', "num_frames": 8}
    text = python_code("lavie", call, methods, 7, picture=True)
    assert "apply(pipe, unstill.EarlyStart(sigma=23.0), unstill.NoiseRectification(period=(0.0, 0.3)), image=" in text
    assert "prompt='a \"boat\"', num_frames=8, generator=torch.Generator().manual_seed(7))" in text
    compile(text, "make_again.py", "exec")
    assert expression(EarlyStart(start=0.9), "svd") == "unstill.EarlyStart(start=0.9)"
    usual = registry.defaults_of("pico")["sigma"]
    method = build_method(AnalyticInit, {}, motion_slider.defaults("pico", 0.5))
    assert brief(method) == f"Analytic init, sigma {usual:g}"
    assert brief(NoiseRectification(period=(0.0, 0.3))) == "Noise rectification, period 0 to 0.3"


def test_sentences_of_the_library_name_no_class_and_no_option():
    said = "EarlyStart and NIVSDS exclude each other; StableVideoDiffusionPipeline has no --group-offload."
    assert sentence(said) == "Early start and NI-VSDS exclude each other; the model has no group offload."
    assert sentence("--frames is at least 2.") == "Frames is at least 2."
    assert sentence("pico does not know 'elephant'.") == "pico does not know 'elephant'."
    assert sentence("WanPipeline takes no picture.") == "The model takes no picture."
