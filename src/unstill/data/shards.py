"""
Webdataset shards: tar files in which the members of a sample share a name, such as 0007.mp4, 0007.txt, 0007.json.

A shard is indexed once by its tar headers, and clips are then read at their offsets. This gives random access, which
a shuffled stream of samples does not, but needs uncompressed local tar files.
"""

import logging
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from unstill.data.decode import VIDEO_SUFFIXES, ShardMember, natural_key
from unstill.data.video_index import CAPTION_COLUMNS, Listing, Texts
from unstill.documents import JSONObject
from unstill.errors import UnstillError


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardListing(Listing):
    """The videos in tar files; names are SHARD/MEMBER."""

    shards: tuple[str, ...]
    places: np.ndarray  # (N, 3) int64: number of the shard, offset and size of the video in it

    def video(self, index: int) -> ShardMember:
        shard, offset, size = (int(number) for number in self.places[index])
        return ShardMember(self.folder / self.shards[shard], self.names[index], offset, size)

    def chosen(self, indices: Sequence[int]) -> Listing:
        subset = super().chosen(indices)
        return replace(self, names=subset.names, captions=subset.captions, places=self.places[np.asarray(indices)])

    def bytes_of(self, index: int) -> int:
        return int(self.places[index, 2])


def list_shards(path: str | os.PathLike[str]) -> ShardListing:
    """
    Lists the samples that have a video in one tar file, or in all tar files below a folder.

    The caption is the sample's .txt, else the first of `video_index.CAPTION_COLUMNS` in its .json. Of a truncated
    shard the complete samples are used, with a warning.

    Raises:
        UnstillError: a missing path, no tar file, a compressed one, or no video in any.
    """
    path = Path(path)
    if path.is_dir():
        folder, shards = path, [str(file.relative_to(path)) for file in path.rglob("*.tar") if file.is_file()]
    else:
        folder, shards = path.parent, [path.name]
        if not path.is_file():
            raise UnstillError(f"There are no shards at {path}; pass a folder of .tar files, or one of them.")
    names, captions, places = list[str](), list[str](), list[tuple[int, int, int]]()
    for number, shard in enumerate(shards := sorted(shards, key=natural_key)):
        for name, caption, offset, size in _samples(folder / shard):
            names.append(f"{shard}/{name}")
            captions.append(caption)
            places.append((number, offset, size))
    if not names:
        what = f"The {len(shards)} shards of {path} hold no videos" if shards else f"{path} holds no .tar files"
        raise UnstillError(f"{what}; expected samples such as 0007.mp4 with 0007.txt in .tar files.")
    return ShardListing(folder, Texts(names), Texts(captions), tuple(shards), np.array(places, dtype=np.int64))


def _samples(shard: Path) -> list[tuple[str, str, int, int]]:
    """Name, caption, offset and size of every video in a tar file."""
    videos, captions = dict[str, tuple[str, int, int]](), dict[str, str]()
    try:
        end = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            try:
                for member in tar:
                    # As in webdataset, the key is the part of the file's name before its first dot.
                    folder, _, file = member.name.rpartition("/")
                    key, _, suffix = file.partition(".")
                    key, suffix = f"{folder}/{key}", f".{suffix.lower()}"
                    if not member.isfile() or member.offset_data + member.size > end:
                        continue
                    if suffix in VIDEO_SUFFIXES:
                        videos[key] = (member.name, member.offset_data, member.size)
                    elif suffix == ".txt" or (suffix == ".json" and key not in captions):
                        content = tar.extractfile(member)
                        caption = _caption(content.read(), suffix) if content else None
                        if caption is not None:
                            captions[key] = caption
            except (tarfile.ReadError, EOFError) as error:
                log.warning("%s is damaged (%s); only the videos before that are used.", shard, error)
    except (tarfile.ReadError, EOFError) as error:
        raise UnstillError(f"{shard} is not a plain tar file ({error}); unpack or repair it.") from error
    except OSError as error:
        raise UnstillError(f"{shard} cannot be read ({error.strerror}).") from error
    return [(name, captions.get(key, ""), offset, size) for key, (name, offset, size) in videos.items()]


def _caption(content: bytes, suffix: str) -> str | None:
    text = content.decode(errors="replace").strip()
    if suffix == ".txt":
        return text
    try:
        fields = JSONObject.model_validate_json(text, strict=True).root
    except ValidationError:
        return None
    return next((str(fields[column]) for column in CAPTION_COLUMNS if fields.get(column) is not None), None)
