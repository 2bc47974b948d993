"""
The size of a checkout in figures: `python benchmarks/house.py [CHECKOUT]` prints JSON.

Lines, modules and names are read off the source. `--mypy` adds the errors of mypy --strict in src, those of them that
are in the signature of something public (what a user's own type checker can meet), and how many names of `unstill`
mypy takes for `Any`, which have no type.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def public_names(checkout: Path) -> list[str]:
    """The names in `__all__` of the package, without importing networks."""
    code = "import json, unstill; print(json.dumps(sorted(unstill.__all__)))"
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def source_figures(checkout: Path) -> dict[str, object]:
    """Lines, modules, top-level names without an underscore, and the longest function."""
    files = sorted((checkout / "src").rglob("*.py"))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    trees = {file: ast.parse(text) for file, text in texts.items()}
    names = 0
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, FUNCTION | ast.ClassDef):
                defined = [node.name]
            elif isinstance(node, ast.Assign):
                defined = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined = [node.target.id]
            else:
                continue
            names += sum(not name.startswith("_") for name in defined)
    functions = [
        ((node.end_lineno or 0) - node.lineno + 1, f"{file.relative_to(checkout)}::{node.name}")
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION)
    ]
    lines, longest = max(functions)
    modules = {file: text.count("\n") for file, text in texts.items()}
    largest = max(modules, key=lambda file: modules[file])
    return {
        "lines": sum(modules.values()),
        "lines of code": sum(code_lines(tree) for tree in trees.values()),
        "modules": len(files),
        "largest module": f"{largest.relative_to(checkout)}: {modules[largest]} lines",
        "public names of modules": names,
        "longest function": f"{longest}: {lines} lines",
        "functions over 60 lines": sum(length > 60 for length, _ in functions),
    }


def code_lines(tree: ast.Module) -> int:
    """Lines that hold code: neither empty nor a comment nor a docstring."""
    held: set[int] = set()
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.stmt) and not hasattr(node, "body"):
            held.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, FUNCTION | ast.ClassDef | ast.If | ast.For | ast.While | ast.With | ast.Try):
            held.add(node.lineno)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held - docstrings)


def mypy_figures(checkout: Path, names: list[str]) -> dict[str, object]:
    """
    What mypy says of the source in strict mode, and of the type of every public name.

    Raises:
        SystemExit: mypy is not installed, or failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        use = Path(folder) / "use.py"
        reveals = [f"reveal_type(unstill.{name})  # {name}" for name in names]
        use.write_text("import unstill\n\n" + "\n".join(reveals) + "\n", encoding="utf-8")
        use_text = mypy_output(checkout, folder, str(use))
        source_text = mypy_output(checkout, folder, "src")
    untyped = []
    for line, name in enumerate(names, 3):
        match = re.search(rf"use\.py:{line}: note: Revealed type is \"(.*)\"", use_text)
        if match is None or match[1] == "Any":
            untyped.append(name)
    errors = re.findall(r"^(\S+?):(\d+): error:.*\[([\w-]+)\]$", source_text, re.MULTILINE)
    signatures = {file: signature_lines(checkout / file) for file, _, _ in errors}
    public = [(file, line, kind) for file, line, kind in errors if int(line) in signatures[file]]
    return {
        "mypy --strict errors in src": len(errors),
        "of which by kind": dict(Counter(kind for _, _, kind in errors).most_common()),
        "in signatures of public names": len(public),
        "of which not because a base class or decorator of another library has no types": sum(
            kind not in ("misc", "untyped-decorator") for _, _, kind in public
        ),
        "names of unstill that mypy sees as Any": f"{len(untyped)} of {len(names)}",
    }


def mypy_output(checkout: Path, folder: str, target: str) -> str:
    """What mypy --strict prints about a file or folder; its cache is kept in `folder`."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", f"{folder}/cache"]
    command += ["--config-file", str(checkout / "pyproject.toml"), target]
    environment = os.environ | {"MYPYPATH": str(checkout / "src")}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    if done.returncode not in (0, 1) or "No module named mypy" in done.stderr:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        sys.exit(f"mypy could not check {target} ({reason[-1]}); install it: python -m pip install mypy.")
    return done.stdout


def signature_lines(file: Path) -> set[int]:
    """Lines of decorators, arguments and bases of public classes and functions, and of their public methods."""
    lines: set[int] = set()

    def add(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, FUNCTION | ast.ClassDef) and (
                not node.name.startswith("_") or node.name == "__init__"
            ):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                lines.update(range(first, node.body[0].lineno))
                if isinstance(node, ast.ClassDef):
                    add(node.body)
            elif isinstance(node, ast.AnnAssign):
                lines.add(node.lineno)

    add(ast.parse(file.read_text(encoding="utf-8")).body)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--mypy", action="store_true", help="also run mypy --strict, which takes minutes")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    names = public_names(checkout)
    figures = {"names of unstill": len(names), **source_figures(checkout)}
    if options.mypy:
        figures |= mypy_figures(checkout, names)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
