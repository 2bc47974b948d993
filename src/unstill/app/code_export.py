"""The lines of Python that make a video again, bit for bit."""

import dataclasses
from typing import Any, cast

from PIL import Image

from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method
from unstill.methods.free_init import FreeInit


PICTURE = "picture.png"


def python(model: str, call: dict[str, Any], methods: tuple[Method, ...], seed: int, picture: bool) -> str:
    """
    Args:
        model: what `unstill.load` takes.
        call: the keyword arguments of the pipeline's call; pictures in it stand for `PICTURE`.
        picture: whether there is a picture at all. If the call has none, the methods encode it.
    """
    given = {name: value for name, value in call.items() if name != "output_type"}
    arguments = [f"{name}={_written(value)}" for name, value in given.items()]
    arguments.append(f"generator=torch.Generator().manual_seed({seed})")
    loops = [method for method in methods if isinstance(method, FreeInit)]
    within = [expression(method, model) for method in methods if method not in loops]
    if picture and not any(_written(value) in ("image", "[image]") for value in given.values()):
        within.append("image=image")
    called = f"unstill.free_init(pipe, {expression(loops[0], model)}, " if loops else "pipe("
    opening = f'image = Image.open("{PICTURE}")\n' if picture else ""
    imports = ["import torch", *(["from PIL import Image"] if picture else []), "", "import unstill"]
    return "\n".join(imports) + (
        f"\n\n{opening}pipe = unstill.load({model!r})\n"
        f"with unstill.apply({', '.join(['pipe', *within])}):\n"
        f"    frames = {called}{', '.join(arguments)}).frames[0]\n"
    )


def expression(method: Method, model: str) -> str:
    """A method as Python writes it, with the parameters that are not the class's defaults."""
    parts = []
    for field in dataclasses.fields(cast(Any, method)):
        value = getattr(method, field.name)
        if isinstance(value, LatentStatistics):
            parts.append(f"{field.name}=unstill.models.registry.defaults_of({model!r})[{field.name!r}]")
        elif value != field.default:
            parts.append(f"{field.name}={value!r}")
    return f"unstill.{type(method).__name__}({', '.join(parts)})"


def brief(method: Method) -> str:
    """The same for the eye: without the package and without what comes with the model."""
    changed = [
        f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value}"
        for field in dataclasses.fields(cast(Any, method))
        if (value := getattr(method, field.name)) != field.default
        and not isinstance(value, LatentStatistics)
        and field.name != "resize"
    ]
    return f"{type(method).__name__}({', '.join(changed)})"


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return "image" if isinstance(value, Image.Image) else repr(value)
