"""The table of all metrics, which `python -m unstill.metrics.reference_table docs/metrics.md` writes into the page."""

from __future__ import annotations

import sys
from pathlib import Path

from unstill.metrics.registry import INPUTS, TOPICS, reported_values


BEGIN = "<!-- metrics: written by `python -m unstill.metrics.reference_table docs/metrics.md` -->"
END = "<!-- end of metrics -->"


def metrics_table() -> str:
    """A row per reported value of the registry: the question it answers, its name, meaning, unit, direction, needs."""
    lines = ["| you ask | metric | what it says | unit | better | needs |", "|---|---|---|---|---|---|"]
    last = None
    for name, (value, needs) in reported_values().items():
        question = TOPICS[value.topic] if value.topic != last else ""
        last = value.topic
        label = f"{value.label} (proxy)" if value.proxy else value.label
        options = ", ".join(option for key, option in INPUTS.items() if key in needs and option) or "nothing"
        lines.append(f"| {question} | `{name}` | {label} | {value.unit} | {value.better or ''} | {options} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with a new table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{metrics_table()}\n\n{END}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
