"""
The first hour: the whole script of each page of the guide, from an empty folder to a saved video, timed.

    python benchmarks/walks.py      # writes docs/first_hour.md; a minute

The scripts run as they stand in the pages, on tiny random pipelines (see tests/docs/test_guide.py): it shows that a
reader gets to a video, and what the code costs beside a model, not what a model costs.
"""

import re
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first_hour.md"


def main() -> None:
    command = [sys.executable, "-m", "pytest", "tests/docs/test_guide.py", "-q", "--durations=0", "-vv"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    seconds = re.findall(r"([\d.]+)s call +\S+test_every_block_runs\[(\w+)-(\d+)\]", said)
    passed, failed = (
        int(found[1]) if (found := re.search(rf"(\d+) {word}", said)) else 0 for word in ("passed", "failed")
    )
    rows = []
    for page in sorted((ROOT / "docs" / "guide").glob("*.md")):
        title = page.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        mine = {int(number): float(time) for time, name, number in seconds if name == page.stem}
        rows.append(f"| [{title}](guide/{page.name}) | {mine[0]:.1f} | {len(mine)} | {sum(mine.values()):.1f} |")
    lines = [
        "# The first hour",
        "",
        "Somebody with one of these models opens its page of the [guide](guide.md) and copies the first script into",
        "an empty folder with a photo. Made by `python benchmarks/walks.py`: every script, and every variant for a",
        "smaller card, runs as it stands in the page, on a tiny random model of its class, on a CPU. It shows that a",
        "reader gets to a saved video, and what the code costs beside a model; not what a real model costs, and not",
        "that the video is better. Weights, GPUs and the hub were not there.",
        "",
        "| page | first script, seconds | scripts and variants | all of them, seconds |",
        "|---|---|---|---|",
        *rows,
        "",
        f"{passed} of {passed + failed} checks passed.",
        "",
        "On the embedded model, with real weights, the same is one command:",
        "[first five minutes](first_five_minutes.md).",
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(rows), f"{passed} passed, {failed} failed", sep="\n")


if __name__ == "__main__":
    main()
