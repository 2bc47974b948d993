"""Indexes of data sets: the names of the videos and their captions, without opening a video."""

import csv
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unstill.data.clips import video_files
from unstill.data.decode import ShardMember
from unstill.documents import JSONObject, parse_json
from unstill.errors import UnstillError, first_line


log = logging.getLogger(__name__)

FILE_COLUMNS = ("file", "file_name", "filename", "path", "video", "videoid")
"""Columns that name a video, in the order of preference; `videoid` is WebVid's and has no suffix."""
CAPTION_COLUMNS = ("caption", "text", "name", "prompt")
"""Columns that hold a caption, in the order of preference; `name` is WebVid's."""


class Texts:
    """Many short texts in two arrays, which worker processes share without copying millions of Python objects."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode(errors="surrogatepass") for text in texts]  # names of files that are not UTF-8
        self._bytes = b"".join(encoded)
        self._ends = np.cumsum([0] + [len(text) for text in encoded])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode(errors="surrogatepass")


@dataclass(frozen=True)
class Listing:
    """The videos of a data set in a fixed order: names relative to `folder`, and a caption for each ("" for none)."""

    folder: Path
    names: Texts
    captions: Texts

    def __len__(self) -> int:
        return len(self.names)

    def video(self, index: int) -> Path | ShardMember:
        """The file of one video."""
        return self.folder / self.names[index]

    def chosen(self, indices: Sequence[int]) -> "Listing":
        """Only these videos."""
        return replace(
            self,
            names=Texts(self.names[index] for index in indices),
            captions=Texts(self.captions[index] for index in indices),
        )

    def bytes_of(self, index: int) -> int:
        """The size of the video's file, by which a fingerprint detects a change."""
        return (self.folder / self.names[index]).stat().st_size


def list_folder(folder: str | os.PathLike[str]) -> Listing:
    """
    Lists all videos below a folder, in natural order, without captions.

    Raises:
        UnstillError: no such folder, or no video in it.
    """
    folder = Path(folder)
    names = [file.relative_to(folder).as_posix() for file in video_files(folder)]
    return Listing(folder, Texts(names), Texts([""] * len(names)))


def list_classes(folder: str | os.PathLike[str]) -> Listing:
    """
    Lists a folder laid out as UCF101: one subfolder of videos per class, whose name is the caption.

    Raises:
        UnstillError: no such folder, no video in it, or a video outside every class.
    """
    listing = list_folder(folder)
    names = [listing.names[index] for index in range(len(listing))]
    outside = [name for name in names if "/" not in name]
    if outside:
        raise UnstillError(
            f"{folder} is not laid out as UCF101: {outside[0]} lies outside of every class; "
            "expected a subfolder of videos for each class."
        )
    return Listing(listing.folder, listing.names, Texts(class_text(name.split("/")[0]) for name in names))


def class_text(name: str) -> str:
    """`ApplyEyeMakeup` to `Apply Eye Makeup`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def list_captioned(folder: str | os.PathLike[str], captions: str | os.PathLike[str]) -> Listing:
    """
    Lists the videos of a folder that a CSV or JSONL file names, in its order, with its captions.

    A row has its video in one of `FILE_COLUMNS`, relative to the folder, and its caption in one of `CAPTION_COLUMNS`.
    WebVid's files can be used unchanged: `videoid` is the file `page_dir/videoid.mp4`, or `videoid.mp4` where the
    folders were not kept. Rows without an existing video are skipped, with one warning; so are videos without a row.

    Args:
        folder: of the videos.
        captions: the CSV, TSV or JSONL file.

    Raises:
        UnstillError: no such file, other columns, a row that cannot be read, or no row whose video exists.
    """
    folder, captions = Path(folder), Path(captions)
    existing = {file.relative_to(folder).as_posix() for file in video_files(folder)}
    by_stem = {os.path.splitext(name)[0]: name for name in existing}
    names, texts, missing = list[str](), list[str](), list[str]()
    for number, row in _rows(captions):
        file, text = _first(row, FILE_COLUMNS), _first(row, CAPTION_COLUMNS)
        if file is None or text is None:
            columns = [str(column) for column, value in row.items() if value is not None]
            raise UnstillError(
                f"{captions} needs a column for the video ({', '.join(FILE_COLUMNS)}) and one for its caption "
                f"({', '.join(CAPTION_COLUMNS)}), but row {number} has {', '.join(columns) or 'none'}."
            )
        candidates = [file, f"{row['page_dir']}/{file}"] if row.get("page_dir") else [file]
        name = next((c if c in existing else by_stem[c] for c in candidates if c in existing or c in by_stem), "")
        if name:
            names.append(name)
            texts.append(text)
        else:
            missing.append(candidates[-1])
    if not names:
        what = f"names none of the videos in {folder} (looked for {missing[0]} and others)" if missing else "is empty"
        raise UnstillError(f"The caption file {captions} {what}; pass the folder that its names are relative to.")
    if missing:
        log.warning(
            "%d of the %d videos that %s names are not in %s and are left out, the first is %s.",
            *(len(missing), len(missing) + len(names), captions, folder, missing[0]),
        )
    if without := sorted(existing.difference(names)):
        log.warning(
            "%d of the %d videos in %s have no row in %s and are left out, the first is %s.",
            *(len(without), len(existing), folder, captions, without[0]),
        )
    return Listing(folder, Texts(names), Texts(texts))


def _first(row: dict[str, Any], columns: tuple[str, ...]) -> str | None:
    return next((str(row[column]).strip() for column in columns if row.get(column) is not None), None)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV (tabs for .tsv) or JSONL file with their numbers, from 1."""
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UnstillError(f"The caption file {file} {what}; pass a .csv, .tsv or .jsonl file.")
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise UnstillError(f"The caption file {file} is of an unknown kind; pass a .csv, .tsv or .jsonl file.")
    number = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if kind != ".jsonl":
                for number, row in enumerate(
                    csv.DictReader(lines, dialect="excel-tab" if kind == ".tsv" else "excel"), 1
                ):
                    yield number, row
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, parse_json(line, JSONObject, f"Row {number} of {file}", "repair it").root
    except UnstillError:
        raise
    except (ValueError, csv.Error) as error:  # broken UTF-8 is a ValueError
        raise UnstillError(
            f"{file} cannot be read after row {number} ({first_line(error)}); repair it or save it again."
        ) from error
    except OSError as error:
        raise UnstillError(f"{file} cannot be read ({error.strerror}).") from error
