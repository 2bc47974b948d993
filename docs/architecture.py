"""
Draws the pictures of docs/architecture.md: `python docs/architecture.py` writes docs/architecture/*.svg.

All text stands in boxes of their own pale colour and arrows are grey, so that one file is readable on a light and on a
dark page. The floors are the ones that `tests/docs/test_architecture.py` checks the imports against.
"""

from html import escape
from pathlib import Path


# From the top floor down: boxes as (title, modules of the package, what is in it). A module may import what is on a
# lower floor or in its own box, nothing else.
FLOORS = [
    [("cli", ("cli", "__main__"), "parses a command, prints a result")],
    [("app", ("app",), "the page in the browser"), ("unstill", ("__init__",), "public names, imported when used")],
    [
        (
            "animation",
            ("animation", "animation_batch", "animation_request", "animation_result", "animation_settings"),
            "a picture becomes a video",
        )
    ],
    [("lab", ("lab",), "diagnosis and comparison of models")],
    [
        ("training", ("training",), "fine-tuning, LoRA, TimeNoise; pico from nothing"),
        ("text_to_video", ("text_to_video",), "I4VGen: a prompt, pictures, a video"),
    ],
    [
        ("hooks", ("hooks",), "apply: methods inside a pipeline"),
        ("models", ("models",), "loading; networks that diffusers lacks"),
    ],
    [
        ("methods", ("methods",), "one file for each method"),
        ("families", ("families",), "one file for each kind of model"),
        ("metrics", ("metrics",), "functions of a video, and evaluate"),
    ],
    [
        ("noise_schedule", ("noise_schedule", "respacing", "sigma_schedule"), "noise levels of a run"),
        (
            "latent_statistics",
            ("latent_statistics", "statistics_estimation", "statistics_file", "statistics_hub"),
            "mean and variance of latents",
        ),
    ],
    [
        ("forward_process", ("forward_process", "predictions"), "alpha, sigma, predictions"),
        ("data", ("data",), "pictures, videos, latents, files"),
    ],
    [
        (
            "errors, documents, parameters",
            ("errors", "documents", "parameters", "progress", "_lazy"),
            "one kit for all floors",
        )
    ],
]

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 240, 84, 44, 42, 12
COLOURS = {
    "user": ("#fff1d6", "#b7791f"),
    "unstill": ("#ffe3d3", "#c2410c"),
    "method": ("#ffc9ab", "#c2410c"),
    "pipeline": ("#dcebfb", "#2563a8"),
    "file": ("#e3f3e1", "#3c7a3a"),
    "floor": ("#eceff3", "#5b6675"),
}
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1c1f24}"
    ".t{font-size:15px;font-weight:600}.l{font-size:12.5px}.c{font-size:11.5px;font-family:ui-monospace,Menlo,monospace}"
    ".a{stroke:#8a8f98;stroke-width:1.8;fill:none}"
)


def svg(width: float, height: float, body: list[str], title: str) -> str:
    """A whole file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="#8a8f98"/></marker></defs>',
            *body,
            "</svg>\n",
        ]
    )


def box(x: float, y: float, width: float, height: float, title: str, lines: list[str], colour: str) -> list[str]:
    """A box with a title and lines under it; a line in backquotes is code."""
    fill, edge = COLOURS[colour]
    middle = x + width / 2
    top = y + height / 2 - 8.5 * len(lines) + 5
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{fill}" stroke="{edge}"/>',
        f'<text class="t" x="{middle:g}" y="{top:g}" text-anchor="middle">{escape(title)}</text>',
    ]
    for i, line in enumerate(lines, 1):
        kind = "l c" if line.startswith("`") else "l"
        parts.append(
            f'<text class="{kind}" x="{middle:g}" y="{top + 17 * i:g}" text-anchor="middle">'
            f"{escape(line.strip('`'))}</text>"
        )
    return parts


def floors() -> str:
    """The packages from the top floor down."""
    width, height, gap = 3 * WIDTH + 2 * GAP_X, 58, 10
    body: list[str] = []
    for i, floor in enumerate(FLOORS):
        share = (width - gap * (len(floor) - 1)) / len(floor)
        for j, (title, _, text) in enumerate(floor):
            colour = {"hooks": "unstill", "methods": "method", "families": "pipeline", "metrics": "file"}.get(
                title, "floor"
            )
            x, y = MARGIN + j * (share + gap), MARGIN + i * (height + gap)
            body += box(x, y, share, height, title, [text], colour)
    return svg(width + 2 * MARGIN, 2 * MARGIN + len(FLOORS) * (height + gap) - gap, body, "Floors of the package")


Node = tuple[float, float, str, list[str], str]


def flow(title: str, nodes: dict[str, Node], edges: list[tuple[str, ...]]) -> str:
    """
    Boxes on a grid, and arrows between them.

    Args:
        title: of the picture.
        nodes: by name: column, row, title, lines, colour.
        edges: (from, to), from side to side unless one is above the other; with "down" from bottom to top; with
            "both" there is a head at both ends.
    """
    body: list[str] = []
    at = {
        name: (MARGIN + node[0] * (WIDTH + GAP_X), MARGIN + node[1] * (HEIGHT + GAP_Y)) for name, node in nodes.items()
    }
    for start, end, *way in edges:
        (x1, y1), (x2, y2) = at[start], at[end]
        if x1 == x2 or "down" in way:  # from bottom to top, or from top to bottom
            down = y2 > y1
            a, b = (y1 + HEIGHT, y2 - 2) if down else (y1, y2 + HEIGHT + 2)
            half = (a + b) / 2
            points = [(x1 + WIDTH / 2, a), (x1 + WIDTH / 2, half), (x2 + WIDTH / 2, half), (x2 + WIDTH / 2, b)]
        else:
            right = x2 > x1
            a, b = (x1 + WIDTH, x2 - 2) if right else (x1, x2 + WIDTH + 2)
            half = b - GAP_X / 2 if right else b + GAP_X / 2
            y1, y2 = y1 + HEIGHT / 2, y2 + HEIGHT / 2
            points = [(a, y1), (half, y1), (half, y2), (b, y2)]
        path = " L".join(f"{x:g},{y:g}" for x, y in points)
        heads = 'marker-start="url(#h)" marker-end="url(#h)"' if "both" in way else 'marker-end="url(#h)"'
        body.append(f'<path class="a" d="M{path}" {heads}/>')
    for name, (_, _, label, lines, colour) in nodes.items():
        body += box(*at[name], WIDTH, HEIGHT, label, lines, colour)
    right = max(x for x, _ in at.values()) + WIDTH + MARGIN
    return svg(right, max(y for _, y in at.values()) + HEIGHT + MARGIN, body, title)


def animate() -> str:
    return flow(
        "An image through unstill.animate",
        {
            "in": (0, 0, "picture, model, methods", ["`unstill.animate(...)`", "also the CLI and the app"], "user"),
            "request": (1, 0, "everything is checked", ["`animation_request`", "nothing is loaded yet"], "unstill"),
            "load": (2, 0, "the pipeline", ["`models/registry`", "a family's model card, weights"], "pipeline"),
            "crop": (1, 1, "the picture, cropped", ["`data/picture_crop`", "RGB, the model's size"], "file"),
            "plain": (0, 2, "plain video", ["`models/call_arguments`", "seed S, no methods"], "pipeline"),
            "improved": (1, 2, "improved video", ["`hooks: sampling(pipe, ...)`", "the same seed S"], "method"),
            "prompt": (
                2,
                2,
                "a prompt, no picture",
                ["`text_to_video/prompt_video`", "pictures, best one, video"],
                "method",
            ),
            "score": (0, 3, "motion and fidelity", ["`metrics/quick_scores`", "of uint8 (F, 3, H, W)"], "file"),
            "result": (1, 3, "Animation", ["`animation_result`", "videos, scores, settings"], "unstill"),
            "save": (2, 3, "files", ["`data/video, data/files`", "all of them, or none"], "file"),
        },
        [
            ("in", "request"),
            ("request", "load"),
            ("load", "crop", "down"),
            ("crop", "plain", "down"),
            ("crop", "improved", "down"),
            ("crop", "prompt", "down"),
            ("plain", "score", "down"),
            ("improved", "score", "down"),
            ("prompt", "score", "down"),
            ("score", "result"),
            ("result", "save"),
        ],
    )


def apply() -> str:
    return flow(
        "Latents through unstill.apply",
        {
            "call": (0, 0, "pipe(image, ...)", ["`hooks/caller`", "one call at a time, else an error"], "user"),
            "times": (1, 0, "scheduler.set_timesteps", ["`hooks/scheduler_hooks`"], "pipeline"),
            "schedule": (1, 1, "on_schedule(run, grid)", ["where sampling starts", "`noise_schedule`"], "method"),
            "prepare": (2, 0, "prepare_latents", ["`hooks/method_hooks`", "the pipeline's own latents"], "pipeline"),
            "noise": (
                2,
                1,
                "on_noise, then on_start",
                ["first latents, rewritten in place", "(B, C, F, H, W)"],
                "method",
            ),
            "denoise": (
                0,
                2,
                "denoiser(latents, image)",
                ["`hooks/condition_hooks`", "at every noise level"],
                "pipeline",
            ),
            "condition": (0, 3, "on_condition(run, image)", ["the image as the network sees it"], "method"),
            "step": (1, 2, "scheduler.step", ["`hooks/step_hooks`", "at every noise level"], "pipeline"),
            "correct": (
                1,
                3,
                "on_step(run, output, ...)",
                ["another prediction,", "or NextSample: no solver step"],
                "method",
            ),
            "decode": (2, 2, "VAE decoding", ["by the pipeline, untouched"], "pipeline"),
            "adapter": (
                0,
                1,
                "families: Adapter",
                ["latents of this pipeline class", "to (B, C, F, H, W) and back"],
                "unstill",
            ),
        },
        [
            ("call", "times"),
            ("times", "schedule"),
            ("times", "prepare"),
            ("prepare", "noise"),
            ("noise", "denoise", "down"),
            ("denoise", "condition"),
            ("denoise", "step", "both"),
            ("step", "correct"),
            ("step", "decode"),
        ],
    )


def training() -> str:
    return flow(
        "A clip through training",
        {
            "recipe": (0, 0, "recipe (YAML), videos", ["`training/recipe, setup`", "all of it checked first"], "user"),
            "source": (1, 0, "clip F of video V", ["`data/sources, data/clips`", "a function of the seed"], "file"),
            "encode": (
                2,
                0,
                "latents (C, F, h, w)",
                ["`families: TrainingRole.encode`", "VAE, text and image encoders"],
                "pipeline",
            ),
            "cache": (0, 1, "cache of latents", ["`data/cache`", "float16, encoded once"], "file"),
            "batch": (1, 1, "batch of step N", ["`data/loading`", "a function of the seed"], "file"),
            "noise": (
                2,
                1,
                "x_t = alpha x0 + sigma eps",
                ["`training/noise_sampling`", "VP, EDM or flow matching"],
                "unstill",
            ),
            "image": (
                0,
                2,
                "noise on the image",
                ["`training/condition_noise`", "TimeNoise and its baselines"],
                "method",
            ),
            "predict": (
                1,
                2,
                "the network's prediction",
                ["`families: TrainingRole.predict`", "inputs as in the pipeline"],
                "pipeline",
            ),
            "loss": (2, 2, "loss, gradient, step", ["`training/loss, trainer`", "loss.csv"], "unstill"),
            "checkpoint": (0, 3, "checkpoints", ["`training/checkpoints`", "resumed bit for bit"], "file"),
            "out": (
                1,
                3,
                "pipeline/, lora.safetensors",
                ["`models/saving, training/lora`", "diffusers' formats"],
                "user",
            ),
        },
        [
            ("recipe", "source"),
            ("source", "encode"),
            ("encode", "cache", "down"),
            ("cache", "batch"),
            ("batch", "noise"),
            ("noise", "image", "down"),
            ("image", "predict"),
            ("predict", "loss"),
            ("loss", "checkpoint", "down"),
            ("checkpoint", "out"),
        ],
    )


def evaluate() -> str:
    return flow(
        "A folder through unstill.evaluate",
        {
            "folder": (0, 0, "a folder of videos", ["`metrics/evaluate`", "images, prompts, real videos"], "user"),
            "file": (
                1,
                0,
                "one file, one metric",
                ["`metrics/evaluator`", "key: content, metric, version"],
                "unstill",
            ),
            "record": (2, 0, "record on the disk?", ["`metrics/record_cache`", "found: nothing is computed"], "file"),
            "video": (0, 1, "video", ["`data/video`", "uint8 (F, 3, H, W)"], "file"),
            "inputs": (
                1,
                1,
                "what the metric needs",
                ["`metrics/inputs`", "image, prompt, flow, networks"],
                "pipeline",
            ),
            "metric": (2, 1, "the metric's function", ["`@metric(...)`", "values by name"], "method"),
            "set": (0, 2, "means; metrics of sets", ["`metrics/summary`", "real videos beside them"], "unstill"),
            "report": (1, 2, "EvaluationReport", ["`metrics/report`", "scores, units, reasons"], "unstill"),
            "out": (2, 2, "table, JSON", ["`cli/evaluate`"], "user"),
        },
        [
            ("folder", "file"),
            ("file", "record"),
            ("record", "video", "down"),
            ("video", "inputs"),
            ("inputs", "metric"),
            ("metric", "set", "down"),
            ("set", "report"),
            ("report", "out"),
        ],
    )


def extend() -> str:
    return flow(
        "Where a new part goes, and what finds it",
        {
            "method": (0, 0, "a method", ["`methods/NAME.py`", "class attributes say the rest"], "method"),
            "method2": (1, 0, "methods/registry", ["lists the folder"], "unstill"),
            "method3": (
                2,
                0,
                "found by",
                ["apply, unstill methods, --method,", "app form, support table, docs"],
                "user",
            ),
            "metric": (0, 1, "a metric", ["`metrics/NAME.py`", "@metric(label, unit, ...)"], "file"),
            "metric2": (1, 1, "metrics/registry", ["lists the folder"], "unstill"),
            "metric3": (2, 1, "found by", ["evaluate, its table and JSON,", "record cache, docs table"], "user"),
            "pipe": (0, 2, "a pipeline of diffusers", ["a row of adapters in", "`families/FAMILY.py`"], "pipeline"),
            "family": (0, 3, "a model family", ["`families/NAME.py`", "FAMILY = Family(...)"], "pipeline"),
            "family2": (1, 2.5, "families/registry", ["lists the folder"], "unstill"),
            "family3": (2, 2.5, "found by", ["apply, load, unstill models,", "train, support table, docs"], "user"),
        },
        [
            ("method", "method2"),
            ("method2", "method3"),
            ("metric", "metric2"),
            ("metric2", "metric3"),
            ("pipe", "family2"),
            ("family", "family2"),
            ("family2", "family3"),
        ],
    )


PICTURES = {
    "floors": floors,
    "animate": animate,
    "apply": apply,
    "training": training,
    "evaluate": evaluate,
    "extend": extend,
}


def main() -> None:
    folder = Path(__file__).with_name("architecture")
    folder.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
