"""Seconds from the command to its end, in a fresh process each time: `unstill --help`, `unstill animate`."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(words: list[str], folder: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "unstill", *words], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in {
            "help": ["--help"],
            "animate": ["animate"],
            "animate --compare": ["animate", "--compare"],
        }.items():
            times = [seconds(words, folder) for _ in range(options.rounds)]
            result[name] = {
                "first": round(times[0], 2),
                "median": round(statistics.median(times), 2),
                "min": round(min(times), 2),
            }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
