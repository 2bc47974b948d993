"""Edits the picture that a pipeline is called with, before the pipeline sees it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from unstill.errors import UnstillError
from unstill.methods.base import Method


PICTURE_ARGUMENTS = ("image", "video")  # arguments that hold them


def edited_picture(
    methods: Sequence[Method], call: Callable[..., Any], pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """
    The arguments of a pipeline's call with its pictures as `on_image` of `methods` makes them.

    Raises:
        UnstillError: the picture is neither a PIL image, a list of them, nor a tensor with values in [0, 1].
    """
    try:
        bound = inspect.signature(call).bind(pipe, *args, **kwargs)
    except TypeError:  # the pipeline itself says what is wrong
        return args, kwargs
    if bound.arguments.get("conditions") is not None and any(method.implements("on_image") for method in methods):
        raise UnstillError(
            f"{type(pipe).__name__} takes its picture inside `conditions`, where no method reaches it; change the "
            "picture itself before the call, with unstill.methods.recompress_image.recompressed."
        )
    for name in PICTURE_ARGUMENTS:
        if bound.arguments.get(name) is not None:
            bound.arguments[name] = edited(methods, bound.arguments[name])
    return bound.args[1:], bound.kwargs


def edited(methods: Sequence[Method], picture: Any) -> Any:
    """
    One picture, a list of them, or a tensor `(..., 3, H, W)` in [0, 1], each as `on_image` of `methods` makes it.
    """
    methods = [method for method in methods if method.implements("on_image")]
    if picture is None or not methods:
        return picture
    if isinstance(picture, (list, tuple)):
        return [edited(methods, element) for element in picture]
    if isinstance(picture, Image.Image):
        for method in methods:
            picture = method.on_image(picture)
        return picture
    if isinstance(picture, torch.Tensor) and picture.ndim >= 3 and picture.shape[-3] == 3:
        if picture.numel() and 0 <= picture.min() and picture.max() <= 1:
            return _edited_tensor(methods, picture)
    raise UnstillError(
        f"{methods[0].name} changes the picture itself, so that it takes a PIL image, a list of them, or a tensor "
        "(..., 3, H, W) with values from 0 to 1; give one of these."
    )


def _edited_tensor(methods: Sequence[Method], pictures: torch.Tensor) -> torch.Tensor:
    results = []
    for picture in pictures.flatten(0, -4) if pictures.ndim > 3 else pictures[None]:
        pixels = (picture.float() * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        image = Image.fromarray(pixels)
        changed = edited(methods, image)
        if changed is not image:
            values = torch.frombuffer(bytearray(changed.tobytes()), dtype=torch.uint8).view(*pixels.shape)
            picture = values.permute(2, 0, 1).to(pictures.device) / 255
        results.append(picture.to(pictures.dtype))
    return torch.stack(results).view(pictures.shape)
