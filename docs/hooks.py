"""MkDocs hooks: the generated pages, their places in the navigation, and links that point out of docs/."""

import re
from pathlib import PurePosixPath
from typing import Any

import pages
from mkdocs.structure.files import File


OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
MOVED = {"benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changes.md", "README.md": "index.md"}


def generated() -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    from unstill.attach.support import refusals

    table = refusals()
    made = {"commands/index.md": pages.commands(), "models/index.md": pages.models()}
    made |= {f"commands/{name}.md": pages.command(name, verb) for name, verb in pages.verbs().items()}
    made |= {f"models/{one.name}.md": pages.model(one, table[one.pipeline]) for one in pages.MODELS}
    made |= {f"reference/{page}.md": pages.reference(page) for page in pages.REFERENCE}
    made["reference/index.md"] = pages.reference_index()
    made |= {new: _moved((pages.ROOT / old).read_text(), old) for old, new in MOVED.items() if new != "index.md"}
    return made


def on_config(config: Any) -> Any:
    titles = {
        "commands/index.md": [{name: f"commands/{name}.md"} for name in pages.verbs()],
        "models/index.md": [{one.name: f"models/{one.name}.md"} for one in pages.MODELS],
        "reference/index.md": [{title: f"reference/{page}.md"} for page, (title, *_) in pages.REFERENCE.items()],
    }
    _append(config.nav, titles)
    return config


def _append(nav: list[Any], titles: dict[str, list[dict[str, str]]]) -> None:
    """Adds generated pages behind the page that opens their section."""
    for entry in list(nav):
        if isinstance(entry, str) and entry in titles:
            at = nav.index(entry) + 1
            nav[at:at] = titles[entry]
        elif isinstance(entry, dict):
            for value in entry.values():
                if isinstance(value, list):
                    _append(value, titles)


def on_files(files: Any, config: Any) -> Any:
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = page.file.src_uri
    if source.startswith("methods/"):
        markdown = re.sub(r"<!-- measured: (\w+) -->", lambda found: pages.measured(found[1]), markdown)
    return _inside(markdown, PurePosixPath("docs") / source)


def _moved(markdown: str, old: str) -> str:
    """A page from outside docs/, its relative links rewritten as seen from docs/."""
    there = PurePosixPath(old).parent

    def link(found: re.Match[str]) -> str:
        bang, label, target, anchor = found.groups()
        if ":" in target:
            return found[0]
        path = _normal(there / target)
        new = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        return f"{bang}[{label}]({new}{anchor or ''})"

    return OUTSIDE.sub(link, markdown)


def _inside(markdown: str, source: PurePosixPath) -> str:
    """Links out of docs/: to a page of the site where the file has one, else only their words."""

    def link(found: re.Match[str]) -> str:
        bang, label, target, anchor = found.groups()
        if ":" in target or not target.startswith("../"):
            return found[0]
        path = _normal(source.parent / target)
        if path.startswith("docs/"):
            return found[0]
        up = "../" * (len(source.parts) - 2)
        if path in MOVED:
            return f"{bang}[{label}]({up}{MOVED[path]}{anchor or ''})"
        if path.startswith("src/unstill/") and path.endswith(".py"):
            module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for page, (_, _, names) in pages.REFERENCE.items():
                if any(module in pages.modules(name) for name in names):
                    return f"[{label}]({up}reference/{page}.md#{module})"
        return label

    return OUTSIDE.sub(link, markdown)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
