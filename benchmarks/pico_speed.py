"""How fast the embedded model samples and trains on this machine; weights are random, which costs the same."""

import argparse
import json
import os
import statistics
import time

import torch

from unstill.models.pico import PicoAutoencoder, PicoPipeline, PicoUNet, edm_scheduler
from unstill.models.pico.text import LENGTH, WIDTH
from unstill.training.pico import Batch, denoising_loss


def sampling(device: torch.device, rounds: int) -> dict[str, float]:
    pipe = PicoPipeline(PicoAutoencoder(), PicoUNet(), edm_scheduler()).to(device)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 64, 64)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        pipe(image, num_frames=8, num_inference_steps=25, output_type="pt").frames[0].cpu()
        times.append(time.perf_counter() - began)
    return {"median": round(statistics.median(times), 3), "min": round(min(times), 3)}


def training(device: torch.device, rounds: int, batch: int) -> dict[str, float]:
    unet = PicoUNet().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-4, fused=True)
    channels, side, frames = unet.config.in_channels // 2, unet.config.sample_size, unet.config.num_frames
    clean = torch.randn(batch, frames, channels, side, side, device=device)
    ids = torch.tensor([7.0, 50.0, 0.0], device=device).expand(batch, 3)
    sigma = torch.full((batch,), 2.0, device=device)
    words = torch.zeros(batch, LENGTH, WIDTH, device=device)
    moved = torch.zeros(batch, frames, 2, side, side, device=device)
    speeds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            batch_of = Batch(clean, clean[:, 0], words, sigma, torch.randn_like(clean), ids, moved)
            errors, lost = denoising_loss(unet, batch_of)
            loss = errors.mean() + lost.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        speeds.append(batch / (time.perf_counter() - began))
    return {"median": round(statistics.median(speeds[1:]), 1), "max": round(max(speeds[1:]), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads",
        "sampling_seconds_8_frames_25_steps": sampling(device, options.rounds),
        f"training_clips_per_second_batch_{options.batch}": training(device, options.rounds, options.batch),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
