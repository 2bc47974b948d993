"""Python code that makes a video again, bit for bit."""

import dataclasses
from typing import Any, cast

from PIL import Image

from unstill.latent_statistics import LatentStatistics
from unstill.methods.base import Method
from unstill.methods.free_init import FreeInit


PICTURE = "picture.png"


def python_code(model: str, call: dict[str, Any], methods: tuple[Method, ...], seed: int, picture: bool) -> str:
    """
    Python code that makes the improved video.

    Args:
        model: as for `unstill.load`.
        call: keyword arguments of the pipeline's call; pictures in it are written as read from `PICTURE`.
        methods: that are applied.
        seed: of the noise.
        picture: whether there is a picture. If the call has none, the methods encode it.
    """
    given = {name: value for name, value in call.items() if name != "output_type"}
    arguments = [f"{name}={_literal(value)}" for name, value in given.items()]
    arguments.append(f"generator=torch.Generator().manual_seed({seed})")
    free_init = [method for method in methods if isinstance(method, FreeInit)]
    applied = [expression(method, model) for method in methods if method not in free_init]
    if picture and not any(_literal(value) in ("image", "[image]") for value in given.values()):
        applied.append("image=image")
    call_start = f"unstill.free_init(pipe, {expression(free_init[0], model)}, " if free_init else "pipe("
    read_picture = f'image = Image.open("{PICTURE}")\n' if picture else ""
    imports = ["import torch", *(["from PIL import Image"] if picture else []), "", "import unstill"]
    return "\n".join(imports) + (
        f"\n\n{read_picture}pipe = unstill.load({model!r})\n"
        f"with unstill.apply({', '.join(['pipe', *applied])}):\n"
        f"    frames = {call_start}{', '.join(arguments)}).frames[0]\n"
    )


def expression(method: Method, model: str) -> str:
    """A method as a Python expression, with the parameters that differ from the defaults."""
    parts = []
    for field in dataclasses.fields(cast(Any, method)):
        value = getattr(method, field.name)
        if isinstance(value, LatentStatistics):
            parts.append(f"{field.name}=unstill.models.registry.defaults_of({model!r})[{field.name!r}]")
        elif value != field.default:
            parts.append(f"{field.name}={value!r}")
    return f"unstill.{type(method).__name__}({', '.join(parts)})"


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return "image" if isinstance(value, Image.Image) else repr(value)
