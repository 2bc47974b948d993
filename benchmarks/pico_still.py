"""The fault of practice, and what helps: the embedded model after a fine-tuning on clips that hardly move.

    python benchmarks/pico_still.py --out docs/pico        # 12 settings, 14 minutes on one idle core

Two LoRAs of the package, `pico-still` (clean image) and `pico-still-time-noise` (TimeNoise on the image), each sampled
plainly, from an early start and with Analytic-Init, as in Table 1 of Conditional Image Leakage (arXiv 2406.15735).
The motion level is given as unspecified and there are no captions, in training and here. Writes still.json, still.md
and still.png. Intervals are 95 %, bootstrap over pictures; differences are paired (same picture, same noise).
"""

import json
from typing import Any

from pico_videos import MEASURES, animated, held_out_scenes, interval, measures, opened, parser_of, read_options
from torch import Tensor

import unstill
from unstill.data.contact_sheets import contact_sheet
from unstill.lab.bootstrap import Interval
from unstill.lab.interval_text import between, signed
from unstill.metrics.quick_scores import breaks_up, score_video, scores_verdict
from unstill.models.pico.pipeline import WEIGHTS


def scored(video: Tensor, picture: Tensor) -> dict[str, float]:
    """What `unstill animate` measures, of a video (F, 3, H, W) and its picture (3, H, W) in [0, 1]."""
    return score_video((video * 255).round().byte(), (picture * 255).round().byte())


def clear_gain(plain: dict[str, float], improved: dict[str, float]) -> bool:
    """Whether the verdict of `unstill animate` says more motion than another seed brings, of a video that holds."""
    verdict = scores_verdict(plain, improved)
    return "times as much" in verdict and "another seed" not in verdict


MODELS = ("pico", "pico-still", "pico-still-time-noise")
SHOWN = 3  # pictures on the sheet


def starts() -> dict[str, tuple[unstill.Method, ...]]:
    statistics = unstill.LatentStatistics.load(WEIGHTS / "statistics.safetensors")
    made: dict[str, tuple[unstill.Method, ...]] = {"plain": ()}
    made["early start, sigma 20"] = (unstill.EarlyStart(sigma=20.0),)
    made["early start, sigma 10"] = (unstill.EarlyStart(sigma=10.0),)
    made["Analytic-Init, sigma 10"] = (unstill.AnalyticInit(sigma=10.0, statistics=statistics),)
    return made


def page(result: dict[str, Any]) -> str:
    lines = [
        "# A model that stands still, and what helps",
        "",
        f"`{result['command']}`: {result['scenes']} pictures that no training run has seen,",
        f"{result['sampled']},",
        "the same noise in every row. The motion level is unspecified and there is no caption, as in the fine-tuning.",
        "*Travel* and *flow* in units of the motion level, see [motion](motion.md). In brackets 95 % intervals over",
        "pictures. The models: [pico](../pico.md#models-that-stand-still).",
        "",
        "| model | start | travel | flow | outline | colour | background error | first-frame error | breaks up | "
        "clear gain |",
        "|" + "---|" * 10,
    ]
    for row in result["rows"]:
        cells = [between(Interval(**row["means"][name])) for name in MEASURES]
        cells += [str(row["broken"]), "" if row["start"] == "plain" else str(row["gained"])]
        lines.append(f"| {row['model']} | {row['start']} | {' | '.join(cells)} |")
    lines += [
        "",
        "*Breaks up* and *clear gain* count the pictures of which the verdict of `unstill animate --compare` says so:",
        "colours and detail are lost; or the video holds and moves at least 1.5 times as much as the plain one.",
        "",
        "Differences, paired by picture:",
        "",
        "| setting | against | travel | flow | outline | colour | first-frame error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["differences"]:
        cells = [signed(Interval(**row[name])) for name in MEASURES if name != "background_error"]
        lines.append(f"| {row['setting']} | {row['against']} | {' | '.join(cells)} |")
    shown = f"*The first {SHOWN} of the pictures, every model and start.*"
    return "\n".join([*lines, "", "![models and starts](still.png)", "", shown, ""])


def main() -> None:
    options = read_options(parser_of(__doc__, scenes=12))
    scenes = held_out_scenes(options.scenes)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    scores: dict[tuple[str, str], list[dict[str, float]]] = {}
    videos: dict[tuple[str, str], list[Tensor]] = {}
    for start, methods in starts().items():
        for model in MODELS:
            pipe, name = opened(options, model)
            made = animated(pipe, scenes.images, options.work, name, methods, motion=None)
            videos[model, start] = made[:SHOWN]
            found[model, start] = [measures(video, scenes, i) for i, video in enumerate(made)]
            scores[model, start] = [scored(video, image) for video, image in zip(made, scenes.images, strict=True)]
            means = {k: round(sum(one[k] for one in found[model, start]) / len(scenes), 3) for k in MEASURES}
            print(model, start, means, flush=True)

    def difference(a: tuple[str, str], b: tuple[str, str]) -> dict[str, Any]:
        pairs = list(zip(found[a], found[b], strict=True))
        figures = {k: interval([x[k] - y[k] for x, y in pairs]).as_dict() for k in MEASURES}
        return {"setting": ", ".join(a), "against": ", ".join(b), **figures}

    keys = [(model, start) for model in MODELS for start in starts()]
    rows = [
        {
            "model": m,
            "start": s,
            "means": {k: interval([figures[k] for figures in found[m, s]]).as_dict() for k in MEASURES},
            "broken": sum(map(breaks_up, scores[m, s])),
            "gained": sum(map(clear_gain, scores[m, "plain"], scores[m, s])),
        }
        for m, s in keys
    ]
    naive, noisy = MODELS[1:]
    differences = [difference((naive, "plain"), ("pico", "plain")), difference((noisy, "plain"), (naive, "plain"))]
    differences += [difference((m, s), (m, "plain")) for m, s in keys if s != "plain"]
    differences += [difference((noisy, s), (naive, "plain")) for _, s in keys[: len(starts())] if s != "plain"]
    result = {
        "command": options.command,
        "sampled": options.sampled,
        "scenes": options.scenes,
        "rows": rows,
        "differences": differences,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "still.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "still.md").write_text(page(result))
    seen = [key for key in keys if key[1] in ("plain", "early start, sigma 10")]
    sheet = [(videos[key][i], ", ".join(key)) for i in range(SHOWN) for key in seen]
    clips, labels = zip(*sheet, strict=True)
    contact_sheet(clips, labels, frames=8, panel=80).save(options.out / "still.png")
    print(page(result))


if __name__ == "__main__":
    main()
