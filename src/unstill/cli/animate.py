"""
`unstill animate`: still pictures move, plainly and improved, with scores.

Most options are the fields of `unstill.animation_settings.AnimationSettings`, with their types, defaults and
descriptions; this module says in which group of the help they stand, and how those are typed that have another form in
Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unstill.animation_settings import DEFAULT_MODEL, NAME, AnimationSettings
from unstill.errors import UnstillError
from unstill.parameters import descriptions


if TYPE_CHECKING:
    from unstill.animation_batch import AnimatedImage
    from unstill.animation_result import Animation
    from unstill.cli.progress import ProgressBars
    from unstill.text_to_video import I4VGen


PICTURE, METHOD, MODEL, OUTPUT = "Picture", "Method", "Model", "Output"
WORDS = "From words, without a picture"
GROUPS = {
    PICTURE: ("prompt", "crop"),
    METHOD: ("methods", "motion", "guidance", "steps", "seed", "plain"),
    MODEL: ("model", "dtype", "quantise", "loras", "device"),
    OUTPUT: ("out", "frames", "size", "fps", "upscale", "compare"),
}
# Fields that are typed in another form: the option, its type, its help.
TYPED: dict[str, tuple[str, Any, str]] = {
    "crop": ("--crop", str, ""),
    "methods": (
        "--method",
        list[str] | None,
        "name, name:preset or name:key=value,key=value. Repeatable. See 'unstill methods'.",
    ),
    "dtype": ("--dtype", str | None, ""),
    "loras": (
        "--lora",
        list[str] | None,
        "FILE or FILE:WEIGHT. Repeatable. FILE:WEIGHT:transformer_2 for the low noise of Wan 2.2 A14B.",
    ),
    "size": ("--size", str | None, "WIDTHxHEIGHT, for models that make more than one size."),
    "out": (
        "--out",
        Path | None,
        f".mp4, .gif, .webp, or a folder for PNG pictures. Default: animated.mp4; for several images a folder, or a "
        f"name with {NAME} in it. Default: {NAME}.mp4.",
    ),
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Puts the options of `GROUPS` in the place of the command's `**settings`."""
    fields = {field.name: field for field in dataclasses.fields(AnimationSettings)}
    about = descriptions(AnimationSettings)
    own = inspect.signature(command, eval_str=True)
    options = []
    for group, names in GROUPS.items():
        for name in names:
            field = fields[name]
            flag, kind, words = TYPED.get(name, ("", field.type, ""))
            words = words or about[name][0].upper() + about[name][1:]
            flags = [flag] if flag else [f"--{name}"] if field.type is bool and not field.default else []
            least, most = field.metadata.get("least"), field.metadata.get("most")
            option = typer.Option(*flags, rich_help_panel=group, help=words, min=least, max=most)
            default = None if name in TYPED and not isinstance(field.default, str) else field.default
            options.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
                )
            )
    kept = [parameter for parameter in own.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    first, others = kept[0], [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept[1:]]

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    result: Any = wrapped
    result.__signature__ = own.replace(parameters=[first, *options, *others])
    result.__annotations__ = {parameter.name: parameter.annotation for parameter in [first, *options, *others]}
    return wrapped


@with_settings
def animate(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            rich_help_panel=PICTURE, metavar="IMAGE", help="Default: a picture that comes with the package."
        ),
    ] = None,
    offload: Annotated[
        bool, typer.Option("--offload", rich_help_panel=MODEL, help="Less GPU memory, more time.")
    ] = False,
    group_offload: Annotated[
        bool,
        typer.Option("--group-offload", rich_help_panel=MODEL, help="Least GPU memory, most time: a layer at a time."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print scores and settings as JSON.")
    ] = False,
    candidates: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=WORDS, help="How many pictures are made to choose from. Default: 16."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WORDS,
            help="What scores them: proxy, world, pickscore, clip:FOLDER_OR_ID, image-reward:CHECKPOINT.",
        ),
    ] = None,
    pick: Annotated[
        int | None,
        typer.Option(min=0, rich_help_panel=WORDS, help="Number of the picture to take in place of the best."),
    ] = None,
    early: Annotated[
        bool,
        typer.Option("--early", rich_help_panel=WORDS, help="Stop the sampling of the worse ones before its end."),
    ] = False,
    text_to_image: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=WORDS,
            help="A diffusers folder or hub id that makes the pictures in place of the video model.",
        ),
    ] = None,
    **settings: Any,
) -> None:
    """
    Make pictures, or words, move.

    Makes two videos from the same seed, plainly as the model does it and improved by the methods; says how much
    more the second moves and how close it stays to the picture. A JSON file beside it holds all that is
    needed to make it again.

    Several pictures are animated one after another, and each video is named after its picture. Stopped, the same
    command continues with those that are missing.

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

    images, out = images or [], settings["out"]
    several = len(images) > 1 or NAME in str(out)
    settings["methods"], settings["loras"] = settings["methods"] or None, settings["loras"] or ()
    if settings["size"] is not None:
        settings["size"] = parse_size(settings["size"])
    # The usual mistakes are found before diffusers is imported, which takes seconds.
    if not several:
        settings["out"] = out = Path("animated.mp4") if out is None else out
        check_video_name(out)
    model = settings["model"] or DEFAULT_MODEL
    methods_for(settings["methods"], registry.defaults_of(model))
    registry.check_frames(model, settings["frames"])
    if not several:
        for image in images:
            open_picture(image).close()
    bars = sys.stderr.isatty() and not as_json
    output.silence_libraries(bars)
    import unstill
    from unstill.models.loading_options import check_options, dtype_named
    from unstill.text_to_video.prompt_video import COUNT, CandidateOptions

    settings["candidates"] = None
    if early or any(option is not None for option in (candidates, reward, pick, text_to_image)):
        settings["candidates"] = CandidateOptions(
            count=COUNT if candidates is None else candidates,
            reward=reward,
            pick=pick,
            early=early,
            text_to_image=text_to_image,
        )
    held = check_options("group" if group_offload else offload, settings["quantise"])
    dtype = dtype_named(settings["dtype"])
    if not as_json:
        _say_memory(model, dtype, settings["device"], held, settings["quantise"])
    settings |= {"offload": held, "command": output.provenance()["command"]}
    with ProgressBars(quiet=not bars) as progress:
        if several:
            with output.resumable():
                made = unstill.animate_all(images, progress=functools.partial(_one_of_several, progress), **settings)
        else:
            animation = unstill.animate(images[0] if images else None, progress=progress, **settings)
    if several:
        _show_all(made, as_json)
    elif as_json:
        typer.echo(animation.files[-1].read_text(encoding="utf-8"), nl=False)
    else:
        _show(animation)


def _say_memory(*what: Any) -> None:
    """Prints what the weights need, before they are loaded; beside that, if the hub does not answer in a second."""
    from unstill.models import registry

    def say() -> None:
        with contextlib.suppress(UnstillError):  # loading says what is wrong
            if needed := registry.memory_needed(*what):
                typer.echo(needed, err=True)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    thread.join(timeout=1)


def _one_of_several(progress: ProgressBars, stage: str, done: int, total: int) -> None:
    """Shows all images on the same bars, with the name of the image beside them."""
    image, _, video = stage.rpartition(", ")
    progress(video, done, total, image)


def _show_all(results: Sequence[AnimatedImage], as_json: bool) -> None:
    """A paragraph for every image, or a list of all settings."""
    from unstill.data.ownership import as_json as document

    if as_json:
        typer.echo(document([result.settings for result in results]).decode(), nl=False)
        return
    for result in results:
        moves = f"It moves {result.settings['scores']['improved']['motion']:.2f} pixels per frame."
        kept = " Kept from an earlier run with these settings." if result.kept else ""
        typer.echo(f"{result.image} -> {result.files[0]}{kept}")
        for words in (result.settings["picture_note"], result.settings["verdict"] or moves):
            if words:
                typer.echo(f"  {words}")
    made = sum(not result.kept for result in results)
    typer.echo(f"{made} of {len(results)} animated" + ("." if made == len(results) else "; the others were there."))


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
