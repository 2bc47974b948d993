"""The family files together: every role belongs to a supported pipeline, and nothing is defined twice."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import diffusers
import pytest

import unstill.families
from unstill.families.base import Family
from unstill.families.registry import ADAPTERS, FAMILIES, MODELS, NO_FAMILY, UNSUPPORTED, family_of
from unstill.text_to_video import reward_named


FOLDER = Path(unstill.families.__file__).parent


def test_every_file_is_a_family_or_a_part_of_them():
    files = {file.stem for file in FOLDER.glob("*.py")} - {"__init__"}
    assert FAMILIES.keys() == files - NO_FAMILY and files >= NO_FAMILY
    assert all(isinstance(family, Family) for family in FAMILIES.values())


def test_nothing_is_defined_twice():
    for role in ("adapters", "unsupported", "image_modes", "training"):
        counts = Counter(name for family in FAMILIES.values() for name in getattr(family, role))
        assert max(counts.values()) == 1, counts.most_common(1)
    assert not ADAPTERS.keys() & UNSUPPORTED.keys()
    assert len({model.name for model in MODELS}) == len(MODELS)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_roles_of_a_family_are_about_its_own_pipelines(name):
    family = FAMILIES[name]
    assert family.image_modes.keys() | family.training.keys() <= family.adapters.keys()
    assert {model.pipeline for model in family.models} <= family.adapters.keys()
    assert callable(reward_named(family.reward))


@pytest.mark.parametrize("name", ADAPTERS)
def test_supported_pipelines_are_classes_of_their_familys_module(name):
    pipeline = getattr(importlib.import_module(family_of(name).module), name)
    assert issubclass(pipeline, (diffusers.DiffusionPipeline, diffusers.ModularPipeline))


def test_families_import_nothing_that_uses_them():
    allowed = {"data", "errors", "families", "forward_process", "predictions"}
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                parts = module.split(".")
                assert parts[0] != "unstill" or parts[1] in allowed, f"{file.name} imports {module}"


def test_the_registry_imports_no_diffusers():
    probe = "import sys, unstill.families.registry; print('diffusers' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
