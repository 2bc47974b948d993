"""The documentation: links and anchors lead somewhere, pages are reachable, generated pages say what the code says."""

import json
import re
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

import unstill
from unstill.cli import app
from unstill.families.registry import MODELS
from unstill.methods.early_start import EarlyStart
from unstill.methods.registry import PLACES, method_classes, places_of


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import links  # noqa: E402
import pages  # noqa: E402


GENERATED = pages.generated()
WRITTEN = {
    path.relative_to(DOCS).as_posix(): path.read_text("utf-8")
    for path in DOCS.rglob("*.md")
    if not path.name.endswith(".words.md")
}
REST = {path: (ROOT / path).read_text("utf-8") for path in ("README.md", "benchmarks/README.md", "CHANGELOG.md")}
SHOWN = {path: pages.filled(text) for path, text in WRITTEN.items()}
ALL = {f"docs/{path}": text for path, text in (SHOWN | GENERATED).items()} | REST


def prose(markdown: str) -> str:
    """The page without its code, in which brackets are no links and hashes no headings."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE))


def anchors(markdown: str) -> set[str]:
    """What headings are called in links: as Python-Markdown's toc and forges have it."""
    found = set()
    code_out = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", code_out, re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found | set(re.findall(r"^::: (\S+)", markdown, re.MULTILINE))


@pytest.mark.parametrize("page", ALL)
def test_every_link_leads_somewhere(page: str) -> None:
    for _, label, target, anchor in links.LINK.findall(prose(ALL[page])):
        if links.external(target):
            assert target.startswith("https://"), target
            continue
        path = links.normal(PurePosixPath(page).parent / target) if target else page
        known = path in ALL or (ROOT / path).exists()
        assert known, f"{page}: [{label}]({target}) leads to {path}, which is not there"
        if anchor and path.endswith(".md"):
            there = anchors(ALL[path])
            module = anchor[1:].rpartition(".")[0]
            assert anchor[1:] in there or module in there, f"{page}: {path} has no heading {anchor}"


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    shown = pages.shown(pages.navigation(nav))
    assert sorted(shown) == sorted({**WRITTEN, **GENERATED})


def test_every_verb_model_and_method_has_its_page() -> None:
    for command in app.registered_commands:
        page = GENERATED[f"commands/{command.callback.__name__}.md"]
        assert command.epilog.removeprefix("Example: ") in page
    for model in MODELS:
        assert model.licence in GENERATED[f"models/{model.name}.md"]
    for name in method_classes():
        text = WRITTEN[f"methods/{name}.md"]
        picture = f"media/{name}.webp"
        assert (f"../{picture}" in text) == (DOCS / picture).is_file() and text.count("When not to use it") == 1, name


def test_tables_of_methods_are_those_of_the_registry() -> None:
    row = f"| {EarlyStart.use_when} | [EarlyStart](early_start.md) | start | nothing | {EarlyStart.summary} |"
    assert row in SHOWN["methods/index.md"]
    assert "\n| `WanImageToVideo` | yes | yes |" in SHOWN["pipelines.md"]
    listed = re.findall(r"^\| (.*) \| \[`(\w+)`\]\(docs/methods/\w+.md\) \| (.*) \|$", REST["README.md"], re.MULTILINE)
    assert [name for _, name, _ in listed] == [name for name in method_classes() if name in {row[1] for row in listed}]
    for use_when, name, cells in listed:
        cls = method_classes()[name]
        marks = ["●" if place in places_of(cls) else "" for place in PLACES]
        assert (use_when, [cell.strip() for cell in cells.split("|")]) == (cls.use_when, [*marks, cls.cost]), name


def test_a_command_says_what_its_options_take() -> None:
    page = GENERATED["commands/animate.md"]
    for row in (
        "| `IMAGE` | no | Default: a picture that comes with the package. |",
        "| `--model` | text | A name from 'unstill models', a diffusers folder, or a hub id. Default: pico. |",
        "| `--frames` | whole number from 2 |",
        "| `--fps` | whole number, 1 to 120 |",
        "| `--method` | text, repeatable |",
        "| `--plain` `--no-plain` |  |",
        "| `--json` |  | Print",
    ):
        assert row in page, row


def test_measured_rows_are_those_of_the_file() -> None:
    rows = json.loads((DOCS / "methods" / "measured.json").read_text("utf-8"))["rows"]
    for name, cls in method_classes().items():
        measured = [row for row in rows if re.search(rf"\b{cls.__name__}\b", row["methods"])]
        shown = pages.measured(cls.__name__)
        if not measured:  # the lab's recipes stand in, or the page has a page of its own
            in_the_lab = {"FreeInit": "`free-init`", "NIVSDS": "`ni-vsds`", "TimeNoise": "Not in the"}
            assert in_the_lab.get(cls.__name__, "Not in the") in shown
            continue
        assert shown.count("\n| `") == len(measured), name
        assert all(f"{row['motion']['mean']:.2f}" in shown for row in measured)


def test_every_public_name_is_in_the_reference() -> None:
    page = GENERATED["reference/index.md"]
    modules = {name for name in unstill.__all__ if type(getattr(unstill, name)).__name__ == "module"}
    for name in set(unstill.__all__) - modules - {"__version__"}:
        assert f"[`unstill.{name}`]" in page, name


def test_inline_code_does_not_break_after_a_hyphen() -> None:
    html = f"<p><code>unstill --equal-calls {'long-' * 8}</code></p><pre><span></span><code>a-b</code></pre>"
    whole = html.replace("--equal-calls", '<span class="word">--equal-calls</span>')
    assert pages.keep_words_whole(html) == whole
    assert ".md-typeset code .word" in (DOCS / "assets" / "extra.css").read_text("utf-8")


def test_pictures_are_small_and_used() -> None:
    media = list((DOCS / "media").iterdir())
    assert max(path.stat().st_size for path in media) < 250_000
    assert sum(path.stat().st_size for path in media) < 3_000_000
    for path in media:
        assert any(f"media/{path.name}" in text for text in ALL.values()), path.name
