"""Comparison videos of clips side by side, and contact sheets of their frames."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from unstill.data.video import Frames, as_frames
from unstill.errors import UnstillError


PAPER, INK, FAINT = (246, 246, 246), (40, 40, 40), (128, 128, 128)  # greys: no colour cast in yuv420p or a GIF


def side_by_side(
    clips: Sequence[Frames],
    labels: Sequence[str],
    gap: int = 12,
    *,
    panel: int = 256,
    columns: int | None = None,
) -> torch.Tensor:
    """
    Arranges clips side by side with a caption under each.

    Args:
        clips: videos (F, 3, H, W) of one size and length; a still image, one frame, is held throughout.
        labels: one caption per clip.
        gap: pixels between panels; the margin around them is the same.
        panel: clips lower than this are enlarged by the smallest whole factor that reaches it.
        columns: panels per row; by default one row up to four clips, then as square as possible.

    Returns:
        uint8 frames (F, 3, H', W'), H' and W' even.
    """
    videos = [as_frames(clip) for clip in clips]
    if not videos or len(videos) != len(labels):
        raise UnstillError(f"Each clip needs one label, but got {len(videos)} clips and {len(labels)} labels.")
    length = max(len(video) for video in videos)
    if any(len(video) not in (1, length) or video.shape[2:] != videos[0].shape[2:] for video in videos):
        shapes = ", ".join(str(tuple(video.shape)) for video in videos)
        raise UnstillError(f"Clips next to each other must agree in size and length, but got {shapes}.")
    factor = max(1, math.ceil(panel / videos[0].shape[2]))
    height, width = factor * videos[0].shape[2], factor * videos[0].shape[3]
    columns = columns or (len(videos) if len(videos) <= 4 else math.ceil(math.sqrt(len(videos))))
    columns = min(columns, len(videos))
    rows = math.ceil(len(videos) / columns)
    font = _font(max(13, height // 18), labels, width)
    line = round(2 * font.size)  # the caption's strip

    total = (gap + columns * (width + gap), gap + rows * (height + line) + (rows - 1) * gap // 2 + gap // 2)
    page = Image.new("RGB", (total[0] + total[0] % 2, total[1] + total[1] % 2), PAPER)
    draw = ImageDraw.Draw(page)
    corners = []
    for index, label in enumerate(labels):
        left = gap + (index % columns) * (width + gap)
        top = gap + (index // columns) * (height + line + gap // 2)
        corners.append((left, top))
        draw.text((left + width / 2, top + height + line / 2), _cut(label, font, width), INK, font, anchor="mm")
    pages = np.broadcast_to(np.asarray(page), (length, page.height, page.width, 3)).copy()
    for video, (left, top) in zip(videos, corners, strict=True):
        for index in range(length):
            picture = Image.fromarray(video[index % len(video)].permute(1, 2, 0).contiguous().numpy())
            if factor > 1:
                picture = picture.resize((width, height), Image.Resampling.LANCZOS)
            pages[index, top : top + height, left : left + width] = np.asarray(picture)
    return torch.from_numpy(pages).permute(0, 3, 1, 2).contiguous()


def contact_sheet(
    rows: Sequence[Frames], labels: Sequence[str], *, frames: int = 6, panel: int = 128, gap: int = 6
) -> Image.Image:
    """
    One row of evenly spaced frames per clip, its label on the left, frame numbers on top.

    Args:
        rows: videos (F, 3, H, W), possibly of different sizes and lengths.
        labels: one per row.
        frames: pictures per row, at most; the first and the last frame are always shown.
        panel: height of the pictures in pixels.
        gap: pixels between pictures.
    """
    videos = [as_frames(row) for row in rows]
    if not videos or len(videos) != len(labels):
        raise UnstillError(f"Each row needs one label, but got {len(videos)} rows and {len(labels)} labels.")
    margin, text = 3 * gap, max(12, panel // 9)
    font, small = _font(text, labels), _font(round(0.8 * text), labels)
    label_width = math.ceil(max(font.getlength(label) for label in labels))
    left = margin + label_width + (margin if label_width else 0)
    shown = [np.unique(np.linspace(0, len(video) - 1, frames).round().astype(int)) for video in videos]
    widths = [round(panel * video.shape[3] / video.shape[2]) for video in videos]
    top = round(margin + small.size + gap)
    size = (
        left + max(len(picked) * (width + gap) for picked, width in zip(shown, widths, strict=True)) - gap + margin,
        top + len(videos) * (panel + gap) - gap + margin,
    )
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    one_axis = all(len(video) == len(videos[0]) for video in videos) and len(set(widths)) == 1
    for row, (video, picked, width) in enumerate(zip(videos, shown, widths, strict=True)):
        y = top + row * (panel + gap)
        draw.text((margin, y + panel / 2), labels[row], INK, font, anchor="lm")
        for column, number in enumerate(picked):
            x = left + column * (width + gap)
            picture = Image.fromarray(video[int(number)].permute(1, 2, 0).contiguous().numpy())
            page.paste(picture.resize((width, panel), Image.Resampling.LANCZOS), (x, y))
            if row == 0 and one_axis:
                draw.text((x + width / 2, margin + small.size / 2), f"frame {number}", FAINT, small, anchor="mm")
    return page


def _font(size: int, labels: Sequence[str], width: int = 1 << 30) -> ImageFont.FreeTypeFont:
    """Pillow's own font: one size for all captions, as large as `size` if they fit, but at least 11."""
    while size > 11 and max(ImageFont.load_default(size).getlength(label) for label in labels) > width:
        size -= 1
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _cut(label: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The label, or as much of it as fits with an ellipsis."""
    cut = label
    while cut and font.getlength(cut if cut == label else cut + "\u2026") > width:
        cut = cut[:-1].rstrip()
    return label if cut == label else cut + "\u2026"
