"""Public names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, fallback: Callable[[str], Any] = lambda name: None
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """
    Defers the imports that a package has under `if TYPE_CHECKING:` to the first use of each name. They are the only
    list of public names: type checkers and editors read them, and so does this function, from the source.

    Args:
        package: the package's `__name__`.
        fallback: looks up a capitalised name that is not listed; returns `None` if there is none.

    Returns:
        `__all__`, `__getattr__` and `__dir__` of the package.
    """
    homes = _imports(package)
    public = sorted(homes)

    def __getattr__(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            value = fallback(name) if name[:1].isupper() else None
            if value is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
        else:
            value = import_module(f"{package}.{name}") if home == package else getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*public, *vars(sys.modules[package])})

    return public, __getattr__, __dir__


def _imports(package: str) -> dict[str, str]:
    """The module of every name imported under `if TYPE_CHECKING:`; for a submodule, the package itself."""
    loader: Any = getattr(sys.modules[package].__spec__, "loader", None)
    source = loader.get_source(package) if hasattr(loader, "get_source") else None
    if source is None:
        raise ImportError(f"{package} needs its own source file: install it with the .py files.")
    modules: dict[str, str] = {}
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            for statement in block.body:
                if isinstance(statement, ast.ImportFrom) and statement.module:
                    modules.update({name.name: statement.module for name in statement.names})
    return modules
