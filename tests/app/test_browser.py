"""The page in headless Chromium: a visit from the first look to the download, by day, by night and on a phone.

With UNSTILL_SCREENSHOTS=docs/app it also renews the pictures of docs/app.md.
"""

import json
import os
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.app.browser import CHROMIUM, DRIVER, Browser
from tests.app.visitor import fetch
from unstill.data.video import read_video


pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here")

ERROR = "document.querySelector('#stage .message.error')?.innerText"
VIDEOS = "[...document.querySelectorAll('#stage video')]"
SHOWN = f"{VIDEOS}.filter((video) => video.readyState >= 2 && video.videoWidth).length"
AT_THE_VIDEO = """
const box = document.querySelector('#stage video').getBoundingClientRect();
return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2).tagName;
"""
SET = """
const label = arguments[0], value = arguments[1];
const block = [...document.querySelectorAll('#advanced label, #motion')].find(
  (one) => one.id === label || one.innerText.trim().startsWith(label));
const input = block.querySelector('input');
input.value = value;
for (const kind of ['input', 'change', 'blur']) input.dispatchEvent(new Event(kind, { bubbles: true }));
"""


def set_steps(browser, steps):
    if not browser.run("return document.querySelector('#methods')?.offsetParent"):
        browser.click("#advanced button")  # what is in there is made when it opens
        browser.wait("document.querySelector('#methods')?.offsetParent")
    browser.run(SET, "Steps", str(steps))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(server, downloads):
    with Browser(downloads) as opened:
        opened.size(1280, 900)
        opened.open(server.address)
        opened.wait("document.querySelector('#picture img')?.complete", 120)
        opened.wait("document.querySelector('#means .chip')")
        yield opened
        here = (server.address, "data:", "blob:")
        asked = [address for address in opened.requests() if not address.startswith(here)]
        assert not asked, "the page asked for something elsewhere"


def keep(browser, name):
    if folder := os.environ.get("UNSTILL_SCREENSHOTS"):
        path = Path(folder, f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        browser.picture(path)
        picture = Image.open(path).convert("RGB")
        picture.save(path.with_suffix(".webp"), quality=85)
        path.unlink()


def await_file(browser, folder, name):
    browser.wait("true")
    for _ in range(100):
        if (folder / name).exists():
            return folder / name
        browser.run("return new Promise((done) => setTimeout(done, 100))")
    raise AssertionError(f"{name} was not downloaded; there is {list(folder.iterdir())}")


def test_a_visit(browser, downloads, tmp_path):
    photo = Image.new("RGB", (400, 300), (90, 140, 200))
    ImageDraw.Draw(photo).ellipse((120, 80, 260, 220), fill=(240, 200, 60))
    photo.save(tmp_path / "photo.jpg", quality=95)
    before = browser.run("return document.querySelector('#picture img').src")
    keep(browser, "first")
    browser.type("#picture input[type=file]", str(tmp_path / "photo.jpg"))
    browser.wait(f"(document.querySelector('#picture img')?.src || {before!r}) !== {before!r}")

    browser.wait("document.querySelector('#crop-choice')?.offsetParent")  # 4:3 does not fit a square
    assert "The model sees 75% of the picture" in browser.text("#seen")
    browser.click("#crop-choice input[value=fit]")
    browser.wait("document.querySelector('#seen').innerText.includes('The model sees the whole picture')")
    keep(browser, "crop")

    browser.run(SET, "motion", "0.8")
    browser.wait("document.querySelector('#means').innerText.includes('Analytic init, sigma 6.6')")
    if not os.environ.get("UNSTILL_SCREENSHOTS"):
        set_steps(browser, 4)
    browser.click("#go")
    browser.wait("document.querySelector('#stop')?.offsetParent")
    browser.wait(f"{SHOWN} === 2", 120)
    assert "video" in browser.text("#stage .verdict") and "keeps the picture's colours" in browser.text("#stage table")
    sources = browser.run(f"return {VIDEOS}.map((video) => video.src)")
    assert sources[0].endswith("plain.mp4") and sources[1].endswith("improved.mp4")
    browser.wait(f"{VIDEOS}.every((video) => video.currentTime > 0)")
    assert browser.run(AT_THE_VIDEO) == "VIDEO"  # nothing of the progress lies over it

    browser.click("#stage .downloads a.first")
    assert len(read_video(await_file(browser, downloads, "unstill_improved.mp4"))) == 16
    browser.click("#stage .downloads a[href$='settings.json']")
    settings = json.loads(await_file(browser, downloads, "unstill_settings.json").read_text())
    assert settings["call"].get("motion") is None and settings["methods"][0]["parameters"]["sigma"] == 6.6
    browser.click("#stage summary")
    assert "unstill.apply(pipe, unstill.AnalyticInit(" in browser.text("#stage pre")


def test_a_stopped_run_and_the_next_one(browser):
    set_steps(browser, 100)
    browser.click("#go")
    browser.wait("document.querySelector('#stage').innerText.includes('/100')")  # it is at work, and says where
    keep(browser, "running")
    browser.click("#stop")
    browser.wait("document.querySelector('#stage').innerText.includes('Stopped')")
    browser.wait("document.querySelector('#go')?.offsetParent")
    set_steps(browser, 2)
    browser.click("#go")
    browser.wait(f"{SHOWN} === 2", 120)
    browser.wait("document.querySelectorAll('#history button').length === 2")
    source = browser.run("return document.querySelector('#stage video').src")
    browser.click("#history button[data-index='1']")
    browser.wait(f"document.querySelector('#stage video').src !== {source!r}")


def test_what_is_no_picture_is_refused(browser, tmp_path):
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(200_000_000)
    (tmp_path / "text.jpg").write_text("this is no picture\n")
    for name, place, words in (
        ("large.png", ERROR, "exceed the maximum allowed size"),
        ("text.jpg", "document.querySelector('#note').innerText.trim()", "text.jpg is not a picture"),
    ):
        browser.type("#picture input[type=file]", str(tmp_path / name))
        browser.wait(f"({place} || '').includes({words!r})")
    browser.wait("document.querySelector('#picture img') === null")
    browser.wait("document.querySelector('#go')?.offsetParent")


def test_words_and_layout(browser, server):
    assert "a red ring" in browser.run(
        "return document.querySelector('#prompt').querySelector('textarea').placeholder"
    )
    for end, word in (("min", "still"), ("max", "lively")):
        script = f"return getComputedStyle(document.querySelector('#motion .{end}_value'), '::after').content"
        assert browser.run(script) == f'"{word}"'
    set_steps(browser, 2)
    browser.run("scrollTo(0, 700)")  # far down in the settings the video is still to be seen
    assert browser.run("return document.querySelector('#stage').getBoundingClientRect().top") == 24
    browser.run("scrollTo(0, 0)")
    browser.size(1920, 900)
    left, right = browser.run(
        "const box = document.querySelector('main').getBoundingClientRect(); return [box.x, box.right]"
    )
    browser.size(1280, 900)
    assert left == 1920 - right
    icons = json.loads(fetch(server, "/manifest.json")[1])["icons"]
    assert [fetch(server, icon["src"])[0] for icon in icons] == [200, 200]
    assert fetch(server, "/pwa_icon/100000")[0] == 404


def test_by_night_and_on_a_phone(browser, server):
    browser.size(390, 844, mobile=True)
    browser.open(server.address)
    browser.wait("document.querySelector('#means .chip')", 120)
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    keep(browser, "phone")
    browser.size(1280, 900)
    if os.environ.get("UNSTILL_SCREENSHOTS"):
        browser.open(server.address)
        browser.click("#go")
        browser.wait(f"{SHOWN} === 2", 120)
        keep(browser, "made")
    browser.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(server.address)
    browser.wait("document.querySelector('#means .chip')", 120)
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(20, 23, 26)"
    if os.environ.get("UNSTILL_SCREENSHOTS"):
        browser.click("#go")
        browser.wait(f"{SHOWN} === 2", 120)
        keep(browser, "dark")
