"""MkDocs hooks: the generated pages, their places in the navigation, and links that point out of docs/."""

import logging
import re
from typing import Any

import links
import pages
from mkdocs.structure.files import File


log = logging.getLogger("mkdocs.unstill")
SECTIONS = {
    "commands/index.md": [{name: f"commands/{name}.md"} for name in pages.verbs()],
    "models/index.md": [{one.name: f"models/{one.name}.md"} for one in pages.MODELS],
    "reference/index.md": [{title: f"reference/{page}.md"} for page, (title, *_) in pages.REFERENCE.items()],
}


def on_config(config: Any) -> Any:
    config.nav = complete(config.nav)
    return config


def complete(nav: list[Any]) -> list[Any]:
    """The navigation with generated pages behind the page that opens their section, and `folder/*` written out."""
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            found.append(
                {name: complete(value) if isinstance(value, list) else value for name, value in entry.items()}
            )
        elif entry.endswith("/*"):
            found += pages.written(entry.removesuffix("/*"))
        else:
            found += [entry, *SECTIONS.get(entry, ())]
    return found


def on_files(files: Any, config: Any) -> Any:
    for path, text in pages.generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    markdown = re.sub(r"<!-- measured: (\w+) -->", lambda found: pages.measured(found[1]), markdown)
    return links.kept_in(markdown, page.file.src_uri, pages.homes())


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Nothing is fetched from elsewhere: the theme's script for a search without a web server stays out."""
    output = re.sub(r'<script src="https://unpkg.com[^"]*"></script>', "", output)
    for found in re.findall(r'(?:src=|<link[^>]*href=)"https?://[^"]*"', output):
        log.warning("%s fetches from elsewhere: %s", page.file.src_uri, found)
    return output
