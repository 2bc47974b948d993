"""`unstill diagnose`: whether a model copies its image instead of moving it, and which start level to set."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from unstill.cli.shared_options import device_option, offload_option, prompt_option, size_option


_model = functools.partial(typer.Option, rich_help_panel="Model")
_measurement = functools.partial(typer.Option, rich_help_panel="Measurement")
_output = functools.partial(typer.Option, rich_help_panel="Output")


def diagnose(
    model: Annotated[str, _model(help="A name from 'unstill models', a diffusers folder, or a hub id.")] = "pico",
    method: Annotated[
        list[str] | None, _model(help="Measure the model with these methods applied, e.g. noise-rectification.")
    ] = None,
    prompt: Annotated[str | None, prompt_option(rich_help_panel="Model")] = None,
    device: Annotated[str | None, device_option(rich_help_panel="Model")] = None,
    offload: Annotated[bool, offload_option(rich_help_panel="Model")] = False,
    clips: Annotated[
        Path | None,
        _measurement(help="A folder of real videos. Default: rendered clips, whose true motion is known."),
    ] = None,
    count: Annotated[int, _measurement(min=2, help="Number of clips; more give narrower intervals.")] = 8,
    levels: Annotated[
        str | None, _measurement(help="Noise levels, falling, with commas: 200,50,10 or 1.0,0.96,0.9.")
    ] = None,
    share: Annotated[
        float, _measurement(min=0.05, max=0.95, help="Share of the motion that a recommended start has to keep.")
    ] = 0.5,
    response: Annotated[int, _measurement(min=0, help="Also sample this many videos per motion level; 0: none.")] = 4,
    gap: Annotated[
        int,
        _measurement(
            min=0,
            help="Also make so many pairs of videos, of a text alone and with its first frame; 0 leaves that out.",
        ),
    ] = 0,
    text_model: Annotated[
        str | None, _measurement(help="Makes the videos of a text alone: the text-to-video model of the same kind.")
    ] = None,
    frames: Annotated[int | None, _measurement(min=2, help="Frames per clip. Default: the model's.")] = None,
    fps: Annotated[float | None, _measurement(min=0.1, help="Frames per second to read real videos at.")] = None,
    size: Annotated[str | None, size_option(rich_help_panel="Measurement")] = None,
    seed: Annotated[int, _measurement(min=0, help="Seed of the clips and the noise.")] = 0,
    out: Annotated[Path, _output(help="The report to write; a JSON file of the same name lies beside it.")] = Path(
        "diagnosis.html"
    ),
    as_json: Annotated[bool, _output("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Find out whether a model copies its image instead of moving it, and where to start sampling.

    Adds noise to clips, lets the model predict them in one step, and compares the motion: with the image, with a
    weakened one, without one; on rendered clips also with the best possible prediction. The same command resumes a
    stopped run; accelerate launch -m unstill diagnose ... divides the clips among processes.
    """
    from unstill.cli import output
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.options import parse_method, parse_numbers, wanted_size
    from unstill.cli.progress import ProgressBars
    from unstill.data.clips import video_files
    from unstill.data.output_paths import check_file
    from unstill.errors import UnstillError
    from unstill.models.registry import check_frames, defaults_of

    # All arguments are checked before anything is written or loaded.
    height_width = wanted_size(size, model)
    check_frames(model, frames)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UnstillError(f"The report is a web page, so --out has to end in .html, unlike {out}.")
    if clips is not None:
        video_files(clips)
    defaults = defaults_of(model)
    methods = tuple(parse_method(text, defaults) for text in method or ())
    noise_levels = None if levels is None else parse_numbers(levels, "--levels")
    check_file(out)
    output.silence_libraries()
    rank, processes = rank_and_count()

    import unstill

    with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as report:
        result = unstill.diagnose(
            model,
            clips=clips,
            count=count,
            levels=noise_levels,
            methods=methods,
            share=share,
            prompt=prompt,
            response=response,
            gap=gap,
            text_model=text_model,
            frames=frames,
            fps=fps,
            size=height_width,
            seed=seed,
            out=out,
            device=device,
            offload=offload,
            command=output.provenance()["command"],
            rank=rank,
            processes=processes,
            progress=functools.partial(report, "clips and videos"),
        )
    if result is None:
        return
    if as_json:
        typer.echo(out.with_suffix(".json").read_text(encoding="utf-8"), nl=False)
        return
    from rich.console import Console

    from unstill.lab.diagnosis_image import attention_sentence, gap_sentence
    from unstill.lab.diagnosis_report import diagnosis_table

    console = Console(highlight=False)
    console.print(diagnosis_table(result.diagnosis))
    for sentence in result.verdict:
        console.print(sentence)
    if result.attention is not None:
        console.print(attention_sentence(result.attention, result.diagnosis))
    if result.gap is not None:
        console.print(gap_sentence(result.gap))
    for sentence in result.limits:
        typer.echo(sentence, err=True)
    if result.use:
        typer.echo(f"Try it: {result.use}")
    typer.echo(f"Wrote {out} and {out.with_suffix('.json')}.")
