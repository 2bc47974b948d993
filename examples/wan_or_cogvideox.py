"""Image-to-video transformers (Wan 2.1, CogVideoX, and the like): more motion, and still the image.

    python examples/wan_or_cogvideox.py photo.jpg "the boat sails to the left"                    # CogVideoX; 24 GB
    python examples/wan_or_cogvideox.py photo.jpg "..." --model wan2.1-i2v-14b-480p              # 40 GB

The same two methods on either: their schedulers count in training time, so the level is a fraction of it.
"""

import argparse
from functools import partial

import torch

import unstill
from unstill.cli.options import parse_size
from unstill.data.contact_sheets import side_by_side
from unstill.data.images import read_image, resize_and_crop
from unstill.data.video import write_video
from unstill.metrics import motion_parts
from unstill.models.call_arguments import native_frames


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("image")
parser.add_argument("prompt")
parser.add_argument("--model", default="cogvideox-5b-i2v")
parser.add_argument("--start", type=float, default=0.96, help="where sampling begins, as a fraction of training time")
parser.add_argument("--likeness", type=float, default=0.3, help="share of the steps that are pulled to the image")
parser.add_argument("--size", type=parse_size, default="720x480", help="Wan 2.1: 832x480")
parser.add_argument("--frames", type=int)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", default="moving.mp4")
asked = parser.parse_args()

pipe = unstill.load(asked.model, offload=True)
height, width = asked.size
call = partial(
    pipe,
    resize_and_crop(read_image(asked.image), asked.size),
    asked.prompt,
    height=height,
    width=width,
    num_frames=asked.frames or native_frames(pipe),
    num_inference_steps=asked.steps,
    output_type="pt",
)
methods = {
    "plain": (),
    "early start": (unstill.EarlyStart(start=asked.start),),
    "and rectified": (
        unstill.EarlyStart(start=asked.start),
        unstill.NoiseRectification(period=(0, asked.likeness)),
    ),
}
videos = {}
for name, chosen in methods.items():
    with unstill.apply(pipe, *chosen):
        videos[name] = call(generator=torch.Generator().manual_seed(0)).frames[0].float().cpu()
    parts = motion_parts(videos[name], "dis")
    print(f"{name}: {parts.total:.2f} pixels per frame; camera {parts.camera:.2f}, objects {parts.objects:.2f}")
write_video(asked.out, side_by_side(list(videos.values()), list(videos)), fps=16 if "wan" in asked.model else 8)
