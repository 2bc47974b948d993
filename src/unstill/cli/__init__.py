"""The command line: parses, calls the library and prints. Importing it imports only typer and rich.

Exit codes: 0 success; 2 an error of the input or a limit of the machine, one sentence on standard error; 130 Ctrl-C;
143 SIGTERM, with the same cleaning up.
"""

import errno
import re
import signal
import sys
import warnings
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from unstill.cli.animate import animate
from unstill.cli.app import app as page
from unstill.cli.compare import compare
from unstill.cli.convert import convert
from unstill.cli.diagnose import diagnose
from unstill.cli.evaluate import evaluate
from unstill.cli.help import Command
from unstill.cli.list_commands import methods, models
from unstill.cli.statistics import statistics
from unstill.cli.train import train
from unstill.cli.verify import verify
from unstill.errors import Terminated, UnstillError, lacks_memory


# The base of typer's errors for arguments that it cannot parse; of typer or of click, depending on the version.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

DISK_FULL = "The disk is full: free some space, or write somewhere else with --out."


class Commands(TyperGroup):
    """Prints errors of the input or the machine as one sentence; all others are bugs and keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UnstillError as error:
            sentence, code = str(error), 2
        except OSError as error:
            if error.errno in (None, errno.EPIPE):
                raise
            sentence, code = _os_sentence(error), 2
        except UsageError as error:
            sentence, code = _usage_sentence(error), 2
            if not sentence:
                raise
        except KeyboardInterrupt as stop:
            sentence, code = str(stop) or "Stopped; nothing half-written was left behind.", _stopped_code(stop)
        except Exception as error:
            sentence, code = _limit_sentence(error), 2
            if not sentence:
                raise
        typer.echo(sentence.encode("utf-8", "backslashreplace").decode(), err=True)  # file names may not be UTF-8
        raise typer.Exit(code)


def _os_sentence(error: OSError) -> str:
    from unstill.data.files import is_disk_full

    if is_disk_full(error):
        return DISK_FULL
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}."


def _usage_sentence(error: Any) -> str:
    """The error as one sentence; empty for `unstill` without arguments, which prints the help."""
    sentence = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    if match := re.match(r"Invalid value for '(.*?)': Input should be ([^,]*)", sentence.removesuffix(".")):
        sentence = f"{match[1]} should be {match[2]}"
    sentence = sentence.replace(". Did you mean", "; did you mean").replace("Value error, ", "").removesuffix(".")
    return sentence if sentence.endswith("?") or not error.ctx else f"{sentence}; see {error.ctx.command_path} --help."


def _limit_sentence(error: Exception) -> str:
    """The message for a lack of memory or disk space; empty for any other error."""
    if lacks_memory(error):
        return "Not enough memory: take a smaller --size, fewer --frames, or --offload."
    from unstill.data.files import is_disk_full

    return DISK_FULL if is_disk_full(error) else ""


app = typer.Typer(
    cls=Commands,
    name="unstill",
    help="Make image-to-video diffusion move, and stay true to the image.",
    epilog="Start here: unstill animate",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command, example in (
    (animate, "unstill animate photo.jpg --motion 0.8 --compare --out walk.mp4"),
    (page, "unstill app --open"),
    (statistics, "unstill statistics clips/ --model svd --out svd.safetensors"),
    (train, "unstill train svd-time-noise-lora --videos clips --out runs/mine"),
    (evaluate, "unstill evaluate generated/ --reference real/ --frames 16 --fps 3"),
    (compare, "unstill compare --method 'early-start:sigma=50|20' --method analytic-init --seeds 4"),
    (verify, "unstill verify svd --quick"),
    (diagnose, "unstill diagnose --model svd --clips videos/ --out svd.html"),
    (convert, "unstill convert model.ckpt dynamicrafter-512"),
    (models, "unstill models --json"),
    (methods, "unstill methods"),
):
    # Typer would keep the line breaks of the docstring.
    description = "\n\n".join(" ".join(part.split()) for part in (command.__doc__ or "").split("\n\n"))
    app.command(cls=Command, help=description.strip(), epilog=f"Example: {example}")(command)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if show:
        from importlib.metadata import version as of

        typer.echo(of("unstill"))
        raise typer.Exit


def _terminate(number: int, frame: FrameType | None) -> None:
    """Handles SIGTERM like Ctrl-C; later ones are ignored, so that they do not interrupt the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _stopped_code(stop: KeyboardInterrupt) -> int:
    return 143 if isinstance(stop, Terminated) else 130


def main() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    if not sys.warnoptions:  # set by python -W
        warnings.simplefilter("ignore")
    try:
        app()
    except KeyboardInterrupt as stop:
        typer.echo("Stopped.", err=True)
        sys.exit(_stopped_code(stop))
