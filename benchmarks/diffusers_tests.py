"""
The fast tests of diffusers' own video pipelines: plain, with `apply(pipe)` and with `EarlyStart` applied.

`--source` is a checkout of diffusers near the installed version; its tests of the supported pipelines run three times,
with stand-ins for what they download (`diffusers_hub.py`). Shown are the tests that pass plainly and fail with a
method, and whether pipelines return the same bits with `apply(pipe)`. Needs pytest, requests-mock and parameterized.

EarlyStart must change what a pipeline returns, so three kinds of tests may fail with it and are listed apart. One
compares an output with numbers written in it, which is seen from the assertion that failed
(`diffusers_plugin.compares_stored_values`). One holds for the numbers of its seed only: it also fails without any
method when the generators have other seeds. The third is answered with a sentence, an `UnstillError`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from diffusers_hub import make_cache

from unstill.hooks import ADAPTERS


KINDS = (
    "no-op newly failing",
    "no-op other bits",
    "EarlyStart newly failing",
    "EarlyStart refused",
    "EarlyStart stored values",
    "EarlyStart fails with other seeds",
)
MODES = ("plain", "no-op", "EarlyStart")  # as `diffusers_plugin` has them
Outcomes = dict[str, dict[str, dict[str, Any]]]  # mode -> test -> what `diffusers_plugin` notes of it


def test_files(source: Path) -> dict[str, str]:
    """Files with tests of supported pipelines, relative to `source`, and the class that each one tests."""
    files = {}
    for file in sorted(source.glob("tests/pipelines/*/test_*.py")):
        text = file.read_text()
        for name in ADAPTERS:
            # a few test a class of their own that inherits from the pipeline
            if re.search(rf"^(\s+pipeline_class = {name}|class \w+\({name}\):)$", text, re.MULTILINE):
                files[str(file.relative_to(source))] = name
    return files


def run(source: Path, file: str, cache: Path, timeout: float) -> Outcomes | str:
    """What became of the tests of one file in each mode; or why there is no answer."""
    here = Path(__file__).resolve().parent
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(here.parent / "src"), os.environ.get("PYTHONPATH")])),
    }
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [sys.executable, "-W", "ignore", str(here / "diffusers_plugin.py"), file, str(results)]
        try:
            done = subprocess.run(
                command, cwd=source, env=environment, timeout=timeout, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not finished within {timeout:g} s"
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        outcomes: Outcomes = json.loads(results.read_text())
    return outcomes if outcomes["plain"] else done.stdout.strip().splitlines()[-1]


def compare(outcomes: Outcomes) -> dict[str, Any]:
    """The figures of one file."""
    plain, noop, early = (outcomes[mode] for mode in MODES)
    passed = [test for test, entry in plain.items() if entry["outcome"] == "passed"]
    failed = [test for test in passed if early[test]["outcome"] != "passed"]
    stored = [test for test in failed if early[test].get("stored")]
    refused = {
        test: early[test]["error"] for test in failed if early[test].get("error", "").startswith("UnstillError")
    }
    others = [entries for mode, entries in outcomes.items() if mode not in MODES]
    seeds = {
        test: f"{sum(entries[test]['outcome'] == 'failed' for entries in others)} of {len(others)}"
        for test in failed
        if any(test in entries and entries[test]["outcome"] == "failed" for entries in others)
    }
    called = [test for test in passed if plain[test]["outputs"]]
    calls = [output for entry in early.values() for output in entry["outputs"]]
    return {
        "plain": dict(Counter(entry["outcome"] for entry in plain.values())),
        "no-op newly failing": {test: noop[test].get("error") for test in passed if noop[test]["outcome"] != "passed"},
        "no-op tests with calls": len(called),
        "no-op other bits": [test for test in called if _bits(plain[test]) != _bits(noop[test])],
        "EarlyStart newly failing": {
            test: early[test].get("error") for test in failed if test not in (*stored, *seeds, *refused)
        },
        "EarlyStart refused": refused,
        "EarlyStart stored values": stored,
        "EarlyStart fails with other seeds": seeds,
        "EarlyStart calls": len(calls),
        "EarlyStart acted in": sum(output["acted"] for output in calls),
    }


def _bits(entry: dict[str, Any]) -> list[str]:
    return [output["bits"] for output in entry["outputs"]]


def table(rows: dict[str, Any]) -> str:
    head = ["tests", "pass plainly", "fail", "skipped", "`apply(pipe)`: newly failing", "same bits"]
    head += ["`EarlyStart`: newly failing", "refused", "stored values", "fail with other seeds", "acted in calls"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for file, row in rows.items():
        name = Path(file).stem.removeprefix("test_")
        if isinstance(row, str):
            lines.append(f"| `{name}` | {row} |" + " |" * (len(head) - 2))
            continue
        calls, other = row["no-op tests with calls"], len(row["no-op other bits"])
        counts = [
            *(row["plain"].get(outcome, 0) for outcome in ("passed", "failed", "skipped")),
            len(row["no-op newly failing"]),
            f"{calls - other} of {calls} tests",
            len(row["EarlyStart newly failing"]),
            len(row["EarlyStart refused"]),
            len(row["EarlyStart stored values"]),
            len(row["EarlyStart fails with other seeds"]),
            f"{row['EarlyStart acted in']} of {row['EarlyStart calls']}",
        ]
        lines.append(f"| `{name}` | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a checkout of diffusers")
    parser.add_argument("--only", default="", help="files whose path contains this")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON; files of tests that are in it are not run again"
    )
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one file of tests")
    arguments = parser.parse_args()
    rows: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        make_cache(Path(cache))
        for file in test_files(arguments.source):
            if arguments.only in file and file not in rows:
                outcomes = run(arguments.source, file, Path(cache), arguments.timeout)
                rows[file] = outcomes if isinstance(outcomes, str) else compare(outcomes)
                arguments.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    for file, row in rows.items():
        for kind in KINDS if isinstance(row, dict) else ():
            for test in row[kind]:
                about = row[kind][test] if isinstance(row[kind], dict) else ""
                print(f"\n{kind}: {file} {test.split('::', 1)[1]}\n{about}")


if __name__ == "__main__":
    main()
