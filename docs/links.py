"""Links between pages, and out of docs/ to files that the site shows elsewhere or not at all."""

import re
from pathlib import PurePosixPath


LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
MOVED = {"benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changes.md", "README.md": "index.md"}


def normal(path: PurePosixPath) -> str:
    """A path without `..` and `.`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def external(target: str) -> bool:
    return ":" in target


def moved_in(markdown: str, old: str) -> str:
    """A page from outside docs/ (`old`, seen from the root), its links rewritten as seen from docs/."""
    there = PurePosixPath(old).parent

    def link(found: re.Match[str]) -> str:
        bang, label, target, anchor = found.groups()
        if external(target) or not target:
            return found[0]
        path = normal(there / target)
        new = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        return f"{bang}[{label}]({new}{anchor or ''})"

    return LINK.sub(link, markdown)


def kept_in(markdown: str, source: str, modules: dict[str, str]) -> str:
    """
    Links of the page `source` (seen from docs/) that leave docs/: to the page of the site that shows the file, else
    only their words. `modules`: module -> page of the reference.
    """
    here = PurePosixPath("docs") / source
    up = "../" * (len(here.parts) - 2)

    def link(found: re.Match[str]) -> str:
        bang, label, target, anchor = found.groups()
        if external(target) or not target.startswith("../"):
            return found[0]
        path = normal(here.parent / target)
        if path.startswith("docs/"):
            return found[0]
        if path in MOVED:
            return f"{bang}[{label}]({up}{MOVED[path]}{anchor or ''})"
        module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"[{label}]({up}{modules[module]}#{module})" if module in modules else label

    return LINK.sub(link, markdown)
