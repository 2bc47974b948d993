"""
The first hour: what five users type, from an empty folder with a photo to a saved video, timed.

    python benchmarks/walks.py      # writes docs/first_hour.md; two minutes on an idle machine

Every step is a process of its own. The scripts are the first ones of the pages of docs/guide, as they stand there; in
the place of the hub are tiny random pipelines (tests/docs/tiny_hub.py). So it shows that a reader gets to a video, and
what the code costs beside a model, not what a model costs.
"""

import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first_hour.md"
sys.path.insert(0, str(ROOT))
HUB = "python -m tests.docs.tiny_hub"
# page of the guide -> commands after its script; MODEL is the folder of a tiny pipeline
WALKS = {
    "svd": (
        "unstill animate photo.jpg --model MODEL --method early_start:sigma=100 --frames 5 --size 64x64 --compare",
    ),
    "wan21": (
        "unstill animate photo.jpg --model MODEL --prompt boat --method early_start --frames 5 --size 64x64 --compare",
    ),
    "ltx": (),
    "cogvideox": (),
    "animatediff": (),
}
FOLDERS = {"svd": "svd", "wan21": "wan"}


TEXT = """\
# The first hour

Somebody with one of these models opens its page of the [guide](guide.md) and copies the first script into an empty
folder with a photo, as `video.py`. Made by `python benchmarks/walks.py`: every line is a process of its own, the
script is the one of the page as it stands there, and in the place of the hub are tiny random models of its class, on a
CPU. It shows that a reader gets to a saved video, and what the code costs beside a model, most of it the import of
torch and diffusers; not what a real model costs, and not that the video is better. Weights, GPUs and the hub were not
there.

| page | typed | made | seconds | of CPU |
|---|---|---|---|---|
{rows}

{load} by other programs: the seconds of CPU are what to compare. `MODEL` is the folder of a tiny model. All other
scripts and variants of the pages are run by `tests/docs/test_guide.py`.

On the embedded model, with real weights, the first video is one command:
[first five minutes](first_five_minutes.md).
"""


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as home:
        from tests.cli.conftest import save_diffusers_models

        models = save_diffusers_models(Path(home))
        for page, commands in WALKS.items():
            text = (ROOT / "docs" / "guide" / f"{page}.md").read_text("utf-8")
            title = text.partition("\n")[0].removeprefix("# ")
            script = re.findall(r"^```py\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]
            folder = Path(home, f"walk_{page}")
            folder.mkdir()
            Image.linear_gradient("L").convert("RGB").save(folder / "photo.jpg")
            (folder / "video.py").write_text(script, "utf-8")
            for command in ("python video.py", *commands):
                typed = command.replace("python ", f"{HUB} ").replace("unstill ", "python -m unstill ")
                seconds, cpu = timed(typed.replace("MODEL", models.get(FOLDERS.get(page, ""), "")), folder)
                made = "video.mp4" if command.startswith("python") else "animated_compare.mp4"
                size = (folder / made).stat().st_size
                rows.append(f"| [{title}](guide/{page}.md) | `{command}` | `{made}` | {seconds:.1f} | {cpu:.1f} |")
                print(f"{rows[-1]} {size} bytes", flush=True)
    load = f"The machine had {os.cpu_count()} cores and a load of {os.getloadavg()[0]:.0f}"
    PAGE.write_text(TEXT.format(rows="\n".join(rows), load=load), encoding="utf-8")


def timed(command: str, folder: Path) -> tuple[float, float]:
    """Seconds and seconds of CPU of a command; raises if it fails."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
