"""
A report as one self-contained web page: text, tables, plots and videos in a single file, readable offline, on a phone,
in light and dark.
"""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unstill.data.files import beside, replacing
from unstill.data.images import resize_and_crop
from unstill.data.video import as_frames, write_video
from unstill.lab.svg_figure import FONT


PANEL = 192
"""Height of the videos on a page in pixels; smaller videos are enlarged, larger ones made smaller."""

_COLOURS = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1f2328; --soft: #57606a; --faint: #d9dce1; --hair: #eceef1;
  --accent: #0b6e5f; --wash: #e8f3f0 }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --card: #1c2024; --ink: #e7e9ec; --soft: #a3abb5; --faint: #3a4048; --hair: #292e34;
  --accent: #5cc9b3; --wash: #17302b } }
"""
_STYLE = (
    f"{_COLOURS}body {{ font: 16px/1.55 {FONT} }}"
    + """
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink) }
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 60px }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 40px 0 6px }
h3 { font-size: 0.95rem; margin: 0 0 6px; font-weight: 600 }
p { margin: 6px 0; max-width: 68ch } .soft { color: var(--soft) } small { color: var(--soft) }
.verdict { background: var(--wash); border-left: 4px solid var(--accent); border-radius: 8px; padding: 14px 18px;
  margin: 20px 0 }
.verdict p:first-child { font-size: 1.1rem; font-weight: 600 }
pre { background: var(--card); border: 1px solid var(--faint); border-radius: 8px; padding: 10px 12px; margin: 8px 0;
  overflow-x: auto; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; user-select: all }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 16px }
.card { background: var(--card); border: 1px solid var(--hair); border-radius: 12px; padding: 14px 14px 10px }
.card p { font-size: 0.85rem; color: var(--soft); margin: 2px 0 8px }
svg { width: 100%; height: auto; display: block }
.scroll { overflow-x: auto; margin: 16px 0 8px; border: 1px solid var(--hair); border-radius: 12px;
  background: var(--card) }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums }
th, td { padding: 7px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--hair) }
th { font-weight: 600; color: var(--soft) } tr:last-child td { border-bottom: 0 }
th:first-child, td:first-child { text-align: left } td small { margin-left: 5px }
tr.best td { background: var(--wash) }
.videos { display: grid; gap: 10px; overflow-x: auto; padding-bottom: 6px; margin-top: 14px }
figure { margin: 0; min-width: 0 } figcaption { font-size: 0.8rem; color: var(--soft); overflow-wrap: anywhere }
video { width: 100%; min-height: 60px; display: block; border-radius: 8px; background: var(--hair) }
.row-name { align-self: center; font-size: 0.85rem; overflow-wrap: anywhere }
details { margin: 8px 0 } summary { cursor: pointer;
  color: var(--soft) } dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; font-size: 0.88rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 560px) { main { padding: 18px 12px 40px } h1 { font-size: 1.35rem } th, td { padding: 6px 8px } }
"""
)

# Videos are decoded only when they become visible, so that a page with hundreds of them opens quickly.
_SCRIPT = """
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const watch = new IntersectionObserver(seen => seen.forEach(({target: v, isIntersecting}) => {
  if (isIntersecting && !v.src)
    v.src = "data:video/mp4;base64," + document.getElementById("film" + v.dataset.film).textContent;
  if (still) v.controls = true; else isIntersecting ? v.play().catch(() => {}) : v.pause();
}), {rootMargin: "200px"});
document.querySelectorAll("video").forEach(v => watch.observe(v));
"""


@dataclass(frozen=True, slots=True)
class Film:
    """
    A video on a page.

    Attributes:
        mp4: the file.
        poster: a JPEG that is shown until it plays.
    """

    mp4: bytes
    poster: bytes


class Page:
    """
    A page that is built from the top down by its methods. All text is escaped; plots are SVG and inserted as they are.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._films: list[str] = []
        self._body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(subtitle)}</p>' if subtitle else ""]

    def verdict(self, sentence: str, *more: str, command: str = "") -> None:
        """A highlighted box: the main sentence, further ones, and a command to copy."""
        paragraphs = "".join(f"<p>{escape(text)}</p>" for text in (sentence, *more))
        code = f"<pre>{escape(command)}</pre>" if command else ""
        self._body.append(f'<div class="verdict">{paragraphs}{code}</div>')

    def heading(self, title: str, about: str = "") -> None:
        """A heading, and a sentence below it."""
        self._body.append(f"<h2>{escape(title)}</h2>" + (f'<p class="soft">{escape(about)}</p>' if about else ""))

    def note(self, sentence: str) -> None:
        """A sentence in a softer colour."""
        self._body.append(f'<p class="soft">{escape(sentence)}</p>')

    def prose(self, paragraphs: Sequence[str]) -> None:
        """Paragraphs; the text between the first two asterisks is bold."""
        for text in paragraphs:
            before, bold, after = escape(text).split("*", 2)
            self._body.append(f"<p>{before}<b>{bold}</b>{after}</p>")

    def plots(self, plots: Sequence[tuple[str, str, str]]) -> None:
        """Plots next to each other, each as (title, description, SVG)."""
        cards = "".join(
            f'<div class="card"><h3>{escape(title)}</h3><p>{escape(about)}</p>{svg}</div>'
            for title, about, svg in plots
        )
        self._body.append(f'<div class="plots">{cards}</div>')

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[bool] = ()) -> None:
        """A table; `best` rows are highlighted, and text in brackets is smaller."""
        head = "".join(f"<th>{escape(c)}</th>" for c in columns)
        body = "".join(
            ('<tr class="best">' if i < len(best) and best[i] else "<tr>")
            + "".join(f"<td>{_cell(cell)}</td>" for cell in row)
            + "</tr>"
            for i, row in enumerate(rows)
        )
        self._body.append(f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')

    def films(self, columns: int, cells: Sequence[tuple[str, Film | None]]) -> None:
        """Captioned videos in rows of `columns` cells; cells without a video, such as the first ones, show text."""
        figures = []
        for caption, film in cells:
            if film is None:
                figures.append(f'<div class="row-name">{escape(caption)}</div>')
                continue
            self._films.append(base64.b64encode(film.mp4).decode())
            figures.append(
                f'<figure><video muted loop playsinline preload="none" data-film="{len(self._films) - 1}" '
                f'poster="data:image/jpeg;base64,{base64.b64encode(film.poster).decode()}" '
                f'aria-label="{escape(caption, quote=True)}"></video>'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        grid = f"grid-template-columns: minmax(96px, 160px) repeat({columns - 1}, minmax(88px, 220px))"
        self._body.append(f'<div class="videos" style="{grid}">{"".join(figures)}</div>')

    def facts(self, title: str, pairs: dict[str, Any]) -> None:
        """Names and values in a list that is collapsed at first."""
        items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs.items())
        self._body.append(f"<details><summary>{escape(title)}</summary><dl>{items}</dl></details>")

    def html(self) -> str:
        """The page as text."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head><body><main>\n"
            + "\n".join(filter(None, self._body))
            + "\n</main>"
            + "".join(f'<script type="text/plain" id="film{i}">{mp4}</script>\n' for i, mp4 in enumerate(self._films))
            + f"<script>{_SCRIPT}</script></body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Writes the page atomically."""
        with replacing(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")


def film(video: torch.Tensor, fps: float, height: int = PANEL) -> Film:
    """Encodes a clip `(F, 3, H, W)`, uint8 or float in [0, 1], as a small MP4 of about `height` pixels."""
    own_height = video.shape[-2]
    if own_height > height:
        width = round(video.shape[-1] * height / own_height / 2) * 2
        pixels = video.float() / 255 if video.dtype == torch.uint8 else video
        video = resize_and_crop(pixels, (height, width)).clamp(0, 1)
    with beside(Path(tempfile.gettempdir())) as folder:
        path = write_video(Path(folder) / "film.mp4", video, fps, upscale=max(1, round(height / own_height)))
        poster = io.BytesIO()
        Image.fromarray(as_frames(video[:1])[0].permute(1, 2, 0).numpy()).save(poster, "JPEG", quality=75)
        return Film(path.read_bytes(), poster.getvalue())


def _cell(text: str) -> str:
    value, bracket, rest = text.partition(" (")
    return escape(value) + (f"<small>({escape(rest)}</small>" if bracket else "")
