"""`unstill train`: recipes that make the models of this package."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str, typer.Argument(help="pico, or pico:key=value,key=value (see --settings for the keys and defaults).")
    ],
    out: Annotated[Path, typer.Option(help="The folder of this run; a run that was stopped goes on from it.")] = Path(
        "runs/pico"
    ),
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same weights.")] = 0,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: minutes, then up to 3 times as fast.")
    ] = False,
    settings: Annotated[bool, typer.Option("--settings", help="Print the recipe and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Train a model of this package.

    'pico' trains the embedded model from nothing, on a world that it renders itself: hours on a CPU, minutes on a GPU.
    Several processes or machines: torchrun --nproc-per-node 4 -m unstill train pico, or accelerate launch.
    """
    from unstill.cli import output
    from unstill.cli.options import parse_values
    from unstill.cli.processes import rank_and_count
    from unstill.cli.progress import Report
    from unstill.errors import UnstillError

    name, _, text = recipe.partition(":")
    if name != "pico":
        raise UnstillError(f"There is no recipe {name!r}; there is pico.")
    from unstill.training.pico import PicoRecipe
    from unstill.training.pico import train as train_pico

    values, _ = parse_values(PicoRecipe, name, text)
    chosen = PicoRecipe(**{"seed": seed, **values})
    if settings:
        typer.echo(json.dumps(dataclasses.asdict(chosen), indent=2))
        return
    output.check_writable(out / "pipeline")
    output.hush()
    rank, processes = rank_and_count()
    began = time.perf_counter()
    try:
        with Report(quiet=as_json or rank > 0) as report:
            pipe = train_pico(out, chosen, report, compile=compile)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped; the same command goes on from the last checkpoint.") from None
    if pipe is None:
        return
    made = {
        **output.provenance(),
        "recipe": {"name": name, **dataclasses.asdict(chosen)},
        "processes": processes,
        "seconds": round(time.perf_counter() - began, 1),
        "pipeline": str(out / "pipeline"),
    }
    output.write_json(out / "made.json", made)
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    else:
        typer.echo(f"Wrote {out / 'pipeline'}. Try it: unstill animate --model {out / 'pipeline'}")
