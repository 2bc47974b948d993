"""
The results as pages of the documentation: one per experiment with its table, plots and claims, and one with the claims
of all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.papers.verdicts import Finding
from unstill.data.files import replacing
from unstill.lab.aggregate import Row
from unstill.lab.comparison_plots import Plot
from unstill.lab.comparison_report import toy_columns
from unstill.lab.interval_text import between, signed


FOLDER = "lab"
ORDER = ("leak", "start-sweep", "initial-noise", "time-noise", "rectification-weights", "rectification-period")
METRICS = (
    ("motion", "motion"),
    ("fidelity", "fidelity"),
    ("coherence", "coherence"),
    ("first_frame_error", "first frame off by"),
    ("seconds", "seconds"),
)


def write_experiment(
    docs: Path,
    name: str,
    *,
    title: str,
    made_of: str,
    command: str,
    findings: Sequence[Finding],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Sequence[Plot],
    words: Sequence[str] = (),
    versions: dict[str, str] | None = None,
) -> list[Path]:
    """
    Writes `docs/lab/NAME.md` with its plots and its JSON file, and `docs/claims.md` from the JSON files of all.

    Args:
        title: heading of the page.
        made_of: number of pictures and seeds.
        command: what the page names as its origin.
        columns, rows: of the table.
        words: paragraphs between claims and table.

    Returns:
        The two pages.
    """
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        _write(folder / f"{name}-{figure.name}.svg", figure.svg)
    content: dict[str, Any] = {
        "recipe": name,
        "title": title,
        "made_of": made_of,
        "command": command,
        "versions": versions or {},
        "findings": [finding.as_dict() for finding in findings],
        "columns": list(columns),
        "rows": [list(row) for row in rows],
    }
    lines = [f"# {title}", "", f"`{command}`: {made_of}.", ""]
    if findings:
        lines += ["What the paper says, and what came out here:", "", *_claims(content["findings"]), ""]
    lines += [line for text in words for line in (text, "")]
    lines += [*_table(columns, rows), ""]
    for figure in figures:
        lines += [f"**{figure.title}.** {figure.about}", "", f"![{figure.title}]({name}-{figure.name}.svg)", ""]
    lines.append("All claims: [what of the papers is reproduced here](../claims.md).")
    _write(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _write(folder / f"{name}.md", "\n".join(lines) + "\n")
    _write(docs / "claims.md", collected(folder))
    return [folder / f"{name}.md", docs / "claims.md"]


def comparison_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Means, and the paired gain in motion over the first setting, with intervals."""
    shown = [*METRICS[1:], *toy_columns([row for row in rows if row.means])]
    columns = ["setting", "motion", "more than " + rows[0].setting, *(words for _, words in shown)]
    table = []
    for row in rows:
        if not row.means:
            table.append([f"`{row.setting}`", "; ".join(row.failed), *[""] * (len(columns) - 2)])
            continue
        gain = signed(row.gains["motion"]) if row.gains else ""
        others = [_mean(row, metric) for metric, _ in shown]
        table.append([f"`{row.setting}`", between(row.means["motion"]), gain, *others])
    return columns, table


def collected(folder: Path) -> str:
    """The page of all claims, from the JSON files of a folder."""
    recipes = {}
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("findings"):
            recipes[path.stem] = content
    ordered = sorted(recipes, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    counts = dict.fromkeys(("reproduced", "in part", "undecided", "not reproduced", "not testable here"), 0)
    for content in recipes.values():
        for one in content["findings"]:
            counts[one["verdict"]] += 1
    lines = [
        "# What of the papers is reproduced here",
        "",
        "On [pico](pico.md), the embedded model, a small test model. What holds for it is a hypothesis for large",
        "models, and what fails on it may hold for them. This page is written by",
        "`python -m benchmarks.papers all --docs docs`; a claim is judged by a difference, paired by picture",
        "or clip, and its 95 % bootstrap interval, and is undecided where that includes both sides. Of so many claims",
        "one or two may come out by chance. Fidelity and coherence are proxies that need no weights; what the papers",
        "measure instead is said. No released weights were run for it.",
        "",
        ", ".join(f"{verdict}: {count}" for verdict, count in counts.items()) + ".",
        "",
    ]
    for name in ordered:
        content = recipes[name]
        lines += [f"## [{content['title']}]({folder.name}/{name}.md)", "", f"{content['made_of']}.", ""]
        lines += [*_claims(content["findings"]), ""]
    return "\n".join(lines)


def _claims(findings: Sequence[dict[str, str]]) -> list[str]:
    rows = [
        [f"{one['claim']} *({one['source']})*", f"**{one['verdict']}**", one["evidence"], one["needed"]]
        for one in findings
    ]
    needed = any(row[3] for row in rows)
    columns = ["the paper", "here", "figures", "what it would take"]
    return _table(columns if needed else columns[:3], [row if needed else row[:3] for row in rows])


def _mean(row: Row, metric: str) -> str:
    one = row.means[metric]
    return f"{one.value:.1f}" if metric == "seconds" else between(one)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
