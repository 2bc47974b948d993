"""The parameters of `unstill.animate` are declared once: its signature, its help and the options come from there."""

import dataclasses
import inspect

import pytest
import typer
from typer.testing import CliRunner

import unstill
from unstill.animation_settings import AnimationSettings, OneImage
from unstill.cli import app
from unstill.cli.animate import GROUPS
from unstill.errors import UnstillError
from unstill.parameters import descriptions


FIELDS = {field.name: field for field in dataclasses.fields(AnimationSettings)}
PYTHON_ONLY = {"pipe", "command", "progress"}  # not typed by a person
OTHER_OPTIONS = {"offload", "candidates"}  # of which several options are made


def test_the_function_has_the_fields_as_parameters_with_their_defaults():
    parameters = inspect.signature(unstill.animate).parameters
    assert list(parameters) == ["image", *FIELDS]
    for name, field in FIELDS.items():
        assert parameters[name].default == field.default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["image"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_every_parameter_is_described_where_a_user_looks():
    assert descriptions(AnimationSettings).keys() == FIELDS.keys()
    for function, first in ((unstill.animate, "image"), (unstill.animate_all, "images")):
        written = inspect.getdoc(function)
        for name in (first, *FIELDS):
            assert f"\n    {name}: " in written
        assert written.index("Args:") < written.index("Returns:") < written.index("Raises:")


def test_every_field_is_an_option_with_its_default_and_limits():
    command = typer.main.get_command(app).commands["animate"]
    options = {parameter.name: parameter for parameter in command.params}
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(FIELDS.keys() - PYTHON_ONLY - OTHER_OPTIONS)
    for name in grouped:
        field, option = FIELDS[name], options[name]
        assert option.default == (None if field.default == () else field.default), name
        assert option.help and option.help[0].isupper() or name in ("methods", "out", "size"), name


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if "least" in field.metadata])
def test_numbers_out_of_their_range_are_refused(name):
    least, most = FIELDS[name].metadata["least"], FIELDS[name].metadata.get("most")
    OneImage(**{name: least}).check()
    for wrong in (least - 1, *([most + 1] if most else [])):
        with pytest.raises(UnstillError, match=f"--{name} "):
            OneImage(**{name: wrong}).check()
        typed = CliRunner().invoke(app, ["animate", f"--{name}", str(wrong)])
        assert typed.exit_code == 2 and f"--{name} should be " in typed.stderr
    with pytest.raises(UnstillError, match=f"--{name} "):
        OneImage(**{name: float("nan")}).check()
