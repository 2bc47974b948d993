"""`unstill train`: fine-tunes a model by a recipe, or trains the embedded one from scratch."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file; the name of a recipe of this package, which 'list' prints; or pico, the embedded model "
            "from scratch, with settings as pico:key=value,key=value."
        ),
    ] = None,
    videos: Annotated[
        str | None, typer.Option(help="A folder of videos or of .tar shards, or world: rendered clips.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set train.steps=500. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of this run; a stopped run is resumed.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same weights.")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: minutes, then up to 3 times as fast.")
    ] = False,
    print_recipe: Annotated[
        bool, typer.Option("--print-recipe", help="Print the recipe, as a file to start from, and exit.")
    ] = False,
    settings: Annotated[bool, typer.Option("--settings", help="Print all settings and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Fine-tune a model on your videos by a recipe.

    The same command resumes a stopped run. Several processes or machines: accelerate launch -m unstill
    train recipe.yaml. The result is the folder OUT/pipeline, which --model takes. All keys: docs/training.md.
    """
    from unstill.errors import UnstillError

    if recipe == "list":
        _list()
        return
    if recipe is None:
        raise UnstillError("Name a recipe: a YAML file, or one of 'unstill train list'.")
    name = recipe.partition(":")[0]
    out = out or Path("runs") / Path(name).stem
    if name == "pico":
        if videos is not None or changes:
            raise UnstillError(
                "pico is trained on its own synthetic clips: leave out --videos, and give settings as pico:key=value."
            )
        if print_recipe:
            raise UnstillError("pico is not made by a YAML recipe; print its settings with --settings instead.")
        _train_pico(recipe, out, seed or 0, compile, settings, as_json)
        return
    from unstill.training.recipe import read_recipe, yaml_of

    if print_recipe:
        typer.echo(yaml_of(recipe), nl=False)
        return
    overrides = dict(_change(text) for text in changes or [])
    overrides |= {"data.videos": videos} if videos is not None else {}
    overrides |= {"seed": seed} if seed is not None else {}
    overrides |= {"train.compile": True} if compile else {}
    chosen = read_recipe(recipe, overrides)
    if settings:
        typer.echo(json.dumps(chosen.model_dump(mode="json", by_alias=True), indent=2))
        return
    _fine_tune(chosen, recipe, out, as_json)


def _fine_tune(recipe: Any, name: str, out: Path, as_json: bool) -> None:
    from unstill.cli import output
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.progress import ProgressBars
    from unstill.data.output_paths import check_writable
    from unstill.errors import UnstillError

    is_new = not out.exists()
    check_writable(out / "pipeline")
    if recipe.data.cache and recipe.data.cache_folder is not None:
        check_writable(Path(recipe.data.cache_folder) / "latents")
    output.silence_libraries()
    rank, processes = rank_and_count()
    began = time.perf_counter()
    from unstill.training.trainer import train as fine_tune

    try:
        validation = None
        if recipe.validation is not None:
            from unstill.lab.validation import SampleValidation

            validation = SampleValidation(recipe)
        with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as report:
            result = fine_tune(recipe, out, report, validation)
    except UnstillError:
        if is_new and rank == 0:
            with suppress(OSError):
                out.rmdir()  # if nothing was written
        if rank > 0:  # the main process prints the error
            raise typer.Exit(2) from None
        raise
    if result is None:
        return
    record = {
        **output.provenance(),
        "recipe": {"name": name, **recipe.model_dump(mode="json", by_alias=True)},
        "processes": processes,
        "seconds": round(time.perf_counter() - began, 1),
        "clips_per_second": round(result.clips_per_second, 3),
        "waiting_for_data": round(result.waiting, 4),
        "pipeline": str(result.pipeline),
    }
    _write_record(record, out, as_json)


def _train_pico(recipe: str, out: Path, seed: int, compile: bool, settings: bool, as_json: bool) -> None:
    """Trains the embedded model."""
    from unstill.cli import output
    from unstill.cli.distributed import rank_and_count
    from unstill.cli.options import parse_values
    from unstill.cli.progress import ProgressBars
    from unstill.data.output_paths import check_writable
    from unstill.documents import build_dataclass
    from unstill.errors import UnstillError
    from unstill.training.pico import train_pico
    from unstill.training.pico_recipe import PicoRecipe

    name, _, text = recipe.partition(":")
    values, _ = parse_values(PicoRecipe, name, text)
    chosen = build_dataclass(PicoRecipe, {"seed": seed, **values}, name)
    if settings:
        typer.echo(json.dumps(dataclasses.asdict(chosen), indent=2))
        return
    check_writable(out / "pipeline")
    output.silence_libraries()
    rank, processes = rank_and_count()
    began = time.perf_counter()
    try:
        with output.resumable(), ProgressBars(quiet=as_json or rank > 0) as report:
            pipe = train_pico(out, chosen, report, compile=compile)
    except UnstillError:
        if rank > 0:  # the main process prints the error
            raise typer.Exit(2) from None
        raise
    if pipe is None:
        return
    record = {
        **output.provenance(),
        "recipe": {"name": name, **dataclasses.asdict(chosen)},
        "processes": processes,
        "seconds": round(time.perf_counter() - began, 1),
        "pipeline": str(out / "pipeline"),
    }
    _write_record(record, out, as_json)


def _write_record(record: dict[str, Any], out: Path, as_json: bool) -> None:
    from unstill.data.ownership import together

    with together(out / "made.json") as results:
        results.record = record
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        typer.echo(f"Wrote {record['pipeline']}. Try it: unstill animate --model {record['pipeline']}")


def _list() -> None:
    from unstill.training.recipe import shipped, yaml_of

    width = max(map(len, shipped()))
    for name in shipped():
        typer.echo(f"{name:{width}s} {yaml_of(name).splitlines()[0].removeprefix('# ')}")
    typer.echo(
        f"{'pico':{width}s} The embedded model, from scratch or given weights: ten minutes on a GPU, days on a CPU"
    )


def _change(text: str) -> tuple[str, Any]:
    """The key and the value, read as YAML, of `train.steps=500`."""
    from unstill.errors import UnstillError, shown
    from unstill.training.yaml_reader import read_yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UnstillError(
            f"--set takes key=value, for example --set train.steps=500, not {shown(text)}; write it so."
        )
    return key.strip(), read_yaml(value, f"--set {shown(key)}")
