"""Errors in headless Chromium: each is a sentence that stays in the stage, and the page can be used again."""

import json
import socket
import threading
from types import SimpleNamespace

import pytest
import torch
import uvicorn

from tests.app.browser import CHROMIUM, DRIVER, Browser
from tests.app.test_browser import SHOWN, set_steps
from tests.app.visitor import JSON, fetch
from unstill.app.hosts import hosts_of
from unstill.app.limits import Limits
from unstill.app.result_store import ResultStore
from unstill.app.server import make_app
from unstill.app.service import Stopped, VideoService
from unstill.errors import UnstillError


pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here")

MESSAGE = "document.querySelector('#stage .message.error')?.innerText"
START, STOP = "document.querySelector('#go')?.offsetParent", "document.querySelector('#stop')?.offsetParent"
TYPE = """
const input = document.querySelector(arguments[0]).querySelector('input, textarea');
input.value = arguments[1];
for (const kind of ['input', 'change', 'blur']) input.dispatchEvent(new Event(kind, { bubbles: true }));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny):
    """A page of a server in this process, so that tests can make its runs fail or wait."""
    home = tmp_path_factory.mktemp("page")
    uploads, results = home / "uploads", home / "results"
    uploads.mkdir()
    results.mkdir()
    service = VideoService([tiny], ResultStore(results, 10**8), Limits(waiting=2), device="cpu")
    listening = socket.create_server(("127.0.0.1", 0))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TEMP_DIR", str(uploads)), ("ANALYTICS_ENABLED", "False"), ("RUN_HISTORY", "False")):
            patch.setenv(f"GRADIO_{name}", value)
        app = make_app(service, uploads, hosts=hosts_of("127.0.0.1"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()

        def end():
            server.should_exit = server.force_exit = True
            thread.join(10)

        with Browser(home) as browser:
            browser.size(1280, 900)
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield SimpleNamespace(browser=browser, service=service, uploads=uploads, address=address, end=end)
        end()


@pytest.fixture
def browser(page):
    page.browser.open(page.address)
    page.browser.wait("document.querySelector('#picture img')?.complete")
    page.browser.wait("document.querySelector('#means .chip')")
    return page.browser


def fails(browser, words):
    """Presses Start and waits for the sentence in the stage, which nothing covers, and for the button."""
    browser.click("#go")
    browser.wait(f"({MESSAGE} || '').includes({words!r})", 10)
    browser.wait(f"{START} && !{STOP}", 10)
    assert browser.run("return getComputedStyle(document.querySelector('#stage > .wrap')).display") == "none"


def test_a_prompt_with_unknown_words(browser):
    browser.run(TYPE, "#prompt", "an elephant")
    fails(browser, "pico does not know 'elephant'; its words are red")
    browser.run(TYPE, "#prompt", "a red ring")
    browser.click("#go")  # the next run replaces the sentence
    browser.wait(f"{SHOWN} === 2 && !{MESSAGE}", 20)
    browser.run(TYPE, "#prompt", "a blue elephant")
    fails(browser, "does not know 'elephant'")
    browser.wait(f"{SHOWN} === 2", 5)  # the last result is still there, below


def test_a_setting_out_of_range(browser):
    set_steps(browser, 4000)
    fails(browser, "Steps goes from 1 to 100 here, but is 4000.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("secret of the server"), "Something went wrong on the server"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory for this: ask for fewer frames"),
        (UnstillError("EarlyStart and AnalyticInit both decide."), "Early start and Analytic init both decide."),
    ],
)
def test_what_goes_wrong_on_the_server(page, browser, monkeypatch, error, words):
    def make(*_):
        raise error

    monkeypatch.setattr(page.service, "make", make)
    fails(browser, words)
    assert "secret" not in browser.text("body")
    browser.wait(
        "!document.querySelector('.toast-body')", 5
    )  # what gradio shows for a time is gone, the sentence is not
    assert words in browser.text("#stage .message")


def test_neither_a_picture_nor_a_prompt(browser):
    browser.click("#picture [aria-label='Remove Image']")
    browser.wait("!document.querySelector('#picture img')")
    fails(browser, "give one")


def test_an_upload_that_is_not_there_any_more(page, browser):
    uploaded = list(page.uploads.rglob("*.png"))
    for path in uploaded:
        path.rename(path.with_suffix(".gone"))
    try:
        fails(browser, "This picture is not on the server; upload it again.")
    finally:
        for path in uploaded:
            path.with_suffix(".gone").rename(path)


def test_a_result_that_made_room_for_later_ones(page, browser):
    set_steps(browser, 1)
    browser.click("#go")
    browser.wait(f"{START} && {SHOWN} === 2", 20)
    first = browser.run("return document.querySelector('#stage video').src")
    browser.click("#go")
    browser.wait("document.querySelectorAll('#history button').length === 2", 20)
    page.service.store._remove(first.split("/")[-2])
    browser.click("#history button[data-index='1']")
    browser.wait("document.querySelector('#stage').innerText.includes('not here any more; make it again')", 10)


def test_a_place_in_the_queue_in_words_and_a_full_queue(page, browser, monkeypatch):
    free = threading.Event()

    def make(*_):
        free.wait(30)
        raise Stopped

    monkeypatch.setattr(page.service, "make", make)
    called = json.loads(fetch(page, "/gradio_api/info")[1])["named_endpoints"]["/animate"]["parameters"]
    body = json.dumps({"data": [parameter["parameter_default"] for parameter in called]}).encode()

    def join():
        assert fetch(page, "/gradio_api/call/animate", body, **JSON)[0] == 200

    try:
        join()  # at work
        join()  # waits
        browser.click("#go")
        words = "(document.querySelector('#stage .progress-text')?.innerText || '')"
        browser.wait(f"{words}.includes('2 videos come before yours.')", 10)
        browser.click("#stop")
        browser.wait("document.querySelector('#stage').innerText.includes('Stopped')", 10)
        join()
        fails(browser, "Too many videos wait here just now: try again in a minute.")
    finally:
        free.set()


def test_a_server_that_ended(page, browser):
    page.end()
    browser.click("#go")
    browser.wait(f"({MESSAGE} || '').includes('The server cannot be reached: if it is yours, start it again')", 10)
    assert not browser.run(f"return {STOP}")
