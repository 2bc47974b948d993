"""Train a LoRA of your image-to-video model with TimeNoise, so that it reads motion from the video and not the image.

    python examples/time_noise_lora.py svd-time-noise-lora photo.jpg --videos clips/       # a GPU of 24 GB, hours

Any recipe file in place of the name; `unstill train NAME --print-recipe` prints one to start from.
Stopped, it goes on.
"""

import argparse
from pathlib import Path

import unstill
from unstill.cli.options import parse_size
from unstill.data.images import read_image, resize_and_crop
from unstill.data.video import write_video
from unstill.metrics import motion_score
from unstill.models.call_arguments import arguments, generate, native_size
from unstill.training.recipe import read_recipe
from unstill.training.trainer import train


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("recipe")
parser.add_argument("image")
parser.add_argument("--videos", help="a folder of videos, where the recipe names none")
parser.add_argument("--steps", type=int, default=25, help="of the sampler, afterwards")
parser.add_argument("--out", type=Path, default=Path("runs/time_noise_lora"))
asked = parser.parse_args()

recipe = read_recipe(asked.recipe, {"data.videos": asked.videos} if asked.videos else None)
result = train(recipe, asked.out, lambda stage, done, total, figures: print(f"{stage} {done}/{total} {figures}"))
assert result is not None  # None in the other processes of accelerate launch

for name, model in (("before", recipe.model), ("after", str(result.pipeline))):
    pipe = unstill.load(model, offload=True)
    size = parse_size(recipe.data.size) if recipe.data.size else native_size(pipe)
    image = resize_and_crop(read_image(asked.image), size)
    video = generate(
        pipe,
        arguments(type(pipe), image=image, size=size, frames=recipe.data.frames, steps=asked.steps),
        seed=0,
    )
    print(f"{name}: motion {motion_score(video, 'dis'):.1f}")
    write_video(asked.out / f"{name}.mp4", video, fps=recipe.data.fps or 8)
