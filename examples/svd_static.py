"""Stable Video Diffusion stands still: begin below the noise levels at which it copies the image.

python examples/svd_static.py photo.jpg                      # fetches the weights; a GPU of 16 GB
python examples/svd_static.py photo.jpg --model FOLDER       # any folder of a StableVideoDiffusionPipeline
"""

import argparse
from functools import partial

import numpy as np
import torch

import unstill
from unstill.cli.options import parse_size
from unstill.data.contact_sheets import side_by_side
from unstill.data.images import read_image, resize_and_crop
from unstill.data.video import write_video
from unstill.metrics import first_frame_error, motion_score


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("image")
parser.add_argument("--model", default="svd")
parser.add_argument("--sigma", type=float, default=100.0, help="where sampling begins; the model's own is 700")
parser.add_argument("--size", type=parse_size, default="1024x576")
parser.add_argument("--frames", type=int, default=14)
parser.add_argument("--steps", type=int, default=25)
parser.add_argument("--out", default="svd_static.mp4")
asked = parser.parse_args()

pipe = unstill.load(asked.model, offload=True)
height, width = asked.size
image = resize_and_crop(read_image(asked.image), asked.size)
still = torch.from_numpy(np.array(image)).permute(2, 0, 1)
call = partial(
    pipe,
    image,
    height=height,
    width=width,
    num_frames=asked.frames,
    num_inference_steps=asked.steps,
    decode_chunk_size=8,
    output_type="pt",
)

plain = call(generator=torch.Generator().manual_seed(0)).frames[0].float().cpu()
with unstill.apply(pipe, unstill.EarlyStart(sigma=asked.sigma)):
    moving = call(generator=torch.Generator().manual_seed(0)).frames[0].float().cpu()

for name, video in (("plain", plain), (f"from sigma {asked.sigma:g}", moving)):
    off = first_frame_error(video, still)
    print(f"{name}: motion {motion_score(video, 'dis'):.1f}, first frame off by {off:.3f}")
write_video(asked.out, side_by_side([plain, moving], ["plain", f"sigma {asked.sigma:g}"]), fps=7)
