"""Does this model copy its image, at which noise levels, and where should sampling begin?

    python examples/diagnose_model.py                                         # the embedded model, half a minute
    python examples/diagnose_model.py --model svd --clips videos/             # any image-to-video model, real clips

`unstill diagnose` does the same, resumable, with a report to look at.
"""

import argparse
from pathlib import Path

import unstill
from unstill.cli.options import parse_size
from unstill.lab.leakage import measure_leakage
from unstill.lab.one_step import usual_levels
from unstill.lab.probe_clips import Folder, World, motion_argument
from unstill.models.call_arguments import arguments, native_frames, native_size


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default="pico")
parser.add_argument("--clips", type=Path, help="a folder of real videos; without it, rendered ones")
parser.add_argument("--prompt", help="for models that read text")
parser.add_argument("--count", type=int, default=4)
parser.add_argument("--size", type=parse_size)
parser.add_argument("--frames", type=int)
asked = parser.parse_args()

pipe = unstill.load(asked.model, offload=True)
size, frames = asked.size or native_size(pipe), asked.frames or native_frames(pipe)
if asked.clips:
    clips = Folder(folder=asked.clips, count=asked.count, frames=frames, fps=None, size=size)
else:
    clips = World(count=asked.count, frames=frames, size=size)


def call(subject, picture):
    motion = motion_argument(pipe, subject)
    return arguments(type(pipe), image=picture, prompt=asked.prompt, motion=motion, frames=frames, size=size)


found = measure_leakage(pipe, (clips[i] for i in range(len(clips))), call, usual_levels(pipe))
print(f"{found.clips} clips; leak: motion that is lost to copying, 0 none, 1 all (an upper bound)")
for level, leak in zip(found.levels, found.leak, strict=True):
    print(f"{found.unit} {level.value:8.2f}   leak {leak.value:5.2f}   {'#' * round(40 * max(leak.value, 0))}")
if found.start is None:
    print("No start is recommended: at no level was enough of the motion explained.")
else:
    print(f"Begin at --method early_start:{found.unit}={found.start:g}")
