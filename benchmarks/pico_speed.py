"""How fast the embedded model samples and trains on this machine; weights are random, which costs the same."""

import argparse
import json
import os
import statistics
import time

import torch

from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoTransformer, edm_scheduler
from unstill.models.pico.text import LENGTH, WIDTH
from unstill.training.pico_denoiser import Batch, denoising_loss, optimizers
from unstill.training.pico_recipe import PicoRecipe, computes_in_bf16


def sampling(device: torch.device, rounds: int, steps: int) -> dict[str, float]:
    """Wall and CPU seconds of one video; on a shared machine only the latter mean something."""
    pipe = PicoPipeline(PicoAutoencoder(), PicoTransformer(), edm_scheduler()).to(device)
    pipe.set_progress_bar_config(disable=True)
    image, wall, cpu = torch.rand(1, 3, pipe.size, pipe.size), [], []
    for _ in range(rounds):
        began, worked = time.perf_counter(), time.process_time()
        pipe(image, num_inference_steps=steps, output_type="pt").frames[0].cpu()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - worked)
    return {
        "median": round(statistics.median(wall), 3),
        "min": round(min(wall), 3),
        "cpu_median": round(statistics.median(cpu), 3),
    }


def training(device: torch.device, rounds: int, batch: int) -> dict[str, float | str]:
    network = PicoTransformer().to(device)
    both = optimizers(network, PicoRecipe())
    config = network.config
    clean = torch.randn(
        batch, config.num_frames, config.out_channels, config.sample_size, config.sample_size, device=device
    )
    ids = torch.tensor([7.0, 50.0, 0.0], device=device).expand(batch, 3)
    sigma = torch.full((batch,), 2.0, device=device)
    words = torch.zeros(batch, LENGTH, WIDTH, device=device)
    speeds, cpu = [], []
    for _ in range(rounds + 1):
        began, worked = time.perf_counter(), time.process_time()
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device)):
            noise = torch.randn_like(clean)
            loss = denoising_loss(network, Batch(clean, clean[:, 0], words, sigma, noise, ids)).mean()
        loss.backward()
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        speeds.append(batch / (time.perf_counter() - began))
        cpu.append(batch / (time.process_time() - worked))
    return {
        "precision": "bfloat16" if computes_in_bf16(device) else "float32",
        "median": round(statistics.median(speeds[1:]), 2),
        "max": round(max(speeds[1:]), 2),
        "per_cpu_second_median": round(statistics.median(cpu[1:]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads",
        f"sampling_seconds_16_frames_{options.steps}_steps": sampling(device, options.rounds, options.steps),
        f"training_clips_per_second_batch_{options.batch}": training(device, options.rounds, options.batch),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
