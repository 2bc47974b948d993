"""The first five minutes of a new user, each step in a fresh environment and an empty folder, with its time.

    python benchmarks/first_five_minutes.py                     # some minutes on an idle machine
    python benchmarks/first_five_minutes.py --venv FOLDER       # an environment that has been made already

Writes docs/first_five_minutes.json, which the page of that name shows, and prints all that the commands say. The time
of the installation is that of the network as well. A step fails if its exit code is not the one expected.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image


ROOT = Path(__file__).parents[1]
# what a person wants, the command, its exit code
STEPS = (
    ("what is there?", "unstill --help", 0),
    ("the first video", "unstill animate --compare", 0),
    ("my own photo", "unstill animate photo.jpg --compare --out mine.mp4", 0),
    ("how much does it move?", "unstill evaluate mine.mp4", 0),
    ("is the method better, or luck?", "unstill compare --method early-start --count 2 --seeds 1 --out compared", 0),
    ("does this model copy its image?", "unstill diagnose --count 2 --response 0", 0),
    ("from words", "unstill animate --prompt 'a red ring drifting left over green' --out words.mp4", 0),
    ("which methods are there?", "unstill methods", 0),
    ("a file that is not there", "unstill animate foto.jpg", 2),
    ("a text file called .jpg", "unstill animate notes.jpg", 2),
    ("a slip in a model's name", "unstill animate photo.jpg --model svdd", 2),
    ("a slip in a method's name", "unstill animate photo.jpg --method erly_start", 2),
    ("a slip in a parameter", "unstill animate photo.jpg --method early_start:sigm=3", 2),
    ("no number", "unstill animate photo.jpg --method early_start:sigma=high", 2),
    ("too much motion", "unstill animate photo.jpg --motion 7", 2),
    ("a kind of file it cannot write", "unstill animate photo.jpg --out x.avi", 2),
    ("half a size", "unstill animate photo.jpg --size 48", 2),
    ("no such verb", "unstill anmate", 2),
)


def timed(command: str, folder: Path, environment: dict[str, str]) -> dict:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"$ {command}   [{seconds:.1f} s, {cpu:.1f} s of CPU, exit code {done.returncode}]")
    print(done.stdout + done.stderr, flush=True)
    said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return {"seconds": seconds, "cpu": cpu, "code": done.returncode, "said": said[-1].strip() if said else ""}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, help="an environment in which unstill is installed")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "first_five_minutes.json")
    chosen = parser.parse_args()
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as made:
        folder, venv = Path(made, "play"), chosen.venv or Path(made, "venv")
        folder.mkdir()
        photo = Image.radial_gradient("L").resize((1200, 800))
        Image.merge("RGB", (photo, photo.rotate(90), photo.rotate(180))).save(folder / "photo.jpg")
        (folder / "notes.jpg").write_text("These are notes, not a picture.")
        environment = {**os.environ, "HOME": made, "COLUMNS": "100", "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
        if chosen.venv is None:
            environment |= {"VIRTUAL_ENV": str(venv)}
            install = f"{sys.executable} -m venv {venv} && python -m pip install -q -c {ROOT}/constraints.txt {ROOT}"
            row = timed(install, folder, environment)
            rows.append({"wish": "installed", "command": "python -m pip install -c constraints.txt .", **row})
        for wish, command, code in STEPS:
            row = timed(command, folder, environment)
            wrong += row["code"] != code or "Traceback" in row["said"]
            rows.append({"wish": wish, "command": command, **row})
    chosen.out.write_text(json.dumps({"load": os.getloadavg()[1], "cores": os.cpu_count(), "rows": rows}, indent=1))
    print(f"{wrong} steps did not end as expected.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
