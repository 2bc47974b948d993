"""
Every verb that writes, stopped at random moments by SIGKILL and SIGTERM, and run again: the results have to be those
of an undisturbed run, and no temporary file may be left.

    python benchmarks/kill_at_random.py --times 10 animate convert compare diagnose train statistics evaluate

Prints per verb and signal how many of the runs were stopped in time, how many results differ, and what was left.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tiny pipelines of the tests
UNSTILL = [sys.executable, "-m", "unstill"]
VERBS = {
    "animate": ["animate", "--model", "{data}/pico", "--steps", "12", "--compare", "--out", "walk.mp4"],
    "convert": ["convert", "{data}/released.ckpt", "model", "--model", "svd", "--base", "{data}/svd"],
    "compare": [
        "compare",
        "--method",
        "early-start:sigma=50|20",
        "--model",
        "{data}/pico",
        "--count",
        "4",
        "--steps",
        "4",
        "--out",
        "lab",
    ],
    "diagnose": ["diagnose", "--model", "{data}/pico", "--count", "3", "--response", "2", "--out", "found.html"],
    "train": ["train", "{data}/recipe.yaml", "--out", "run"],
    "statistics": ["statistics", "world", "--model", "{data}/pico", "--clips", "120", "--out", "s.safetensors"],
    "evaluate": ["evaluate", "{data}/videos", "--cache", "cache", "--out", "measured.json"],
}
TIMES_AND_PLACES = {"seconds", "written", "earlier", "seal", "command", "clips_per_second", "waiting_for_data"}
"""Keys of records that differ between two undisturbed runs."""


def prepare(data: Path) -> None:
    """A tiny checkpoint to convert, a recipe of a few steps, and videos to measure."""
    import torch

    from tests import pipelines
    from unstill.data.video import write_video

    torch.manual_seed(0)
    pipe = pipelines.stable_video_diffusion()
    pipe.save_pretrained(data / "svd")
    torch.save({f"module.{k}": v for k, v in pipe.unet.state_dict().items()}, data / "released.ckpt")
    tiny = pipelines.pico()
    tiny.save_pretrained(data / "pico")
    (data / "recipe.yaml").write_text(
        f"model: {data / 'pico'}\ncondition: {{maximum: 1.0, condition_on_level: true}}\n"
        "data: {videos: world, frames: 2, clips: 8, workers: 0}\n"
        "train: {steps: 40, batch: 2}\nsave: {every: 5}\nvalidate: {every: 10, videos: 1, clips: 1, steps: 2}\n"
    )
    for number in range(12):
        noise = torch.randint(
            0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(number)
        )
        write_video(data / "videos" / f"{number}.mp4", noise, 8)


def content(path: Path) -> str:
    """A digest of a file, without times and places."""
    if path.suffix == ".json":
        return json.dumps(_clean(json.loads(path.read_bytes())), sort_keys=True)
    if path.name.startswith("random_states"):  # of generators that nothing here draws from
        return ""
    if path.suffix == ".html":  # it holds the seconds of every cell, here and there
        return str("</html>" in path.read_text())
    if path.name in ("cells.csv", "summary.csv"):
        with path.open(newline="") as file:
            rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]
        return json.dumps(rows)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _clean(value: object) -> object:
    if isinstance(value, dict):
        # The sizes of files of random states, which a checkpoint records, differ as their contents do.
        kept = (k for k in value if k not in TIMES_AND_PLACES and not k.startswith("random_states"))
        return {k: _clean(value[k]) for k in kept}
    return [_clean(one) for one in value] if isinstance(value, list) else value


def results(folder: Path) -> dict[str, str]:
    """All files by name, hidden ones included."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    log = folder.with_suffix(".log").open("ab")
    environment = {**os.environ, "TMPDIR": str(folder.parent / "tmp"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*UNSTILL, *words], cwd=folder, env=environment, stdout=log, stderr=log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verbs", nargs="*", default=list(VERBS))
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "data").mkdir()
        (root / "tmp").mkdir()
        prepare(root / "data")
        for verb in options.verbs:
            words = [word.format(data=root / "data") for word in VERBS[verb]]
            quiet = root / f"{verb}-undisturbed"
            quiet.mkdir()
            began = time.monotonic()
            code = start(words, quiet).wait()
            took = time.monotonic() - began
            if code:
                print(verb, "failed undisturbed:", quiet.with_suffix(".log").read_text()[-2000:], flush=True)
                continue
            expected = results(quiet)
            for number in (signal.SIGKILL, signal.SIGTERM):
                codes, different, left, after = [], 0, 0, 0
                for time_ in range(options.times):
                    folder = root / f"{verb}-{number.name}-{time_}"
                    folder.mkdir()
                    process = start(words, folder)
                    time.sleep(draw.uniform(0.3, 1.0) * took)
                    process.send_signal(number)
                    codes.append(process.wait())
                    left += any(".unstill-" in name for name in results_names(folder)) and number == signal.SIGTERM
                    if start(words, folder).wait():
                        print(folder.with_suffix(".log").read_text()[-1500:], flush=True)
                    found = results(folder)
                    after += any(".unstill" in name for name in results_names(folder))
                    if found != expected:
                        different += 1
                        names = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
                        print(f"  {verb} {number.name} {time_}: differs in {names}", flush=True)
                temporary = os.listdir(root / "tmp")
                print(
                    f"{verb:10} {number.name}: {sum(c != 0 for c in codes)} of {options.times} stopped before the end "
                    f"(codes {sorted(set(codes))}), {different} differ, temporary files left after SIGTERM {left}, "
                    f"after the next run {after}, in TMPDIR {len(temporary)}; undisturbed {took:.1f} s",
                    flush=True,
                )


def results_names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


if __name__ == "__main__":
    main()
