"""From the command to its end, in a fresh process each time: seconds on the clock, and seconds of CPU time.

The second hardly depends on what else the machine does.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(words: list[str], folder: str) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "unstill", *words], check=True, capture_output=True, cwd=folder)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return ended - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for words in (["--help"], ["models"], ["animate"], ["animate", "--compare"]):
            clock, cpu = zip(*(seconds(words, folder) for _ in range(options.rounds)), strict=True)
            result[" ".join(["unstill", *words])] = {
                "first": round(clock[0], 2),
                "median": round(statistics.median(clock), 2),
                "min": round(min(clock), 2),
                "cpu_median": round(statistics.median(cpu), 2),
            }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
