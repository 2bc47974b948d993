"""Options that several commands have, each with one text; `rich_help_panel` is the group in a command's help."""

from __future__ import annotations

import functools

import typer


prompt_option = functools.partial(typer.Option, help="What happens, for models that read text.")
size_option = functools.partial(typer.Option, help="WIDTHxHEIGHT, for models that make more than one size.")
device_option = functools.partial(typer.Option, help="cpu, cuda, cuda:1, mps ... By default the best there is.")
offload_option = functools.partial(typer.Option, "--offload", help="Less GPU memory, more time.")
