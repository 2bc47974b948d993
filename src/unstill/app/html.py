"""Theme and HTML of the page: the stage with both videos and the strip of earlier results. No external resources."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from unstill.app.service import StoredResult
from unstill.data.picture_crop import FittedPicture
from unstill.metrics.quick_scores import ROWS


STYLE, ICON = (Path(__file__).with_name(name) for name in ("page.css", "icon.png"))
SYSTEM = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
THUMBNAIL = 192  # pixels of the longer side
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

HEAD = """<div><h1><i>un</i>still</h1>
<p>A still picture, moving. Choose how much.</p></div>"""

EMPTY = """<div class="empty"><div>
<svg width="44" height="44" viewBox="0 0 44 44" fill="none" stroke="currentColor" stroke-width="2.4"
stroke-linecap="round">
<rect x="3" y="9" width="26" height="26" rx="6"/><path d="M34 12v20M39 16v12"/></svg>
Your video appears here: as the model makes it, and improved.</div></div>"""

STOPPED = "Stopped. Nothing was kept."

# JavaScript of the Start button and of what follows its run. It needs no server, which may have ended.
RUN_STARTED = """() => {
  document.querySelector("#stage").scrollIntoView({ behavior: "smooth", block: "nearest" });
  return [{ __type__: "update", visible: false }, { __type__: "update", visible: true }];
}"""
RUN_ENDED = """() => [{ __type__: "update", visible: true }, { __type__: "update", visible: false }]"""

# A click pauses or plays both videos, and the second is kept in step with the first.
STAGE_SCRIPT = """
element.addEventListener("click", (event) => {
  const videos = [...element.querySelectorAll("video")];
  if (!videos.includes(event.target)) return;
  const play = videos[0].paused;
  videos.forEach((video) => {
    video.currentTime = videos[0].currentTime;
    if (play) video.play(); else video.pause();
  });
});
element.addEventListener("timeupdate", (event) => {
  const [first, ...others] = element.querySelectorAll("video");
  if (event.target !== first) return;
  others.forEach((other) => {
    if (Math.abs(other.currentTime - first.currentTime) > 0.15) other.currentTime = first.currentTime;
  });
}, true);

// Gradio shows an error in a corner for ten seconds. Its sentence is moved here, above the result if there is one.
const LOST = "The server cannot be reached: if it is yours, start it again with unstill app. " +
  "This page loads again as soon as it answers.";
const BUSY = "Too many videos wait here just now: try again in a minute.";
const showError = (said) => {
  const lost = said.startsWith("Connection ");
  const sentence = lost ? LOST : said.startsWith("This application is currently busy") ? BUSY : said;
  const content = document.createElement("div"), error = document.createElement("div");
  content.innerHTML = props.value;
  content.querySelectorAll(".message, .empty").forEach((old) => old.remove());
  error.className = lost ? "message error lost" : "message error";
  error.setAttribute("role", "alert");
  error.textContent = sentence;
  content.prepend(error);
  props.value = content.innerHTML;
  document.querySelector("#stage").scrollIntoView({ behavior: "smooth", block: "nearest" });
  trigger("stop");
};
// Gradio's "queue: 3/5 |" in words.
const position = (rank) => rank === 1 ? "Yours is next." : `${rank} videos come before yours.`;
const shown = new WeakSet();
new MutationObserver(() => {
  for (const text of document.querySelectorAll(".toast-body.error [data-testid=toast-text]")) {
    if (shown.has(text)) continue;
    shown.add(text);
    showError(text.textContent.trim());
    text.closest(".toast-body").querySelector("[data-testid=toast-close]").click();
  }
  for (const node of document.querySelector("#stage .progress-text")?.childNodes ?? []) {
    const found = node.nodeType === Node.TEXT_NODE && node.data.match(/^queue: (\\d+)/);
    if (found) node.data = position(Number(found[1])) + " ";
  }
}).observe(document.body, { childList: true, subtree: true, characterData: true });
"""

STRIP_SCRIPT = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { index: Number(button.dataset.index) });
});
"""


def theme() -> Any:
    """Gradio's base theme in the colours of the page, with system fonts."""
    import gradio as gr

    shades = "#f0faf8 #e0f4f1 #bfe7e1 #8fd3ca #3fbfb0 #159a8c #0f766e #0d625c #0b4f4b #093f3c #062c2a"
    teal = gr.themes.Color(*shades.split())
    base = gr.themes.Base(
        primary_hue=teal,
        secondary_hue=teal,
        neutral_hue="stone",
        radius_size="lg",
        spacing_size="lg",
        font=SYSTEM,
        font_mono=MONO,
    )
    return base.set(
        body_background_fill="var(--paper)",
        body_background_fill_dark="var(--paper)",
        body_text_color="var(--ink)",
        body_text_color_dark="var(--ink)",
        background_fill_primary="var(--card)",
        background_fill_primary_dark="var(--card)",
        background_fill_secondary="var(--paper)",
        background_fill_secondary_dark="var(--paper)",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_border_width_dark="0px",
        block_label_text_color="var(--soft)",
        block_label_text_color_dark="var(--soft)",
        block_title_text_color="var(--soft)",
        block_title_text_color_dark="var(--soft)",
        block_info_text_color="var(--soft)",
        block_info_text_color_dark="var(--soft)",
        block_shadow="none",
        block_shadow_dark="none",
        border_color_primary="var(--line)",
        border_color_primary_dark="var(--line)",
        input_background_fill="var(--card)",
        input_background_fill_dark="var(--card)",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="var(--line)",
        input_border_color_dark="var(--line)",
        slider_color="var(--accent)",
        slider_color_dark="var(--accent)",
        button_primary_background_fill="var(--accent)",
        button_primary_background_fill_dark="var(--accent)",
        button_primary_background_fill_hover="var(--accent)",
        button_primary_background_fill_hover_dark="var(--accent)",
        button_primary_text_color="var(--paper)",
        button_primary_text_color_dark="var(--paper)",
        button_secondary_background_fill="var(--card)",
        button_secondary_background_fill_dark="var(--card)",
        button_secondary_border_color="var(--line)",
        button_secondary_border_color_dark="var(--line)",
    )


def chips(words: Sequence[str]) -> str:
    return "".join(f'<span class="chip">{escape(word)}</span>' for word in words)


def means(words: Sequence[str]) -> str:
    """The settings that follow from the slider, shown below it."""
    return f'<div class="means">This sets {chips(words)}</div>' if words else ""


def message(sentence: str) -> str:
    """A sentence in the stage, in the middle or above a result."""
    return f'<div class="message">{escape(sentence)}</div>'


def method(title: str, description: str) -> str:
    """The head of the parameters of a method."""
    return f'<div class="means"><b>{escape(title)}</b><br>{escape(description)}</div>'


def problem(sentence: str) -> str:
    """What is wrong with a setting, shown next to it."""
    return f'<div class="means">{escape(sentence)}</div>'


def seen(fitted: FittedPicture) -> str:
    """A small copy of what the model sees of the picture, and one sentence about it."""
    width, height = fitted.picture.size
    small = fitted.picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "png")
    source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    note = fitted.note or "The model sees the whole picture."
    return (
        f'<div class="seen"><img src="{source}" alt="what the model sees">'
        f"<div>{escape(note)} Its frames have {width} x {height} pixels.</div></div>"
    )


def stage(result: StoredResult) -> str:
    """One result: its verdict, both videos, their scores, the downloads and the code."""
    folder = f"results/{result.token}"
    figures = "".join(
        f'<figure class="{name}"><video src="{folder}/{name}.mp4" autoplay loop muted playsinline></video>'
        f"<figcaption>{name}</figcaption></figure>"
        for name in result.scores
    )
    columns = result.scores.values()
    rows = "".join(
        f"<tr><td>{words}</td>{''.join(f'<td>{form.format(scores[key])}</td>' for scores in columns)}</tr>"
        for key, words, form in ROWS
        if all(key in scores for scores in columns)
    )
    names = "".join(f"<th>{name}</th>" for name in result.scores)
    links = "".join(
        f'<a href="{folder}/{file}" download="unstill_{file}"{first}>{words}</a>'
        for file, words, first in (
            ("improved.mp4", "Download video", ' class="first"'),
            ("side_by_side.mp4", "Both, side by side", ""),
            ("settings.json", "Settings", ""),
            ("everything.zip", "Everything", ""),
        )
    )
    needs = " It reads picture.png, which is among Everything." if "picture.png" in result.files else ""
    note = f'<div class="note">{escape(result.note)}</div>' if result.note else ""
    return (
        f'<p class="verdict">{escape(result.verdict)}</p><div class="pair">{figures}</div>{note}'
        f"<table><thead><tr><th></th>{names}</tr></thead><tbody>{rows}</tbody></table>"
        f"{chips(result.settings)}<nav class='downloads'>{links}</nav>"
        f"<details><summary>Show the code</summary><pre>{escape(result.code)}</pre>"
        f'<div class="note">These lines make the same video again.{needs}</div></details>'
    )


def strip(history: Sequence[StoredResult]) -> str:
    """The results of this session, latest first; empty for fewer than two."""
    if len(history) < 2:
        return ""
    buttons = "".join(
        f'<button data-index="{index}" title="{escape(result.summary, quote=True)}">'
        f'<video src="results/{result.token}/improved.mp4" autoplay loop muted playsinline></video>'
        f"{escape(result.summary)}</button>"
        for index, result in enumerate(history)
    )
    return f'<h2>Made earlier</h2><div class="strip">{buttons}</div>'
