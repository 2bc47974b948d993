"""The `--help` of a command: usage, example, description, then the options in groups, 80 characters wide."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class Command(TyperCommand):
    """
    A command whose `--help` is printed by this module.

    The options of a group have the same `rich_help_panel`. The epilog holds the example. Types and ranges are not
    listed: the help of an option says what it takes, and the error for a value out of range names the range.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from rich.console import Console
        from rich.padding import Padding
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        for text, style in ((self.get_usage(ctx), "bold"), (self.epilog, "cyan"), (self.help, "")):
            console.print(Padding(Text(text or "", style), (1, 1, 0, 1)))
        groups: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            default_title = "Arguments" if parameter.param_type_name == "argument" else "Options"
            groups.setdefault(getattr(parameter, "rich_help_panel", None) or default_title, []).append(parameter)
        console.print()
        for title, parameters in groups.items():
            table = Table.grid(padding=(0, 2, 0, 0), expand=True)
            table.add_column(no_wrap=True, style="bold cyan")
            table.add_column(ratio=1)
            for parameter in parameters:
                table.add_row(_name(parameter), Text(_about(parameter, ctx)))
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).upper()
    return ", ".join([*sorted(parameter.opts, key=len), *parameter.secondary_opts])


def _about(parameter: Any, ctx: Any) -> str:
    default = None if parameter.required else parameter.get_default(ctx, call=False)
    shown = default is not None and not isinstance(default, bool)
    return (parameter.help or "") + (f" [default: {default}]" if shown else "")
