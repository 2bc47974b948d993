"""A video from a text with AnimateDiff, by way of a picture that is chosen among several (I4VGen).

python examples/animatediff_from_text.py "a red boat sails on a lake"                  # a GPU of 8 GB
"""

import argparse
from pathlib import Path

import torch

import unstill
from unstill.data.video import write_video


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("prompt")
parser.add_argument("--model", default="animatediff")
parser.add_argument("--candidates", type=int, default=8)
parser.add_argument("--frames", type=int, default=16)
parser.add_argument("--steps", type=int, default=25)
parser.add_argument("--out", type=Path, default=Path("from_text"), help="a folder; a stopped run goes on in it")
asked = parser.parse_args()

pipe = unstill.load(asked.model, offload=True)
made = unstill.i4vgen(
    pipe,
    asked.prompt,
    candidates=asked.candidates,
    num_frames=asked.frames,
    num_inference_steps=asked.steps,
    generator=torch.Generator().manual_seed(0),
    folder=asked.out,
    progress=lambda part, done, total: print(f"\r{part} {done}/{total} ", end="", flush=True),
)
# The default score reads pixels only; with the weights at hand give reward=... (see unstill.text_to_video.rewards).
scores = ", ".join(f"{one.score:.2f}" for one in made.candidates)
print(f"\nthe candidates scored {scores}; number {made.choice} was taken")
write_video(asked.out / "video.mp4", made.frames, fps=8)
