"""`unstill animate`: a still picture moves, plainly and improved, with scores."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer


if TYPE_CHECKING:
    from unstill.animation_result import Animation
    from unstill.text_to_video import I4VGen


_picture = functools.partial(typer.Option, rich_help_panel="Picture")
_method = functools.partial(typer.Option, rich_help_panel="Method")
_model = functools.partial(typer.Option, rich_help_panel="Model")
_output = functools.partial(typer.Option, rich_help_panel="Output")
_from_words = functools.partial(typer.Option, rich_help_panel="From words, without a picture")


def animate(
    image: Annotated[
        Path | None,
        typer.Argument(rich_help_panel="Picture", help="Default: a picture that comes with the package."),
    ] = None,
    prompt: Annotated[str | None, _picture(help="What happens, for models that read text.")] = None,
    crop: Annotated[
        str,
        _picture(
            help="What the model sees of a picture of another shape: centre, fit (all of it, on a blurred ground), "
            "X,Y (the middle of the part, in percent from the left and the top), or auto."
        ),
    ] = "auto",
    method: Annotated[
        list[str] | None,
        _method(help="name, name:preset or name:key=value,key=value. Repeatable. See 'unstill methods'."),
    ] = None,
    motion: Annotated[float | None, _method(help="How much should move: 0 (still) to 1 (lively).")] = None,
    guidance: Annotated[
        float | None,
        _method(min=0, help="Weight of prompt and picture. Default: the model's."),
    ] = None,
    steps: Annotated[int | None, _method(min=1, help="Sampling steps: more is slower and cleaner.")] = None,
    seed: Annotated[int, _method(min=0, help="The same seed makes the same video.")] = 0,
    plain: Annotated[bool, _method(help="Also make the plain video to compare with; takes as long again.")] = True,
    model: Annotated[str, _model(help="A name from 'unstill models', a diffusers folder, or a hub id.")] = "pico",
    dtype: Annotated[
        str | None, _model(help="float32, float16 or bfloat16. Default: the model's; on the CPU float32.")
    ] = None,
    quantise: Annotated[
        Literal["fp8", "int8"] | None,
        _model(help="Weights in 8 bits: fp8, or int8 (needs torchao). Half the memory of 16 bits."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        _model(help="FILE or FILE:WEIGHT. Repeatable. FILE:WEIGHT:transformer_2 for the low noise of Wan 2.2 A14B."),
    ] = None,
    device: Annotated[str | None, _model(help="cpu, cuda, cuda:1, mps ... By default the best there is.")] = None,
    offload: Annotated[bool, _model("--offload", help="Less GPU memory, more time.")] = False,
    group_offload: Annotated[
        bool, _model("--group-offload", help="Least GPU memory, most time: a layer at a time.")
    ] = False,
    out: Annotated[Path, _output(help=".mp4, .gif, .webp, or a folder for PNG pictures.")] = Path("animated.mp4"),
    frames: Annotated[int | None, _output(min=2, help="Length of the video. Default: the model's.")] = None,
    size: Annotated[str | None, _output(help="WIDTHxHEIGHT, for models that make more than one size.")] = None,
    fps: Annotated[int | None, _output(min=1, max=120, help="Frames per second of the written video.")] = None,
    upscale: Annotated[
        int | None, _output(min=1, max=16, help="Enlarge the written video. Small models: 4, others: 1.")
    ] = None,
    compare: Annotated[bool, _output("--compare", help="Also write plain and improved side by side.")] = False,
    as_json: Annotated[bool, _output("--json", help="Print scores and settings as JSON.")] = False,
    candidates: Annotated[
        int | None, _from_words(min=1, help="How many pictures are made to choose from. Default: 16.")
    ] = None,
    reward: Annotated[
        str | None,
        _from_words(help="What scores them: proxy, world, pickscore, clip:FOLDER_OR_ID, image-reward:CHECKPOINT."),
    ] = None,
    pick: Annotated[int | None, _from_words(min=0, help="Number of the picture to take in place of the best.")] = None,
    early: Annotated[bool, _from_words("--early", help="Stop the sampling of the worse ones before its end.")] = False,
    text_to_image: Annotated[
        str | None,
        _from_words(help="A diffusers folder or hub id that makes the pictures in place of the video model."),
    ] = None,
) -> None:
    """
    Make a picture, or words, move.

    Makes two videos from the same seed, plainly as the model does it and improved by the methods; says how much
    more the second moves and how close it stays to the picture. A JSON file beside it holds all that is
    needed to make it again.

    With --prompt and no picture, several pictures are made of the words, and the best is set in motion; a folder
    beside the video keeps them all.
    """
    from unstill.animation_request import methods_for
    from unstill.cli import output
    from unstill.cli.options import parse_size
    from unstill.cli.progress import ProgressBars
    from unstill.data.images import open_picture
    from unstill.data.output_paths import check_video_name
    from unstill.models import registry

    # The usual mistakes are found before diffusers is imported, which takes seconds.
    check_video_name(out)
    methods_for(method, registry.defaults_of(model))
    registry.check_frames(model, frames)
    if image is not None:
        open_picture(image).close()
    shape = None if size is None else parse_size(size)
    bars = sys.stderr.isatty() and not as_json
    output.silence_libraries(bars)
    import unstill
    from unstill.models.loading_options import check_options, dtype_named
    from unstill.text_to_video.prompt_video import COUNT, CandidateOptions

    options = None
    if early or any(option is not None for option in (candidates, reward, pick, text_to_image)):
        options = CandidateOptions(
            count=COUNT if candidates is None else candidates,
            reward=reward,
            pick=pick,
            early=early,
            text_to_image=text_to_image,
        )
    held = check_options("group" if group_offload else offload, quantise)
    if not as_json and (needed := registry.memory_needed(model, dtype_named(dtype), device, held, quantise)):
        typer.echo(needed, err=True)
    with ProgressBars(quiet=not bars) as progress:
        animation = unstill.animate(
            image,
            prompt=prompt,
            model=model,
            methods=method or None,
            motion=motion,
            frames=frames,
            steps=steps,
            size=shape,
            fps=fps,
            guidance=guidance,
            crop=crop,
            seed=seed,
            plain=plain,
            candidates=options,
            out=out,
            compare=compare,
            upscale=upscale,
            device=device,
            offload=held,
            dtype=dtype,
            quantise=quantise,
            loras=lora or (),
            command=output.provenance()["command"],
            progress=progress,
        )
    if as_json:
        typer.echo(animation.files[-1].read_text(encoding="utf-8"), nl=False)
    else:
        _show(animation)


def _show(animation: Animation) -> None:
    from rich.console import Console

    from unstill.cli.scores import scores_table

    console = Console(highlight=False)
    if animation.picture_note:
        console.print(f"{animation.picture_note} Change it with --crop fit, centre or X,Y.", soft_wrap=True)
    console.print(scores_table(animation.scores))
    if animation.verdict:
        console.print(animation.verdict, soft_wrap=True)
    chosen, settings = animation.chosen, animation.settings
    names = "I4VGen" if chosen else ", ".join(method["name"] for method in settings["methods"])
    console.print(f"Improved by {names} (seed {settings['seed']}).", style="dim")
    *videos, record = map(str, animation.files)
    typer.echo(f"Wrote {', '.join(videos)} and {record}.")
    if chosen:
        typer.echo(_about_choice(chosen, settings["candidates"]["folder"]))


def _about_choice(chosen: I4VGen, folder: str) -> str:
    """One sentence on the candidate that was animated, and how to take another one."""
    assert chosen.choice is not None
    scores = [candidate.score for candidate in chosen.candidates]
    score = f"score {scores[chosen.choice]:.3g} by {chosen.reward}"
    if len(scores) == 1:
        return f"Made from the only candidate ({score}), which is {Path(folder) / 'anchor.png'}."
    return (
        f"Made from candidate {chosen.choice} of {len(scores)} ({score}); all are on "
        f"{Path(folder) / 'candidates.png'}, and --pick takes another one."
    )
