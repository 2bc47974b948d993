"""`unstill diagnose`: does this model copy its image instead of moving it, and what to set."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer


if TYPE_CHECKING:
    from unstill.lab.diagnose import Diagnosis
    from unstill.lab.response import Response


def diagnose(
    model: Annotated[
        str, typer.Option(help="A name from 'unstill models', a diffusers folder, or a hub id.")
    ] = "pico",
    clips: Annotated[
        Path | None, typer.Option(help="A folder of real videos. Without it: rendered clips, whose truth is known.")
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Clips to probe with; more give narrower intervals.")] = 8,
    levels: Annotated[
        str | None, typer.Option(help="Noise levels, falling, with commas: 200,50,10 or 1.0,0.96,0.9.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Probe the model with these methods in it, e.g. noise-rectification.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="Of the motion that a recommended start has to keep.")
    ] = 0.5,
    prompt: Annotated[str | None, typer.Option(help="What happens, for models that read text.")] = None,
    response: Annotated[
        int, typer.Option(min=0, help="Also make so many videos per motion level; 0 leaves that out.")
    ] = 4,
    frames: Annotated[int | None, typer.Option(min=2, help="Frames per clip. Default: the model's.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="Frames per second to read real videos at.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, for models that make more than one size.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the clips and the noise.")] = 0,
    out: Annotated[
        Path, typer.Option(help="The report to write; a JSON file of the same name lies beside it.")
    ] = Path("diagnosis.html"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps ... By default the best there is.")
    ] = None,
    offload: Annotated[bool, typer.Option("--offload", help="Less GPU memory, more time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Find out whether a model copies its image instead of moving it, and where to start sampling.

    Noises clips, lets the model predict them in one step, and compares the motion: with its image, with a weakened
    one, without any; on rendered clips also with the best that any model could predict. Stopped, it goes on where it
    was when the same command is given again; accelerate launch -m unstill diagnose ... shares the clips out.
    """
    from unstill.cli.processes import rank_and_count

    found = examine(
        model,
        clips=clips,
        count=count,
        levels=levels,
        method=method,
        share=share,
        prompt=prompt,
        response=response,
        frames=frames,
        fps=fps,
        size=size,
        seed=seed,
        out=out,
        device=device,
        offload=offload,
        quiet=as_json,
        processes=rank_and_count(),
    )
    if found is None:
        return
    if as_json:
        typer.echo(json.dumps(found.result, indent=2))
        return
    from rich.console import Console

    from unstill.lab.diagnosis_report import table, verdict

    console = Console(highlight=False)
    console.print(table(found.diagnosis))
    for sentence in verdict(found.diagnosis):
        console.print(sentence)
    for sentence in found.result["limits"]:
        typer.echo(sentence, err=True)
    if found.result["use"]:
        typer.echo(f"Try it: {found.result['use']}")
    typer.echo(f"Wrote {out} and {out.with_suffix('.json')}.")


class Found(NamedTuple):
    """A diagnosis, as objects and as what is written into the JSON file."""

    diagnosis: Diagnosis
    response: Response | None
    result: dict[str, Any]


def examine(
    model: str,
    *,
    out: Path,
    clips: Path | None = None,
    count: int = 8,
    levels: str | None = None,
    method: list[str] | None = None,
    share: float = 0.5,
    prompt: str | None = None,
    response: int = 4,
    frames: int | None = None,
    fps: float | None = None,
    size: str | None = None,
    seed: int = 0,
    device: str | None = None,
    offload: bool = False,
    quiet: bool = False,
    processes: tuple[int, int] = (0, 1),
) -> Found | None:
    """Everything of `unstill diagnose` but the words on the terminal; `None` in a process that only helps."""
    from unstill.cli import output
    from unstill.cli.options import describe_method, parse_method, parse_numbers, wanted_size
    from unstill.cli.progress import Report
    from unstill.data.clips import video_files
    from unstill.errors import UnstillError
    from unstill.models import registry

    entry = registry.find(model)
    wanted = wanted_size(size, model)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UnstillError(f"--out {out}: the report is a web page; name it .html.")
    videos = None if clips is None else len(video_files(clips))
    defaults = registry.defaults_of(model)
    methods = tuple(parse_method(text, defaults) for text in method or ())
    asked_levels = None if levels is None else parse_numbers(levels, "--levels")
    output.check_file(out)
    output.hush()
    cls = registry.pipeline_class(model)
    if cls is not None:
        _check_prompt(cls, prompt)

    from unstill.lab.diagnosis_report import command, page, verdict
    from unstill.lab.diagnosis_run import DiagnosisRun
    from unstill.lab.fingerprint import fingerprint
    from unstill.lab.probe import usual_levels
    from unstill.lab.response import takes_motion
    from unstill.lab.subjects import Folder, Subjects, World, motion_argument, picture_of
    from unstill.models.calling import arguments, native_frames, native_size, parameters

    pipe = registry.load(model, device=device, offload=offload)
    pipe.set_progress_bar_config(disable=True)
    shape = wanted or (entry.size if entry else native_size(pipe))
    length = frames or (entry.frames if entry else native_frames(pipe))
    rate = fps or (entry.fps if entry else None)
    others = 128 if clips is None and max(shape) <= 64 else 0  # a large autoencoder would take hours for them
    takes_image = "image" in parameters(type(pipe))

    def call(picture: Any, motion: float | None, steps: int | None = None) -> dict[str, Any]:
        image = picture if takes_image else None
        return arguments(type(pipe), image=image, prompt=prompt, motion=motion, frames=length, steps=steps, size=shape)

    def subjects(n: int, others: int = 0) -> Subjects:
        if clips is None:
            return World(count=n, frames=length, size=shape, seed=seed, others=others)
        return Folder(folder=clips, count=n, frames=length, fps=rate, size=shape, seed=seed)

    answering = response if takes_motion(pipe) and takes_image else 0
    described = [describe_method(one) for one in methods]
    versions = output.provenance()["versions"]
    run = DiagnosisRun(
        work=out.with_suffix(".cells"),
        decides={"weights": fingerprint(model), "methods": described, "prompt": prompt, "versions": versions},
        pipe=pipe,
        subjects=subjects(count, others),
        call=lambda subject, picture: call(picture, motion_argument(pipe, subject)),
        levels=asked_levels or usual_levels(pipe),
        name=model,
        methods=methods,
        share=share,
        seed=seed,
        fps=rate or 8,
        answers=subjects(answering) if answering else None,
        ask=lambda subject, level: call(picture_of(subject), level, entry.steps if entry else None),
    )
    try:
        with Report(quiet=quiet or processes[0] > 0) as report:
            made = run.run(*processes, progress=functools.partial(report, "clips and videos"))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped; the same command goes on from here.") from None
    if made is None:
        return None
    found, asked = made
    typed = command(found, "statistics" in defaults)
    result: dict[str, Any] = {
        **output.provenance(),
        **found.as_dict(),
        "verdict": verdict(found)[0],
        "advice": verdict(found)[1],
        "use": typed,
        "response": asked and asked.as_dict(),
        "limits": limits(found.clips, count, videos),
        "methods": described,
        "source": "the synthetic world" if clips is None else str(clips),
        "frames": length,
        "size": {"height": shape[0], "width": shape[1]},
        "seed": seed,
    }
    facts = {
        "command": result["command"],
        "clips": f"{found.clips} of {result['source']}, {length} frames of {shape[1]}x{shape[0]}",
        **({"limits": " ".join(result["limits"])} if result["limits"] else {}),
        "methods": ", ".join(f"{one['name']} {one['parameters']}" for one in described) or "none",
        "versions": ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    }
    page(found, asked, typed, facts).save(out)
    output.write_json(out.with_suffix(".json"), result)
    return Found(found, asked, result)


def limits(used: int, wanted: int, videos: int | None) -> list[str]:
    """What narrows the result: clips that could not be had, too few for an interval, several of one video."""
    said = []
    if used < wanted:
        missing = f"{wanted - used} of {wanted} clips"
        said.append(f"{missing} could not be had, for the video is too short or cannot be read; they are left out.")
    if used == 1:
        said.append("Of a single clip there are no intervals; give more.")
    elif videos is not None and videos < used:
        said.append(
            f"{used} clips are of {videos} video{'' if videos == 1 else 's'}: clips of one video are alike, so that "
            "intervals are too narrow for other videos."
        )
    return said


def _check_prompt(cls: type, prompt: str | None) -> None:
    from PIL import Image

    from unstill.models.calling import arguments, parameters

    image = Image.new("RGB", (8, 8)) if "image" in parameters(cls) else None
    arguments(cls, image=image, prompt=prompt)
