"""docs/architecture.md: imports run downwards, as its picture of the floors says; the pictures are the script's."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from unstill.methods.base import Method


ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "unstill"
sys.path.insert(0, str(ROOT / "docs"))
import architecture  # noqa: E402


# Part of the package -> (floor, box); floor 0 is the top.
PLACE = {
    part: (floor, title)
    for floor, boxes in enumerate(architecture.FLOORS)
    for title, parts, _ in boxes
    for part in parts
}


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> list[str]:
    """The parts of the package that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            parents = node.module == "unstill"
            names += [f"unstill.{alias.name}" for alias in node.names] if parents else [node.module or ""]
    found = [name.split(".") for name in names if name.split(".")[0] == "unstill"]
    parts = [name[1] if len(name) > 1 else "__init__" for name in found]
    return [part if part in PLACE else "__init__" for part in parts]


def upward(part: str, other: str) -> bool:
    (floor, box), (other_floor, other_box) = PLACE[part], PLACE[other]
    return other_floor <= floor and box != other_box


def test_every_part_of_the_package_stands_on_a_floor() -> None:
    parts = {part_of(file) for file in PACKAGE.rglob("*.py")}
    assert parts == set(PLACE)


def test_no_import_runs_upwards() -> None:
    edges = {(file, other) for file in PACKAGE.rglob("*.py") for other in imports(file)}
    assert len(edges) > 300
    assert [
        f"{file.relative_to(PACKAGE)} imports {other}" for file, other in edges if upward(part_of(file), other)
    ] == []


def modules() -> dict[str, Path]:
    """The files of the package by module name."""
    names = {file: ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


def test_no_two_modules_import_each_other() -> None:
    """Neither directly nor through others, imports inside functions and for type checkers included."""
    known, uses = modules(), TopologicalSorter[str]()
    for name, file in known.items():
        if file.name == "__init__.py":  # names of a package that are passed on
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in known:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
                uses.add(name, *(target if target in known else node.module for target in targets))
    assert len(list(uses.static_order())) > 200  # raises CycleError


def test_upward_is_what_the_picture_says() -> None:
    assert upward("methods", "hooks") and upward("methods", "families") and upward("data", "cli")
    assert not upward("hooks", "methods") and not upward("statistics_estimation", "latent_statistics")


@pytest.mark.parametrize("name", architecture.PICTURES)
def test_the_pictures_are_those_of_the_script(name: str) -> None:
    written = (ROOT / "docs" / "architecture" / f"{name}.svg").read_text("utf-8")
    assert written == architecture.PICTURES[name]()


def test_the_pages_name_every_hook_of_a_method() -> None:
    hooks = {name for name in vars(Method) if name.startswith("on_")}
    assert len(hooks) > 9
    for page in ("architecture.md", "extend.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert {hook for hook in hooks if f"`{hook}" not in text} == set(), page


COMMANDS = {"animate", "app", "compare", "convert", "diagnose", "evaluate", "train", "verify"}
"""Functions of the CLI, with the names of the functions that they call."""


def test_a_public_name_has_one_meaning() -> None:
    places: dict[str, set[str]] = {}
    for name, file in modules().items():
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, set()).add(name)
    several = {name: sorted(where) for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in several.items() if name not in COMMANDS} == {}
