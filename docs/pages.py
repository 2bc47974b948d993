"""
Pages of the site that are made of the code: commands, models, reference, and what was measured of a method.

Pure functions that return Markdown, so that nothing is written down twice; `docs/hooks.py` puts them into the site.
"""

import inspect
import json
import re
import typing
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import links
import typer

import unstill
from unstill.cli import app
from unstill.families.model_card import Model
from unstill.families.registry import MODELS
from unstill.hooks import compatibility
from unstill.methods.registry import changes_of, method_classes, summary_of


DOCS = Path(__file__).parent
ROOT = DOCS.parent
REFERENCE = {  # page: (title, what it is about, modules or packages)
    "animate": (
        "animate",
        "A picture or a prompt becomes a video.",
        (
            "unstill.animation",
            "unstill.animation_settings",
            "unstill.animation_batch",
            "unstill.animation_result",
            "unstill.animation_request",
        ),
    ),
    "apply": (
        "apply, methods",
        "Methods, and how they get into a pipeline.",
        ("unstill.hooks", "unstill.methods"),
    ),
    "process": (
        "process, statistics",
        "Noise levels, conversions between prediction types, statistics of latents.",
        (
            "unstill.forward_process",
            "unstill.noise_schedule",
            "unstill.latent_statistics",
            "unstill.statistics_hub",
            "unstill.errors",
        ),
    ),
    "anchor": ("i4vgen", "A video from a text by way of a still picture.", ("unstill.text_to_video",)),
    "models": (
        "models, families",
        "Loading, this package's own pipelines, and what is known of each family of models.",
        ("unstill.models", "unstill.families"),
    ),
    "data": ("data", "Pictures and videos in and out, clips, the synthetic world.", ("unstill.data",)),
    "metrics": ("metrics", "Motion, fidelity, distribution.", ("unstill.metrics",)),
    "lab": ("lab", "Diagnosis and comparison.", ("unstill.lab",)),
    "training": ("training", "Recipes, losses, the trainer.", ("unstill.training",)),
}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def generated() -> dict[str, str]:
    """Every page that is made here: path below docs/ -> Markdown."""
    table = compatibility.refusals()
    made = {"commands/index.md": commands(), "models/index.md": models(), "reference/index.md": reference_index()}
    made |= {f"commands/{name}.md": command(name, verb) for name, verb in verbs().items()}
    made |= {f"models/{one.name}.md": model(one, table[one.pipeline]) for one in MODELS}
    made |= {f"reference/{page}.md": reference(page) for page in REFERENCE}
    outside = {new: old for old, new in links.MOVED.items() if new != "index.md"}
    return made | {new: links.moved_in((ROOT / old).read_text("utf-8"), old) for new, old in outside.items()}


def navigation(nav: list[Any]) -> list[Any]:
    """
    The navigation of mkdocs.yml with generated pages behind the page that opens their section, and `folder/*` written
    out: the pages in a folder that are not named elsewhere, such as reports that a command writes there.
    """
    sections: dict[str, list[Any]] = {
        "commands/index.md": [{name: f"commands/{name}.md"} for name in verbs()],
        "models/index.md": [{one.name: f"models/{one.name}.md"} for one in MODELS],
        "reference/index.md": [{title: f"reference/{page}.md"} for page, (title, *_) in REFERENCE.items()],
    }
    named = set(shown(nav))

    def complete(entries: list[Any]) -> list[Any]:
        found: list[Any] = []
        for entry in entries:
            if isinstance(entry, dict):
                ((name, value),) = entry.items()
                found.append({name: complete(value) if isinstance(value, list) else value})
            elif entry.endswith("*"):
                there = (path.relative_to(DOCS).as_posix() for path in DOCS.glob(f"{entry}.md"))
                found += sorted(path for path in there if path not in named and not path.endswith(".words.md"))
            else:
                found += [entry, *sections.get(entry, ())]
        return found

    return complete(nav)


def shown(nav: list[Any]) -> list[str]:
    """The pages of a navigation, in order."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += shown(value) if isinstance(value, list) else [value]
    return found


# Commands


def verbs() -> dict[str, Any]:
    """Every verb of the command line, as it was registered."""
    return {verb.name or verb.callback.__name__: verb for verb in app.registered_commands if verb.callback}


def command(name: str, verb: Any) -> str:
    """The page of one verb: what `unstill NAME --help` says."""
    lines = [f"# unstill {name}", ""]
    lines += [" ".join(paragraph.split()) + "\n" for paragraph in _help(verb).split("\n\n")]
    lines += ["```bash", (verb.epilog or f"unstill {name}").removeprefix("Example: "), "```", ""]
    arguments, options = [], []
    hints = typing.get_type_hints(verb.callback, include_extras=True)
    for key, parameter in inspect.signature(verb.callback).parameters.items():
        kind, info = typing.get_args(hints[key])[:2]
        default = parameter.default
        words = " ".join((info.help or "").split())
        if isinstance(info, typer.models.ArgumentInfo):
            needed = "yes" if default is inspect.Parameter.empty else "no"
            arguments.append([f"`{(info.metavar or key).upper()}`", needed, words])
        elif not info.hidden:
            if not any(default is nothing for nothing in (inspect.Parameter.empty, None, False)):
                words += f" Default: {'on' if default is True else f'`{default}`'}."
            # Beside an annotation typer takes the first name for the default.
            flags = [name for name in (info.default, *(info.param_decls or ())) if str(name).startswith("-")]
            if not flags:
                dashed = key.replace("_", "-")
                flags = [f"--{dashed}", f"--no-{dashed}"] if kind is bool else [f"--{dashed}"]
            options.append([" ".join(f"`{flag}`" for flag in flags), _kind(kind, info), words])
    if arguments:
        lines += ["## Arguments", "", *_table(("argument", "needed", ""), arguments), ""]
    lines += ["## Options", "", *_table(("option", "takes", ""), options), ""]
    lines.append("Exit code 0: done; 2: a mistake, said in one sentence; 130: stopped by Ctrl-C.")
    return "\n".join(lines) + "\n"


def _help(verb: Any) -> str:
    return inspect.cleandoc(verb.help or verb.callback.__doc__ or "")


def _kind(kind: Any, info: Any) -> str:
    """The type of an option, as a person calls it."""
    kinds = [one for one in typing.get_args(kind) or (kind,) if one is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{one}`" for one in kinds)
    repeatable = [one for one in (kind, *kinds) if typing.get_origin(one) is list]
    inner = typing.get_args(repeatable[0])[0] if repeatable else kinds[0]
    if inner is bool:
        return ""
    if typing.get_origin(inner) is typing.Literal:
        return ", ".join(f"`{one}`" for one in typing.get_args(inner))
    said = {int: "whole number", float: "number", str: "text", Path: "path"}.get(inner, getattr(inner, "__name__", ""))
    if info.min is not None:
        said += f", {info.min} to {info.max}" if info.max is not None else f" from {info.min}"
    return said + (", repeatable" if repeatable else "")


def commands() -> str:
    """The overview of the verbs."""
    rows = [[f"[unstill {name}]({name}.md)", _first(_help(verb))] for name, verb in verbs().items()]
    lines = ["# Commands", "", "`unstill --help` lists them, `unstill VERB --help` explains one.", ""]
    return "\n".join([*lines, *_table(("verb", "what it does"), rows)]) + "\n"


def _first(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


# Models


def model(one: Model, refused: dict[str, str]) -> str:
    """The page of one model of the catalogue; `refused`: method to reason, "" where it works."""
    level = f"{one.start[0]}={one.start[1]:g}"
    embedded = one.weights is None
    lines = [f"# {one.name}", ""]
    lines += _table(
        ("", ""),
        [
            ["takes", one.input],
            [
                "makes",
                f"{one.frames} frames of {one.size[1]} x {one.size[0]}, {one.fps} per second, in {one.steps} steps",
            ],
            ["pipeline", f"`{one.pipeline}`"],
            ["weights", "in the package" if embedded else f"`{one.weights}`" + (f", {one.file}" if one.file else "")],
            ["licence of the weights", one.licence],
            ["size", f"{one.parameters} parameters"],
            ["memory", one.needs],
            ["first thing to try when it stands still", f"[`EarlyStart({level})`](../methods/early_start.md)"],
        ],
    )
    picture = "photo.jpg " if "image" in one.input else ""
    words = '--prompt "a boat sails to the left" ' if "prompt" in one.input else ""
    call = ", ".join(
        part
        for part in (
            "image" if "image" in one.input else "",
            ('prompt="a boat sails to the left"' if "prompt" in one.input else ""),
            "generator=generator",
        )
        if part
    )
    typed = f"unstill animate {picture}{words}--model {one.name} --method early_start:{level}"
    lines += ["", "```bash", wrapped(typed), "```"]
    lines += [
        "",
        "```py",
        f'pipe = unstill.load("{one.name}")',
        f"with unstill.apply(pipe, unstill.EarlyStart({level})):",
    ]
    lines += [f"    video = pipe({call}).frames[0]", "```", ""]
    works = [f"[{name}](../methods/{_page(name)}.md)" for name, reason in refused.items() if not reason]
    lines += ["## Methods", "", f"These work: {', '.join(works)}. Not these:", ""]
    lines += [f"- {name}: {reason.removeprefix(f'{name} ')}" for name, reason in refused.items() if reason]
    lines += ["", "## How far this is checked", ""]
    if embedded:
        lines.append("Trained, run and measured here: [pico](../pico.md).")
    else:
        lines.append(
            "**The released weights were not run here.** The pipeline class was, with tiny random weights, with every "
            "method above ([pipelines](../pipelines.md)); the level is that of the papers. "
            "`unstill diagnose --model " + one.name + "` says where this model copies its image."
        )
    return "\n".join(lines) + "\n"


def wrapped(command: str, width: int = 88) -> str:
    """A command that is longer than a line of the site, broken before an option."""
    cut = command.rfind(" --", 0, width)
    if len(command) <= width or cut < 0:
        return command
    return f"{command[:cut]} \\\n   {wrapped(command[cut:], width - 3)}"


def _clip(one: Model) -> str:
    return f"{one.frames} frames of {one.size[1]} x {one.size[0]}"


def _page(name: str) -> str:
    """`NoiseRectification` to `noise_rectification`."""
    from unstill.cli.options import method_classes

    return next(page for page, cls in method_classes().items() if cls.__name__ == name)


def models() -> str:
    """The overview of the catalogue."""
    rows = [[f"[{m.name}]({m.name}.md)", m.input, _clip(m), m.needs, m.licence] for m in MODELS]
    lines = [
        "# Models",
        "",
        "These go by a name. Any diffusers folder or hub id whose pipeline class [has an adapter](../pipelines.md)",
        "works too. Only pico's weights were run here.",
        "",
    ]
    return (
        "\n".join([*lines, *_table(("name", "takes", "frames, size", "memory", "licence of the weights"), rows)])
        + "\n"
    )


# Markers in written pages


def filled(markdown: str) -> str:
    """A written page with its markers replaced by what the code says."""
    markdown = re.sub(r"<!-- measured: (\w+) -->", lambda found: measured(found[1]), markdown)
    for marker, make in {
        "methods": methods,
        "how the image enters": compatibility.image_inputs,
        "what works where": compatibility.support_tables,
        "first five minutes": first_five_minutes,
    }.items():
        if (comment := f"<!-- {marker} -->") in markdown:
            markdown = markdown.replace(comment, make() + "\n")
    return markdown


def methods() -> str:
    """The registry of methods as a table, for docs/methods/index.md."""
    rows = [
        [cls.use_when, f"[{cls.__name__}]({name}.md)", changes_of(cls), cls.cost, summary_of(cls)]
        for name, cls in method_classes().items()
    ]
    return "\n".join(_table(("your video", "try", "it changes", "costs", "what it does"), rows))


# What was measured


def measured(cls: str) -> str:
    """The rows of docs/methods/measured.json with the method class `cls`, and the plain one."""
    data = json.loads((DOCS / "methods" / "measured.json").read_text("utf-8"))
    rows = [row for row in data["rows"] if row["methods"] == "plain" or re.search(rf"\b{cls}\b", row["methods"])]
    if len(rows) < 2:
        return _in_the_lab(cls)

    def cell(value: dict[str, float], form: str) -> str:
        return f"{value['mean']:{form}} ± {value['half_width']:{form.lstrip('+')}}"

    shown = [
        [
            f"`{row['methods']}`" if row["methods"] != "plain" else "plain",
            cell(row["motion"], ".2f"),
            cell(row["more_motion"], "+.2f"),
            cell(row["travel"], ".2f"),
            cell(row["outline"], ".2f"),
            cell(row["colour"], ".2f"),
            cell(row["detail"], ".2f"),
            f"{row['seconds']['mean']:.1f}",
        ]
        for row in rows
    ]
    head = ("embedded model", "motion", "more than plain", "travel", "outline", "colour (proxy)", "detail (proxy)")
    head += ("CPU seconds",)
    foot = f"{data['images']} pictures, no motion level asked for; [all, and the command](measured.md)."
    return "\n".join([*_table(head, shown), "", foot])


def _in_the_lab(cls: str) -> str:
    """The rows of the first recipe of the lab that tried the method class `cls`, plain first."""
    setting = re.compile(rf"`(plain|{_page(cls).replace('_', '-')}(:[^+`]*)?)`")
    for path in sorted((DOCS / "lab").glob("*.json")):
        recipe = json.loads(path.read_text("utf-8"))
        rows = [row for row in recipe["rows"] if setting.fullmatch(row[0])]
        if any(row[0] != "`plain`" for row in rows):
            foot = f"{recipe['made_of']}; [all, and the command](../lab/{recipe['recipe']}.md)."
            return "\n".join([*_table(recipe["columns"], rows), "", foot])
    return "Not in the [table of the embedded model](measured.md)."


def first_five_minutes() -> str:
    """What benchmarks/first_five_minutes.py found."""
    path = DOCS / "first_five_minutes.json"
    if not path.is_file():
        return "Not measured yet."
    found = json.loads(path.read_text("utf-8"))
    rows = [
        [
            row["wish"],
            f"`{row['command']}`",
            f"{row['seconds']:.1f}",
            f"{row['cpu']:.1f}",
            row["said"] if row["code"] else "",
        ]
        for row in found["rows"]
    ]
    head = ("you want, or make a slip", "command", "seconds", "of CPU", "what a mistake is told")
    note = f"{found['cores']} cores, load {found['load']:.1f}: where it is above the cores, read the seconds of CPU."
    return "\n".join([*_table(head, rows), "", note])


# Reference


def modules(name: str) -> list[str]:
    """A module, or all public modules of a package; read from the folders, so that no extra has to be installed."""
    path = ROOT / "src" / Path(*name.split("."))
    if not path.is_dir():
        return [name]
    inside = [
        p.stem if p.suffix else p.name for p in path.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    ]
    return [name, *(found for child in sorted(inside) if child[0] != "_" for found in modules(f"{name}.{child}"))]


@cache
def homes() -> dict[str, str]:
    """Module -> the page of the reference that has it."""
    return {
        module: f"reference/{page}.md"
        for page, (_, _, names) in REFERENCE.items()
        for name in names
        for module in modules(name)
    }


def reference(page: str) -> str:
    """A page of the reference: mkdocstrings reads the docstrings of its modules."""
    title, about, names = REFERENCE[page]
    lines = [f"# {title}", "", about, ""]
    for name in names:
        for module in modules(name):
            lines += [f"::: {module}", "    options:", "      show_submodules: false", ""]
    return "\n".join(lines)


def reference_index() -> str:
    """The public names, and where each is explained."""
    rows = []
    for name in unstill.__all__:
        thing = getattr(unstill, name)
        home = getattr(thing, "__module__", None)
        if home in homes():
            link = f"[`unstill.{name}`]({Path(homes()[home]).name}#{home}.{thing.__qualname__})"
            rows.append([link, _first(thing.__doc__ or "")])
    lines = ["# Reference", "", "The public names of `unstill`; the modules are on the pages beside this one.", ""]
    return "\n".join([*lines, *_table(("name", ""), rows)]) + "\n"


def keep_words_whole(html: str, longest: int = 34) -> str:
    """
    A page whose inline code does not break after the hyphens of words such as `--equal-calls`.

    Args:
        html: the page.
        longest: number of letters in a line of a phone; longer words may break.

    Returns:
        The page with these words in elements of the class `word`, which the stylesheet keeps on one line.
    """
    inline = r"(?<!<pre>)(?<!<span></span>)(<code>)([^<]*)(</code>)"
    word = rf"(?<!\S)(?=\S*-)\S{{1,{longest}}}(?!\S)"
    whole = lambda code: code[1] + re.sub(word, r'<span class="word">\g<0></span>', code[2]) + code[3]  # noqa: E731
    return re.sub(inline, whole, html)
