"""What benchmarks, ComfyUI nodes and scripts of the docs import from the package exists: mypy does not read them."""

import ast
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


def names_of(body: list[ast.stmt]) -> set[str]:
    """The names that statements define, imports and branches included."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.If | ast.Try):
            names |= names_of(node.body) | names_of(node.orelse)
    return names


@pytest.fixture(scope="module")
def package() -> dict[str, set[str]]:
    """The names of every module."""
    modules = {}
    for file in (ROOT / "src").rglob("*.py"):
        name = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        modules[name] = names_of(ast.parse(file.read_text("utf-8")).body)
    return modules


@pytest.mark.parametrize("folder", ["benchmarks", "comfyui", "docs"])
def test_what_is_imported_from_the_package_exists(folder: str, package: dict[str, set[str]]) -> None:
    missing, count = [], 0
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "unstill":
                for alias in node.names:
                    count += 1
                    submodule = f"{node.module}.{alias.name}" in package
                    if not submodule and alias.name not in package.get(str(node.module), set()):
                        missing.append(f"{file.relative_to(ROOT)}: {node.module}.{alias.name}")
    assert missing == [] and count > 5
