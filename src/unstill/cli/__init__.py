"""The command line: one tool, verbs. It parses, calls and prints; importing it costs typer and rich, nothing heavier.

Exit codes: 0 done; 2 the user's mistake or the machine's limit, one sentence on standard error; 130 stopped by Ctrl-C.
"""

import errno
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from unstill.cli.animate import animate
from unstill.cli.listing import methods, models
from unstill.errors import UnstillError


class Verbs(TyperGroup):
    """Turns what a person can act on into one sentence; everything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UnstillError as error:
            sentence, code = str(error), 2
        except OSError as error:
            if error.errno in (None, errno.EPIPE):
                raise
            sentence, code = _about(error), 2
        except KeyboardInterrupt:
            sentence, code = "Stopped before it was done; nothing half-written was left behind.", 130
        except RuntimeError as error:
            # torch.OutOfMemoryError is a RuntimeError of its own; on the CPU the allocator raises a plain one.
            if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
                raise
            sentence, code = "Not enough memory: take a smaller --size, fewer --frames, or --offload.", 2
        typer.echo(sentence, err=True)
        raise typer.Exit(code)


def _about(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "The disk is full: free some space, or write somewhere else with --out."
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}."


app = typer.Typer(
    cls=Verbs,
    name="unstill",
    help="Make image-to-video diffusion move, and stay true to the image.",
    epilog="Start here: unstill animate",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb, example in (
    (animate, "unstill animate photo.jpg --motion 0.8 --compare --out walk.mp4"),
    (models, "unstill models --json"),
    (methods, "unstill methods"),
):
    app.command(epilog=f"Example: {example}")(verb)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    if show:
        from importlib.metadata import version as of

        typer.echo(of("unstill"))
        raise typer.Exit


def main() -> None:
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        sys.exit(130)
