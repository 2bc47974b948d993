"""`unstill animate`: a still picture moves, plainly and improved, with scores."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer


def animate(
    image: Annotated[
        Path | None, typer.Argument(help="A picture. Without one: a picture that comes with the package.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What happens, for models that read text.")] = None,
    model: Annotated[
        str, typer.Option(help="A name from 'unstill models', a diffusers folder, or a hub id.")
    ] = "pico",
    method: Annotated[
        list[str] | None,
        typer.Option(help="name, name:preset or name:key=value,key=value. Repeatable. See 'unstill methods'."),
    ] = None,
    motion: Annotated[float | None, typer.Option(help="How much should move: 0 (still) to 1 (lively).")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Length of the video.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Weight of prompt and picture. Default: the model's; pico's is 2 with a prompt, else 1."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps: more is slower and cleaner.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, for models that make more than one size.")] = None,
    fps: Annotated[int | None, typer.Option(min=1, max=120, help="Frames per second of the written video.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same video.")] = 0,
    out: Annotated[Path, typer.Option(help=".mp4, .gif, .webp, or a folder for PNG pictures.")] = Path("animated.mp4"),
    compare: Annotated[bool, typer.Option("--compare", help="Also write plain and improved side by side.")] = False,
    plain: Annotated[
        bool, typer.Option(help="Also make the plain video to compare with; takes as long again.")
    ] = True,
    upscale: Annotated[
        int | None, typer.Option(min=1, max=16, help="Enlarge the written video. Small models: 4, others: 1.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps ... By default the best there is.")
    ] = None,
    offload: Annotated[bool, typer.Option("--offload", help="Less GPU memory, more time.")] = False,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Without a picture: how many are made to choose from; 16 unless said.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(help="What scores them: proxy, world, pickscore, clip:FOLDER_OR_ID, image-reward:CHECKPOINT."),
    ] = None,
    pick: Annotated[int | None, typer.Option(min=0, help="Take this one in place of the best.")] = None,
    early: Annotated[bool, typer.Option("--early", help="Stop the worse ones on the way.")] = False,
    text_to_image: Annotated[
        str | None,
        typer.Option(help="A diffusers folder or hub id that makes the pictures in place of the video model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print scores and settings as JSON.")] = False,
) -> None:
    """
    Make a picture, or words, move.

    Makes two videos from the same seed, plainly as the model does it and improved by the methods; says how much
    more the second moves and how close it stays to the picture. A JSON file beside it holds all that is
    needed to make it again.

    With --prompt and no picture, several pictures are made of the words, and the best is set in motion; a folder
    beside the video keeps them all.
    """
    from PIL import Image

    from unstill.cli import from_prompt, output
    from unstill.cli.options import describe_method, parse_methods, wanted_size
    from unstill.cli.output import sibling
    from unstill.cli.progress import Report
    from unstill.data.images import read_image, resize_and_crop
    from unstill.data.ownership import check_free, digest, together
    from unstill.errors import UnstillError
    from unstill.models import registry
    from unstill.models.call_arguments import arguments, native_frames, native_size

    # All that a person can get wrong is looked at before a model is loaded, and first what needs no diffusers.
    if compare and not plain:
        raise UnstillError("--compare needs the plain video: leave out --no-plain.")
    if prompt is not None and not prompt.strip():
        raise UnstillError("--prompt is empty: say what happens, for example --prompt 'a boat sails to the left'.")
    entry = registry.find(model)
    if image is None and not prompt and registry.pipeline_name(model) == "PicoPipeline":
        image = registry.bundled_picture()
    source = None if image is None else read_image(image)
    output.check_video_name(out)
    record = out.with_name(f"{out.stem}.json")
    names = [out.name] + ([sibling(out, "plain").name] if plain else [])
    names += [sibling(out, "compare").name] if compare else []
    check_free(record, [out.with_name(name) for name in names])
    named = parse_methods(method, model)
    wanted = wanted_size(size, model)
    cls = registry.pipeline_class(model)  # of a hub id it is known only when it is loaded
    words_alone = from_prompt.applies(cls, image, prompt, method, text_to_image)
    choice = from_prompt.Choice.of(candidates, reward, pick, early, text_to_image)
    if choice.given and not words_alone:
        raise UnstillError(
            "--candidates, --reward, --pick, --early and --text-to-image are for pictures that are made of a prompt: "
            "give --prompt without a picture and without other methods, and a model that makes videos from text, or "
            "--text-to-image."
        )
    methods = () if words_alone and not method else named
    if words_alone and text_to_image is not None:
        source = Image.new("RGB", (64, 64))  # stands for the picture that is to come
    asked: dict[str, Any] = {
        "image": source,
        "prompt": prompt,
        "motion": motion,
        "frames": frames or (entry.frames if entry else None),
        "steps": steps or (entry.steps if entry else None),
        "fps": fps or (entry.fps if entry else None),
        "guidance": guidance,
    }
    bars = sys.stderr.isatty() and not as_json
    output.hush(bars)
    if cls is not None:
        arguments(cls, **asked)

    if words_alone:
        from_prompt.check_place(out)
    output.check_writable(out)
    with together(record, names) as results:
        folder = results.folder
        clock = _Clock()
        with clock("load"):
            pipe = registry.load(model, device=device, offload=offload)
        shape = wanted or (entry.size if entry else native_size(pipe))
        picture = None if source is None else resize_and_crop(source, shape)
        fitted = {"image": picture, "size": shape, "frames": asked["frames"] or native_frames(pipe)}
        call = arguments(type(pipe), **{**asked, **fitted})
        versions = {"plain": (), "improved": methods} if plain else {"improved": methods}
        made = None
        if words_alone:
            from unstill.methods.ni_vsds import NIVSDS
            from unstill.text_to_video.request import stage_two

            assert prompt is not None
            versions.pop("improved")
            method_used = stage_two(pipe, next((one for one in methods if isinstance(one, NIVSDS)), "paper"))
            methods, report = (method_used,), Report(quiet=not bars)
            with clock("improved"):
                made, judge = from_prompt.make(pipe, prompt, call, choice, method_used, seed, out, offload, report)
            if text_to_image is not None:  # plainly, the same picture
                picture = made.anchor
                call = arguments(type(pipe), **{**asked, **fitted, "image": picture})
        videos, scores = _make(pipe, call, picture, versions, seed, clock, bars)
        if made is not None:
            videos["improved"], scores["improved"] = made.frames, _scores(made.frames, made.anchor)
            for name, video in videos.items():
                scores[name] |= {"reward": from_prompt.reward_of(video, prompt or "", judge)}
        rate = fps or (entry.fps if entry else 8)
        with clock("write"):
            enlarged = upscale or (4 if max(shape) <= 128 else 1)
            shown = None
            if compare:
                shown = videos if made is None else from_prompt.side_by_side(videos, made)
            written = _write(folder, out, videos, rate, enlarged, shown)
        settings: dict[str, Any] = {
            **output.provenance(),
            "image": image and {"path": str(image), "sha256": digest(image)},
            "model": {"name": model, "pipeline": type(pipe).__name__, "weights": entry and entry.weights},
            "methods": [describe_method(one) for one in methods],
            "scheduler": {"class": type(pipe.scheduler).__name__, **pipe.scheduler.config},
            "call": {**_defaults(pipe), **{key: value for key, value in call.items() if key != "image"}},
            "size": {"height": shape[0], "width": shape[1]},
            "candidates": made and from_prompt.describe(made, out),
            "seed": seed,
            "device": str(pipe._execution_device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "fps": rate,
            "upscale": enlarged,
            "scores": scores,
            "seconds": clock.seconds,
            "files": [str(path) for path in written],
        }
        results.record = settings
    if as_json:
        typer.echo(json.dumps(settings, indent=2))
    else:
        _tell(scores, settings, out, made and (from_prompt.verdict(scores, made), from_prompt.told(made, out)))


def _defaults(pipe: Any) -> dict[str, Any]:
    """What the call leaves to the pipeline."""
    from unstill.models.call_arguments import parameters

    values = {name: one.default for name, one in parameters(type(pipe)).items()}
    if "guidance_scale" in values and values["guidance_scale"] is None:  # what the prompt made of it
        values["guidance_scale"] = getattr(pipe, "guidance_scale", None)
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}


class _Clock:
    """Seconds by name of the part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, part: str) -> _Clock:
        self._part = part
        return self

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._part] = round(time.perf_counter() - self._since, 3)


def _make(
    pipe: Any, call: dict[str, Any], picture: Any, versions: dict[str, Any], seed: int, clock: _Clock, bars: bool
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    from unstill.hooks import sampling
    from unstill.models.call_arguments import generate

    videos, scores = {}, {}
    for name, methods in versions.items():
        pipe.set_progress_bar_config(desc=name, leave=False, disable=not bars)
        # A pipeline without an image of its own lets the methods encode it.
        given = None if "image" in call else picture
        with clock(name), sampling(pipe, *methods, image=given) as sampler:
            videos[name] = generate(pipe, call, seed, sampler)
        scores[name] = _scores(videos[name], picture)
    return videos, scores


def _scores(video: Any, picture: Any) -> dict[str, float]:
    import numpy as np
    import torch

    from unstill.cli.scores import measure

    pixels = None if picture is None else torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return {key: round(value, 5) for key, value in measure(video, pixels).items()}


def _write(
    folder: Path, out: Path, videos: dict[str, Any], fps: int, upscale: int, shown: dict[str, Any] | None
) -> list[Path]:
    """The videos, and those of `shown` next to each other."""
    from unstill.cli.output import sibling
    from unstill.data.contact_sheets import side_by_side
    from unstill.data.video import write_video

    finals = {out: videos["improved"]}
    if "plain" in videos:
        finals[sibling(out, "plain")] = videos["plain"]
    for path, video in finals.items():
        write_video(folder / path.name, video, fps, upscale=upscale)
    if shown:
        path = sibling(out, "compare")
        write_video(folder / path.name, side_by_side(list(shown.values()), list(shown)), fps)
        return [*finals, path]
    return list(finals)


def _tell(
    scores: dict[str, dict[str, float]], settings: dict[str, Any], out: Path, words: tuple[str, str] | None
) -> None:
    """`words`: of a video from words alone, the verdict and how it was chosen."""
    from rich.console import Console

    from unstill.cli.scores import table, verdict

    console = Console(highlight=False)
    console.print(table(scores))
    if "plain" in scores:
        console.print(words[0] if words else verdict(scores["plain"], scores["improved"]), soft_wrap=True)
    names = "I4VGen" if words else ", ".join(f"{m['name']}" for m in settings["methods"])
    console.print(f"Improved by {names} (seed {settings['seed']}).", style="dim")
    typer.echo(f"Wrote {', '.join(settings['files'])} and {out.with_name(out.stem + '.json')}.")
    if words:
        typer.echo(words[1])
