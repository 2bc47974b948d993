"""MkDocs hooks: the generated pages, their places in the navigation, and links that point out of docs/."""

import logging
import re
from typing import Any

import links
import pages
from mkdocs.structure.files import File


log = logging.getLogger("mkdocs.unstill")


def on_config(config: Any) -> Any:
    config.nav = pages.navigation(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    for path, text in pages.generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    markdown = pages.filled(markdown)
    markdown = re.sub(r"(\d) ± (\d)", "\\1\u00a0±\u00a0\\2", markdown)  # one figure, one line
    markdown = re.sub(r"(\([−+]?[\d.]+%?) to ([−+]?[\d.]+%?\))", "\\1 to\u00a0\\2", markdown)
    return links.kept_in(markdown, page.file.src_uri, pages.homes())


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    return pages.keep_words_whole(html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Nothing is fetched from elsewhere: the theme's script for a search without a web server stays out."""
    output = re.sub(r'<script src="https://unpkg.com[^"]*"></script>', "", output)
    for found in re.findall(r'(?:src=|<link[^>]*href=)"https?://[^"]*"', output):
        log.warning("%s fetches from elsewhere: %s", page.file.src_uri, found)
    return output
