"""What a person types: methods, sizes, names, and what is said when it is wrong."""

import pytest

from unstill.cli.options import describe_method, method_classes, parse_method, parse_size
from unstill.errors import UnstillError
from unstill.latent_statistics import LatentStatistics
from unstill.methods.analytic_init import AnalyticInit
from unstill.methods.early_start import EarlyStart


def test_every_method_file_is_found_under_its_name():
    found = method_classes()
    assert found["early_start"] is EarlyStart and found["analytic_init"] is AnalyticInit
    assert "base" not in found and "frequency" not in found


@pytest.mark.parametrize(
    "text",
    ["early_start:start=0.9", "Early-Start: start=0.9", "EarlyStart:start=0.9", "early_start:sigma=none,start=.9"],
)
def test_values_get_the_type_of_the_annotation(text):
    assert parse_method(text) == EarlyStart(start=0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo", "no method 'foo'; Known: early_start"),
        ("early_strat", "did you mean 'early_start'?"),
        ("early_start:strat=0.9", "no parameter 'strat'; did you mean 'start'?"),
        ("early_start:start=high", "early_start:start takes a number, not 'high'"),
        ("early_start:0.9", "not a setting of early_start"),
        ("early_start:start=2", "in (0, 1]"),
        ("early_start:start=0.9,sigma=3", "exactly one"),
        ("analytic_init:start=0.9", "needs statistics"),
        ("progressive_noise:alpha=1e300", "from 0 to a million, not 1e+300"),
        ("progressive_noise:alpha=nan", "alpha takes a number, not 'nan'"),
        ("progressive_noise:alpha=1_0", "alpha takes a number, not '1_0'"),
        ("free_init:iterations=1e9", "iterations takes a whole number, not '1e9'"),
        ("free_init:iterations=1000000000", "1 to 1000 iterations, not 1000000000"),
        ("free_init:iterations=\u0665", "iterations takes a whole number"),
        ("free_init:spatial=1e-300", "stop frequencies of 0 or from 0.0001 to 10,000"),
        ("free_init:order=100000", "order from 1 to 1000"),
        ("frame_init:temporal=1e300", "stop frequencies"),
        ("time_noise:maximum=1e300", "each at most a million"),
        ("noise_rectification:weights=1:1e300", "at most a million"),
        (
            "noise_rectification:curve=1:inf",
            "takes 2 finite numbers with ':' between them, as 0:0.6, not '1:inf'",
        ),
        ("ni_vsds:step_size=1e300", "at most a million"),
        ("conditioning_augmentation:betas=0.5:7", "a rising schedule in (0, 1)"),
        ("x" * 100_000, "there is no method 'xxx"),
        ("early_start:start=" + "9" * 100_000, "start takes a number"),
        ("analytic_init:statistics=nowhere.safetensors,start=0.9", "nowhere.safetensors"),
    ],
)
def test_mistakes_name_what_is_known(text, says):
    with pytest.raises(UnstillError) as error:
        parse_method(text)
    assert says.lower() in str(error.value).lower()
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_several_numbers_have_colons_between_them():
    method = parse_method("noise_rectification:period=0:0.5,weights=1:0.8:0.5")
    assert (method.period, method.weights) == ((0.0, 0.5), (1.0, 0.8, 0.5))
    assert describe_method(method)["parameters"]["period"] == [0.0, 0.5]
    with pytest.raises(UnstillError, match="0:0.6"):
        parse_method("noise_rectification:period=0.5")


def test_a_models_defaults_fill_what_is_left_out_and_nothing_else(tmp_path):
    import torch

    statistics = LatentStatistics()
    statistics.update(torch.randn(3, 2, 4, 5, 5))
    statistics.save(tmp_path / "s.safetensors")
    defaults = {"sigma": 6.0, "statistics": statistics}
    assert parse_method("early_start", defaults) == EarlyStart(sigma=6.0)
    assert parse_method("early_start:start=0.9", defaults) == EarlyStart(start=0.9)
    assert parse_method("analytic_init", defaults).statistics is statistics
    # A preset brings its own level: the default one must not join it.
    preset = parse_method("analytic_init:paper-svd", defaults)
    assert (preset.start, preset.sigma) == (None, 100.0)
    given = parse_method(f"analytic_init:statistics={tmp_path / 's.safetensors'},sigma=3", defaults)
    assert given.sigma == 3.0 and torch.equal(given.statistics.mean, statistics.mean)


def test_a_described_method_says_all_its_parameters():
    assert describe_method(EarlyStart(sigma=2.0)) == {
        "name": "early_start",
        "parameters": {"start": None, "sigma": 2.0},
    }


def test_sizes_are_width_first():
    assert parse_size("512x320") == (320, 512)
    for wrong in (
        "512",
        "512x",
        "axb",
        "0x5",
        "5x-5",
        "",
        "\u0665x\u0665",
        "\u00b2x\u00b2",
        "99999x1",
        "9" * 9000 + "x1",
    ):
        with pytest.raises(UnstillError, match="WIDTHxHEIGHT"):
            parse_size(wrong)
