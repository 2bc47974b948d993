"""What the embedded model does, measured: does it follow the motion asked for, where does it leak, what helps.

    python benchmarks/pico_report.py --out docs/pico            # about 15 minutes on one core
    python benchmarks/pico_report.py --out trial --images 8    # a quick look

Writes leak and motion as JSON, Markdown and plots, and contact sheets. Intervals are 95 %: of the leak by bootstrap
over clips, of motion over images by the normal approximation; differences are paired (same image, same noise).
"""

import argparse
import json
from pathlib import Path

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import unstill
from unstill.data import synthetic_world
from unstill.data.contact_sheets import contact_sheet
from unstill.lab.bootstrap import Interval
from unstill.lab.interval_text import between
from unstill.lab.leakage import measure_leakage
from unstill.lab.probe_clips import ProbeClip, from_world
from unstill.metrics import motion_score
from unstill.models.call_arguments import arguments
from unstill.models.pico import PicoPipeline


LEVELS = (0.1, 0.3, 0.6, 1.0)  # requested motion
SIGMAS = (200.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5)
STARTS = (200.0, 20.0, 6.0)


def flow(video: Tensor) -> float:
    """Motion of one clip (F, 3, H, W) in [0, 1] as an estimator sees it, in the units of the requested level."""
    pixels = motion_score(video, flow="dis", size=(256, 256), reduction="mean")
    return pixels / 256 / synthetic_world.SCORE_UNIT


def interval(values: list[float] | Tensor) -> dict[str, float]:
    x = torch.as_tensor(values, dtype=torch.float64)
    return {"mean": x.mean().item(), "half_width": (1.96 * x.std() / len(x) ** 0.5).item()}


def show(value: dict[str, float], digits: int = 3) -> str:
    return f"{value['mean']:.{digits}f} ± {value['half_width']:.{digits}f}"


def held_out(n: int, seed: int = 77_000, **kwargs) -> tuple[synthetic_world.Scene, synthetic_world.Motion]:
    """Clips that no training run has seen: training seeds are hashes of small numbers, this one is not."""
    g = torch.Generator().manual_seed(seed)
    scene = synthetic_world.sample_scene(n, g, **kwargs)
    return scene, synthetic_world.sample_motion(scene, g)


def animate(pipe, frames: Tensor, motion: float, methods=(), steps: int = 25) -> Tensor:
    """(N, 3, 96, 96) to (N, F, 3, 96, 96); image i always gets the noise of seed i."""
    noise = torch.cat(
        [torch.randn(1, 8, 6, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(len(frames))]
    )
    made = []
    with unstill.apply(pipe, *methods):
        for part, latents in zip(frames.split(8), noise.split(8), strict=True):
            made.append(pipe(part, motion=motion, latents=latents, num_inference_steps=steps, output_type="pt").frames)
    return torch.cat(made)


def methods_for(sigma: float, kind: str, statistics) -> tuple:
    if kind == "plain":
        return ()
    if kind == "early start":
        return (unstill.EarlyStart(sigma=sigma),)
    return (unstill.AnalyticInit(sigma=sigma, statistics=statistics),)


def motion_table(pipe, statistics, n: int, starts=STARTS) -> dict:
    scene, motion = held_out(n)
    truth = synthetic_world.render(scene, motion)
    images = truth.video[:, 0]
    settings = [
        ("plain", 200.0),
        *(("early start", s) for s in starts[1:]),
        *(("Analytic-Init", s) for s in starts[1:]),
    ]
    rows = []
    plain: dict[float, Tensor] = {}
    for kind, sigma in settings:
        for level in LEVELS:
            videos = animate(pipe, images, level, methods_for(sigma, kind, statistics))
            measured = torch.tensor([flow(v) for v in videos], dtype=torch.float64)
            first = (videos[:, 0] - images).square().mean((1, 2, 3)).sqrt()
            plain.setdefault(level, measured)
            row = {"start": kind, "sigma": sigma, "requested": level, "measured": interval(measured)}
            row |= {"more_than_plain": interval(measured - plain[level]), "first_frame_rms": interval(first)}
            rows.append(row)
            print(
                f"{kind:14s} {sigma:6.1f} asked {level:.1f}: {show(row['measured'])}",
                flush=True,
            )
    readings = torch.tensor([flow(v) for v in truth.video], dtype=torch.float64)
    exact = truth.motion.double()
    slope = (readings * exact).sum() / exact.square().sum()
    still = torch.tensor([flow(v[:1].expand(8, -1, -1, -1)) for v in truth.video])
    estimator = {
        "slope": slope.item(),
        "correlation": torch.corrcoef(torch.stack([readings, exact]))[0, 1].item(),
        "reading_of_a_still": still.max().item(),
        "coding_only": interval([flow(v) for v in coded(pipe, truth.video[:16])]),
        "coding_only_truth": interval(readings[:16]),
    }
    return {"images": n, "estimator": estimator, "rows": rows}


@torch.no_grad()
def coded(pipe, videos: Tensor) -> Tensor:
    return torch.stack([pipe.vae(v * 2 - 1).clamp(-1, 1) / 2 + 0.5 for v in videos])


def leak_table(pipe, clips: int) -> dict:
    """What `unstill diagnose` finds at each noise level, beside the best that any model could predict."""

    def call(subject: ProbeClip, picture) -> dict:
        return arguments(type(pipe), image=picture, motion=subject.motion)

    subjects = from_world(clips, 16, (96, 96), others=320)
    found = measure_leakage(pipe, subjects, call, SIGMAS, conditions=("image", "removed"))
    for i, level in enumerate(found.levels):
        model, best = (found.curves[source]["explained"][i] for source in ("image", "reference"))
        print(f"sigma {level.value:6.1f} explained: {between(model)}, best {between(best)}")
    return found.as_dict()


def leak_markdown(table: dict) -> str:
    lines = [
        "# Where the embedded model leaks",
        "",
        f"`python benchmarks/pico_report.py --only leak`: {table['clips']} clips of one toy, one-step predictions.",
        "*Explained* is R² against a static copy of the first frame; *flow* is the prediction's optical flow over the",
        "clip's own. *Best* is the Bayes-optimal prediction over candidate motions of the same score, on the same",
        "noisy clip; *p(truth)* is the posterior share of the true motion among them: where it is close to 1 for want",
        "of candidates, the reference is optimistic. *Leakage* is the motion lost beyond the best, as far as the",
        "image can have taken it. In brackets: 95 % bootstrap intervals over clips.",
        "",
        "| sigma | explained | best | flow | flow, best | first frame off by | p(truth) | leakage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    model, best = table["curves"]["image"], table["curves"]["reference"]
    columns = (model["explained"], best["explained"], model["flow"], best["flow"], model["first_frame"], best["truth"])
    for level, *cells in zip(table["levels"], *columns, table["leak"], strict=True):
        lines.append(f"| {level['sigma']:g} | " + " | ".join(between(Interval(**one)) for one in cells) + " |")
    return "\n".join(lines) + "\n"


def motion_markdown(table: dict) -> str:
    estimator = table["estimator"]
    lines = [
        "# Does the embedded model move as much as it is asked to?",
        "",
        f"`python benchmarks/pico_report.py --only motion`: {table['images']} pictures, 25 steps, the same noise",
        "for every row. Motion is read by optical flow (DIS), in the units of the request. On the world's own clips",
        f"it reads {estimator['slope']:.2f} times the exact motion (correlation {estimator['correlation']:.2f}),",
        'so "as requested" is that multiple.',
        "",
        "| start | sigma | " + " | ".join(f"asked {level:g}" for level in LEVELS) + " | first frame off by |",
        "|---|---|" + "---|" * (len(LEVELS) + 1),
    ]
    for kind, sigma in dict.fromkeys((r["start"], r["sigma"]) for r in table["rows"]):
        rows = [r for r in table["rows"] if (r["start"], r["sigma"]) == (kind, sigma)]
        cells = [
            show(r["measured"], 2) + ("" if kind == "plain" else f" ({r['more_than_plain']['mean']:+.2f})")
            for r in rows
        ]
        first = sum(r["first_frame_rms"]["mean"] for r in rows) / len(rows)
        lines.append(f"| {kind} | {sigma:g} | {' | '.join(cells)} | {first:.3f} |")
    lines += ["", "In brackets: the paired difference from plain."]
    return "\n".join(lines) + "\n"


def plot_leak(table: dict, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for axis, key, title in zip(
        axes, ("explained", "flow"), ("Explained motion (R²)", "Flow / true flow"), strict=True
    ):
        for name, label, colour in (("reference", "best possible", "#2a9d8f"), ("image", "pico", "#e76f51")):
            x = [level["sigma"] for level in table["levels"]]
            curve = table["curves"][name][key]
            axis.plot(x, [one["value"] for one in curve], color=colour, marker="o", markersize=4, label=label)
            low, high = ([one[end] for one in curve] for end in ("low", "high"))
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set(xscale="log", xlabel="noise level sigma", title=title)
        axis.axhline(0 if key == "explained" else 1, color="0.7", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_motion(table: dict, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(5, 4), constrained_layout=True)
    kinds = [("plain", 200.0), *(("Analytic-Init", s) for s in STARTS[1:])]
    colours = plt.get_cmap("viridis")
    for i, (kind, sigma) in enumerate(kinds):
        rows = [r for r in table["rows"] if r["start"] == kind and r["sigma"] == sigma]
        axis.errorbar(
            [r["requested"] for r in rows],
            [r["measured"]["mean"] for r in rows],
            [r["measured"]["half_width"] for r in rows],
            label=f"{kind}, sigma {sigma:g}",
            color=colours(i / len(kinds)),
            marker="o",
            markersize=4,
            capsize=2,
        )
    slope = table["estimator"]["slope"]
    axis.plot([0, 1], [0, slope], color="0.7", linestyle="--", label="as requested")
    axis.set(xlabel="requested motion", ylabel="measured motion")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheets(pipe, statistics, out: Path, sigma: float, n: int = 4) -> None:
    scene, motion = held_out(40)
    truth = synthetic_world.render(scene, motion)
    chosen = [i for i in range(40) if scene.background[i] == 0][:n] + [
        i for i in range(40) if scene.background[i] == 1
    ][:1]
    images = truth.video[chosen, 0]
    rows, labels = [], []
    by_level = {level: animate(pipe, images, level) for level in LEVELS}
    for i in range(len(images)):
        for level in LEVELS:
            rows.append(by_level[level][i])
            labels.append(f"motion {level:g}")
    contact_sheet(rows[: 4 * 3], labels[: 4 * 3], frames=8, panel=96).save(out / "levels.png")
    rows, labels = [], []
    by_start = {
        kind: animate(pipe, images, 0.6, methods_for(sigma, kind, statistics))
        for kind in ("plain", "early start", "Analytic-Init")
    }
    for i in range(len(images)):
        for kind, videos in by_start.items():
            rows.append(videos[i])
            labels.append(kind)
    contact_sheet(rows, labels, frames=8, panel=96).save(out / "starts.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/pico"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--sheet-sigma", type=float, default=10.0)
    parser.add_argument(
        "--pipeline", type=Path, help="a folder written by 'unstill train pico'; default: the embedded weights"
    )
    parser.add_argument("--only", choices=("sheets", "leak", "motion"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    pipe = PicoPipeline.from_pretrained(chosen.pipeline) if chosen.pipeline else PicoPipeline.embedded()
    pipe.set_progress_bar_config(disable=True)
    statistics = unstill.LatentStatistics.load(Path(pipe.config._name_or_path) / "statistics.safetensors")
    if chosen.only in (None, "sheets"):
        sheets(pipe, statistics, chosen.out, chosen.sheet_sigma)
    if chosen.only in (None, "leak"):
        table = leak_table(pipe, chosen.clips)
        (chosen.out / "leak.json").write_text(json.dumps(table, indent=1))
        (chosen.out / "leak.md").write_text(leak_markdown(table))
        plot_leak(table, chosen.out / "leak.png")
    if chosen.only in (None, "motion"):
        table = motion_table(pipe, statistics, chosen.images)
        (chosen.out / "motion.json").write_text(json.dumps(table, indent=1))
        (chosen.out / "motion.md").write_text(motion_markdown(table))
        plot_motion(table, chosen.out / "motion.png")


if __name__ == "__main__":
    main()
