"""`unstill.animate_all`: several images with one loaded model; what is finished is kept when the call is repeated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstill.animation import load_asked, sample, timed
from unstill.animation_request import AnimationRequest
from unstill.animation_result import check_output, record_path, video_paths
from unstill.animation_settings import NAME, AnimationSettings, SeveralImages, takes
from unstill.data.output_paths import check_writable
from unstill.data.ownership import matching_files, read_record
from unstill.errors import UnstillError
from unstill.progress import StageProgress


SHOWN_ERRORS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatedImage:
    """
    One of the images of `unstill.animate_all`.

    Attributes:
        image: its file.
        files: the written files, as of `Animation`.
        settings: the content of the settings file; its `"scores"` are those of `Animation`.
        kept: whether an earlier call had made these files.
    """

    image: Path
    files: tuple[Path, ...]
    settings: dict[str, Any]
    kept: bool


@takes(SeveralImages)
def animate_all(settings: SeveralImages) -> tuple[AnimatedImage, ...]:
    """
    Animates several images as `unstill.animate` does one. The model is loaded once, and every result is written.

    Every result is named after its image. All images, settings and places are checked before the model is loaded.
    Results of an earlier call with the same settings and images are kept, so that a call that was stopped continues;
    with a loaded `pipe` all are made again. `out` is a folder, into which `photo.jpg` is written as `photo.mp4`, or
    has `{name}` in the place of `photo`; by default `{name}.mp4`. The stages that `progress` is called with begin
    with the name of the image. The keyword arguments are the fields of `AnimationSettings`.

    Returns:
        The results in the order of the images.

    Raises:
        UnstillError: as `unstill.animate`, and for images whose results would have the same name.

    Example:
        ```py
        unstill.animate_all(["a.jpg", "b.jpg"], motion=0.8, out="videos/{name}.gif")
        ```
    """
    given = settings.images
    images = [Path(image) for image in ([given] if isinstance(given, (str, os.PathLike)) else given)]
    if not images:
        raise UnstillError("There are no images: name at least one.")
    if settings.candidates is not None:
        raise UnstillError("Candidates are pictures that are made of a prompt: leave them out, or the images.")
    settings.check()
    places = image_targets(images, settings)
    keys = _check_all(places, settings)
    finished = {image: _kept(image, places[image], keys[image], settings) for image in images}
    pipe: Any = settings.pipe
    results = []
    for image, place in places.items():
        result, seconds = finished[image], dict[str, float]()
        if result is None:
            if pipe is None:
                with timed(seconds, "load"):
                    pipe = load_asked(settings)
            made = sample(pipe, _request(image, place, settings), seconds)
            result = AnimatedImage(image=image, files=made.files, settings=made.settings, kept=False)
        results.append(result)
    return tuple(results)


def image_targets(images: Sequence[Path], settings: AnimationSettings) -> dict[Path, Path]:
    """
    The video to write of every image.

    Raises:
        UnstillError: two images whose files would have the same name, or an `out` that names one video.
    """
    out = Path(NAME + ".mp4") if settings.out is None else Path(settings.out)
    if NAME not in str(out):
        if out.suffix and not out.is_dir():
            raise UnstillError(
                f"--out {out} names one video, but there are several images; name a folder, or give "
                f"--out '{out.with_name(NAME + out.suffix)}'."
            )
        out = out / f"{NAME}.mp4"
    places: dict[Path, Path] = {}
    taken: dict[str, Path] = {}  # by path, without upper case, which not every disk tells apart
    for image in images:
        place = Path(str(out).replace(NAME, image.stem))
        for file in (*video_paths(place, settings.plain, settings.compare), record_path(place)):
            if file in images:
                raise UnstillError(f"{file} is one of the images: it would be overwritten; choose another --out.")
            other = taken.setdefault(str(file).lower(), image)
            if image in places or other != image:
                raise UnstillError(
                    f"{other} and {image} would both be written as {file}; rename one, or animate them in two calls."
                )
        places[image] = place
    return places


def _request(image: Path, place: Path, settings: AnimationSettings) -> AnimationRequest:
    """The checked request of one image."""
    progress: StageProgress | None = None
    if (report := settings.progress) is not None:

        def progress(stage: str, done: int, total: int) -> None:
            report(f"{image.name}, {stage}", done, total)

    return AnimationRequest.of(dataclasses.replace(settings, out=place, progress=progress), image)


def _check_all(places: Mapping[Path, Path], settings: AnimationSettings) -> dict[Path, str | None]:
    """
    The key of every request, see `AnimationRequest.key`. The pictures are not kept: there may be many.

    Raises:
        UnstillError: what is wrong with any of the images or places.
    """
    keys: dict[Path, str | None] = {}
    wrong: list[str] = []
    for image, place in places.items():
        try:
            request = _request(image, place, settings)
            check_output(place, settings.plain, settings.compare)
            keys[image] = request.key()
        except UnstillError as error:
            wrong.append(str(error))
    if wrong := list(dict.fromkeys(wrong)):  # wrong settings are wrong for every image
        if len(wrong) > SHOWN_ERRORS:
            wrong[SHOWN_ERRORS:] = [f"{len(wrong) - SHOWN_ERRORS} more images cannot be animated."]
        raise UnstillError(" ".join(wrong))
    for place in places.values():
        check_writable(place)
    return keys


def _kept(image: Path, place: Path, key: str | None, settings: AnimationSettings) -> AnimatedImage | None:
    """The result of an earlier call with the same key, if all its files are there and as they were written."""
    record, videos = record_path(place), video_paths(place, settings.plain, settings.compare)
    content = read_record(record)
    if key is None or content is None or content.get("request") != key:
        return None
    if not set(videos) <= set(matching_files(record)):
        return None
    return AnimatedImage(image=image, files=(*videos, record), settings=content, kept=True)
