"""Metrics against the usual ways to compute them, as ratios measured in turns within one run.

Frechet distance against scipy's `sqrtm` of the product of covariances (left out where scipy is not installed), motion
score against a plain OpenCV loop, RAFT against pair-by-pair use with the whole correlation volume, and decoding.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from unstill.data import read_video, write_video
from unstill.metrics import RAFT, RaftFlow, frechet_distance, frechet_from_moments, motion_score


def in_turns(rounds: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each call; the calls take turns, so that a busy moment hits all of them.

    With one thread these are seconds of this process on a processor, which other work on the machine hardly changes.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = clock()
            call()
            times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def frechet(rounds: int, widths: list[int]) -> dict[str, object]:
    if importlib.util.find_spec("scipy") is None:
        return {"left out": "scipy is not installed"}
    from scipy.linalg import sqrtm

    def usual(x: np.ndarray, y: np.ndarray) -> float:
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        root = sqrtm(a @ b).real
        return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root))

    def compare(n: int, d: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        mix = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
        x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix for _ in range(2))
        found: dict[str, float] = {}

        def floor() -> None:
            """What no way of computing it can leave out: two covariances, one factor, the eigenvalues."""
            a, b = (part.numpy().T @ part.numpy() for part in (x, y))
            if n > d:
                np.linalg.cholesky(a)
            np.linalg.eigvalsh(b)

        times = in_turns(
            rounds,
            floor=floor,
            ours=lambda: found.update(ours=frechet_distance(x, y)),
            scipy=lambda: found.update(scipy=usual(x.numpy(), y.numpy())),
        )
        row = _row(times, "scipy") | {"seconds of the floor": round(times["floor"], 4)}
        row |= {"relative difference": float(f"{abs(found['ours'] / found['scipy'] - 1):.1e}")}
        row |= {"times as fast, of the floor": round(times["scipy"] / times["floor"], 2)}
        if n <= d:
            return row
        mean, a, b = torch.zeros(d), x.T.cov(), y.T.cov()
        times = in_turns(
            rounds, ours=lambda: frechet_from_moments(mean, a, mean, b), scipy=lambda: sqrtm(a.numpy() @ b.numpy())
        )
        return row | {f"from covariances, {name}": value for name, value in _row(times, "scipy").items()}

    return {f"{n} x {d}": compare(n, d) for n, d in ((2048, 400), (4096, 2048), (256, 400)) if d in widths}


def motion(rounds: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 40, 60, generator=generator)
    still = torch.nn.functional.interpolate(coarse, (540, 960), mode="bicubic").clamp(0, 1)[0]
    video = torch.stack([still.roll((2 * f, 3 * f), (1, 2)) for f in range(16)]).mul(255).byte()

    def plain(name: str) -> float:
        pictures = [cv2.resize(f.permute(1, 2, 0).contiguous().numpy(), (800, 450)) for f in video]
        greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
        total = 0.0
        for before, after in zip(greys[:-1], greys[1:], strict=True):
            if name == "dis":
                flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)
            else:
                flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 5, 15, 3, 5, 1.2, 0)
            total += float(np.linalg.norm(flow, axis=2).mean())
        return total

    result: dict[str, object] = {"threads": torch.get_num_threads()}
    for name in ("farneback", "dis"):
        times = in_turns(rounds, ours=lambda name=name: motion_score(video, name), loop=lambda name=name: plain(name))
        result[name] = _row(times, "loop") | {"frames per second": round(len(video) / times["ours"], 1)}
    return result


class Plain(RaftFlow):
    """Pair by pair: every frame encoded twice, the full flow formed in every iteration."""

    @torch.no_grad()
    def __call__(self, video: torch.Tensor):
        for before, after in zip(video[:-1], video[1:], strict=True):
            pair = [frame[None].float() for frame in (before, after)]
            features = (self.model.encode(pair[0]), self.model.encode(pair[1]))
            flow = None
            for iterations in range(self.iterations):
                if iterations == self.iterations - 1:
                    flow = self.model(*pair, self.iterations, features)[1][0]
                else:  # the work of the upsampling that this iteration would do
                    h = torch.zeros(1, self.model.hidden, *features[0].shape[2:])
                    self.model._upsample(torch.zeros(1, 2, *features[0].shape[2:]), h)
            yield flow


def raft(rounds: int, size: tuple[int, int], iterations: int) -> dict[str, object]:
    torch.manual_seed(0)
    video = torch.randint(256, (3, 3, *size), dtype=torch.uint8)
    result: dict[str, object] = {"size": size, "iterations": iterations}
    for small in (True, False):
        model = RAFT(small).eval()
        engines = {"ours": RaftFlow(model, iterations), "plain": Plain(model, iterations)}
        times = in_turns(rounds, **{k: lambda e=e: list(e(video)) for k, e in engines.items()})
        peaks = {mode: _peak(mode, small, size, iterations) for mode in ("nothing", "volume", "low")}
        kept = {mode: peaks[mode] - peaks["nothing"] for mode in ("volume", "low")}
        result["small" if small else "large"] = _row(times, "plain") | {
            "MiB with the volume": kept["volume"],
            "MiB with low_memory": kept["low"],
            "memory ratio": round(kept["low"] / kept["volume"], 2),
        }
    return result


def _peak(mode: str, small: bool, size: tuple[int, int], iterations: int) -> int:
    """Peak memory in MiB of a fresh process that forms one flow."""
    words = [sys.executable, __file__, "--peak", mode, "--iterations", str(iterations)]
    words += ["--size", f"{size[1]}x{size[0]}"] + (["--small"] if small else [])
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def _print_peak(mode: str, small: bool, size: tuple[int, int], iterations: int) -> None:
    model = RAFT(small, low_memory=mode == "low").eval()
    if mode != "nothing":
        list(RaftFlow(model, iterations)(torch.zeros(2, 3, *size, dtype=torch.uint8)))
    # (`getrusage` would report the parent's peak where that is larger.)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) // 1024)


def decoding(rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        ramp = torch.arange(960).expand(3, 540, 960)
        write_video(file, torch.stack([(ramp + 4 * f) % 256 for f in range(48)]).byte(), 24)
        times = in_turns(
            rounds,
            as_stored=lambda: read_video(file),
            resized=lambda: read_video(file, size=(256, 256)),
        )
    return {f"{name}, frames per second": round(48 / seconds, 1) for name, seconds in times.items()}


def _row(times: dict[str, float], other: str) -> dict[str, float]:
    return {
        "seconds": round(times["ours"], 4),
        f"seconds of {other}": round(times[other], 4),
        "times as fast": round(times[other] / times["ours"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--features", type=int, nargs="*", default=[400, 2048], help="of the Frechet distance")
    parser.add_argument("--only", choices=["frechet", "motion", "raft", "decoding"])
    parser.add_argument("--size", default="800x456", help="of RAFT")
    parser.add_argument("--iterations", type=int, default=12, help="of RAFT")
    parser.add_argument("--peak", choices=["nothing", "volume", "low"], help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    width, height = map(int, options.size.split("x"))
    if options.peak:
        _print_peak(options.peak, options.small, (height, width), options.iterations)
        return
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "frechet": lambda: frechet(options.rounds, options.features),
        "motion": lambda: motion(options.rounds),
        "raft": lambda: raft(options.rounds, (height, width), options.iterations),
        "decoding": lambda: decoding(options.rounds),
    }
    chosen = [options.only] if options.only else list(parts)
    print(json.dumps({name: parts[name]() for name in chosen}, indent=2))


if __name__ == "__main__":
    main()
