"""A running server: ten visitors at once, what it refuses, and that nothing of that ends it."""

import base64
import io
import json
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.app.visitor import META, call, config, fetch, upload
from unstill.app.limits import Limits
from unstill.data.images import resize_and_crop
from unstill.data.picture_crop import fit_picture
from unstill.data.video import read_video


gradio_client = pytest.importorskip("gradio_client")

COLOURS = [
    (220, 40, 40),
    (40, 190, 60),
    (50, 70, 220),
    (230, 220, 60),
    (60, 210, 220),
    (220, 70, 210),
    (245, 245, 245),
    (12, 12, 12),
    (120, 60, 20),
    (125, 125, 125),
]


def connect(server):
    return gradio_client.Client(server.address, verbose=False, httpx_kwargs={"timeout": 120})


def names(client):
    """Of the API's parameters, by what is written next to them on the page."""
    listed = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/animate"]["parameters"]
    found = {}
    for parameter in listed:
        found.setdefault(parameter["label"].split(",")[0], parameter["parameter_name"])
    return found


def ask(client, picture, **values):
    called = names(client)
    given = {called[label.capitalize()]: value for label, value in values.items()}
    return client.submit(**{called["Picture"]: gradio_client.handle_file(picture)}, **given, api_name="/animate")


def test_ten_visitors_at_once(server, tmp_path):
    """Everybody is served or told their place, gets their own video, and the server does not grow with them."""
    process, places = psutil.Process(server.pid), set()

    def visit(number):
        path = tmp_path / f"{number}.png"
        picture = Image.new("RGB", (120 + number, 96), COLOURS[number])
        picture.save(path)
        client = connect(server)
        job = ask(client, str(path), seed=number, steps=3, frames=2)
        while not job.done():
            status = job.status()
            if status.rank is not None:
                places.add(status.rank)
            time.sleep(0.05)
        told = job.result()[0]
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in told["files"]:
            status, body = fetch(server, f"/results/{told['token']}/{name}")
            assert status == 200
            (folder / name).write_bytes(body)
        assert np.array_equal(Image.open(folder / "picture.png"), resize_and_crop(picture, (96, 96)))
        settings = json.loads((folder / "settings.json").read_text())
        assert settings["seed"] == number and f"manual_seed({number})" in told["code"]
        shown = read_video(folder / "plain.mp4").frames[0].float().mean((1, 2)).numpy()
        return int(np.argmin([np.abs(shown - colour).sum() for colour in COLOURS]))

    with ThreadPoolExecutor(10) as visitors:
        first = visitors.submit(visit, 0).result()  # loads what is loaded once
        before = process.memory_info().rss
        rest = list(visitors.map(visit, range(1, 10)))
    assert [first, *rest] == list(range(10)), "somebody got the video of another"
    assert len(places) > 2, "nobody was told a place"
    assert process.memory_info().rss - before < 150e6


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=//etc/passwd",
        "/gradio_api/file={home}/secret.txt",
        "/gradio_api/file=secret.txt",
        "/gradio_api/file=src/unstill/app/page.py",
        "/gradio_api/file={scratch}/../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=http://127.0.0.1/",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/results/../../etc/passwd",
        "/results/..%2f..%2fetc/passwd",
        "/results/x/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/routes.py",
        "/assets/%2e%2e%2f%2e%2e%2f%2e%2e%2froutes.py",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/custom_component/1/client/component/../../../../etc/passwd",
        "/monitoring",
        "/gradio_api/vibe-code",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_file_of_the_server_is_reachable(server, path):
    status, body = fetch(server, path.format(home=server.home, scratch=server.scratch))
    assert status in (403, 404), body[:200]
    assert b"root:" not in body and b"nobody reads this" not in body and b"import" not in body


def body_of(server, **values):
    """A raw request of the API."""
    client = connect(server)
    listed = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/animate"]["parameters"]
    data = [parameter["parameter_default"] for parameter in listed]
    for label, value in values.items():
        data[next(i for i, one in enumerate(listed) if one["label"].startswith(label))] = value
    return json.dumps({"data": data}).encode()


def begin(server, body):
    return fetch(server, "/gradio_api/call/animate", body, **{"Content-Type": "application/json"})


def end(server, begun):
    """How the stream of a request's events ends."""
    return fetch(server, f"/gradio_api/call/animate/{json.loads(begun)['event_id']}")[1].decode()


def animate(server, payload):
    """With whatever stands in for the picture."""
    status, body = begin(server, body_of(server, Picture=payload, Frames=2, Steps=1))
    assert status == 200, body
    return end(server, body)


def test_whoever_comes_to_a_full_queue_is_asked_to_come_back(server, tiny):
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "png")
    given = {"path": upload(server, "red.png", picture.getvalue()), "meta": {"_type": "gradio.FileData"}}
    # The long one is made by the embedded model, so that it is still at work when the last one comes.
    long = begin(server, body_of(server, Picture=given, Frames=4, Steps=20))
    short = body_of(server, Picture=given, Model=tiny, Methods=["early_start"], Frames=2, Steps=1)
    answers = [long, *(begin(server, short) for _ in range(20))]
    served = [body for status, body in answers if status == 200]
    turned_away = [(status, body) for status, body in answers if status != 200]
    assert Limits().waiting <= len(served) <= Limits().waiting + 2 and turned_away
    assert all(status == 503 and b"full" in body for status, body in turned_away), turned_away
    assert all("event: complete" in end(server, body) for body in served)
    assert begin(server, short)[0] == 200  # and there is room again


def test_bad_requests_are_refused_and_end_nothing(server, tiny, tmp_path):
    json_ = {"Content-Type": "application/json"}
    for path, data, headers in (
        ("/gradio_api/queue/join", b"{", json_),
        ("/gradio_api/queue/join", b'{"data": [], "fn_index": 99999, "session_hash": "x"}', json_),
        ("/gradio_api/queue/join", b'{"data": [1], "fn_index": 8, "session_hash": "x"}', json_),
        ("/gradio_api/run/predict", b'{"data": {}, "fn_index": -1}', json_),
        ("/gradio_api/call/animate", b'{"data": [[[[]]]]}', json_),
        ("/gradio_api/call/nothing", b'{"data": []}', json_),
        ("/gradio_api/upload", b"not a form", {"Content-Type": "multipart/form-data; boundary=x"}),
        ("/gradio_api/upload", b"", {"Content-Type": "text/plain"}),
        ("/gradio_api/queue/join", b"x" * 1_000_001, json_),
    ):
        status, _ = fetch(server, path, data, **headers)
        assert 200 <= status < 600
    assert fetch(server, "/gradio_api/queue/join", b"x" * 1_000_001, **json_)[0] == 413

    text = tmp_path / "text.jpg"
    text.write_text("this is no picture\n")
    client = connect(server)
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^text\.jpg is not a picture"):
        ask(client, str(text)).result()
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(path)
    for values, sentence in (
        ({"seed": -5}, "seed"),
        ({"steps": 100_000}, "Steps"),
        ({"frames": 999}, "Frames"),
        ({"methods": ["no_such_method"]}, "does not fit the page"),
        ({"model": "pico", "methods": ["early_start", "analytic_init"], "steps": 1, "frames": 2}, "both decide"),
    ):
        with pytest.raises(gradio_client.exceptions.AppError, match=sentence):
            ask(client, str(path), **{"model": tiny, "methods": ["early_start"], **values}).result()
    assert ask(client, str(path), model=tiny, methods=["early_start"], steps=1, frames=2).result()[0]["verdict"]


def test_the_crop_is_what_the_visitor_chose(server, tiny, tmp_path):
    """What the preview shows, what is said of it, and what the video is made of."""
    picture = Image.new("RGB", (192, 96), "red")
    picture.paste("blue", (96, 0, 192, 96))
    path = tmp_path / "halves.png"
    picture.save(path)
    (show_crop,) = [one for one in config(server)["dependencies"] if one["api_name"] == "show_crop"]
    given = {"path": upload(server, "halves.png", path.read_bytes()), "meta": META}
    for crop, words in (
        (("auto", 50, 50), "with a blurred copy of it above and below (50% of the frame)"),
        (("centre", 50, 50), "cut off: 25% at the left and 25% at the right"),
        (("point", 0, 50), "cut off: 50% at the right"),
    ):
        status, said = call(server, "run", show_crop, [given, "pico", *crop])
        html, choice, point = json.loads(said)["data"]
        shown = Image.open(io.BytesIO(base64.b64decode(html.split("base64,")[1].split('"')[0])))
        assert status == 200 and words in html and "96 x 96 pixels" in html
        fitted = fit_picture(picture, (96, 96), crop[1:] if crop[0] == "point" else crop[0])
        assert np.array_equal(shown, fitted.picture)
        assert choice["visible"] and point["visible"] == (crop[0] == "point")
    for crop in (("point", 101, 50), ("half", 50, 50), ("point", None, 5)):
        assert "does not fit the page" in call(server, "run", show_crop, [given, "pico", *crop])[1]

    crop = {"what the model sees of the picture": "point", "from left": 100}
    values = {"model": tiny, "methods": ["early_start"], "frames": 2, "steps": 1, **crop}
    told = ask(connect(server), str(path), **values).result()[0]
    used = Image.open(io.BytesIO(fetch(server, f"/results/{told['token']}/picture.png")[1]))
    assert np.array_equal(used, fit_picture(picture, (64, 64), (100.0, 50.0)).picture)
    settings = json.loads(fetch(server, f"/results/{told['token']}/settings.json")[1])
    assert settings["crop"] == {"crop": "75,50", "seen": [96.0, 0.0, 192.0, 96.0]}


def test_a_picture_of_the_models_shape_needs_no_crop(server):
    data = io.BytesIO()
    Image.new("RGB", (300, 300), "red").save(data, "png")
    (show_crop,) = [one for one in config(server)["dependencies"] if one["api_name"] == "show_crop"]
    given = {"path": upload(server, "square.png", data.getvalue()), "meta": META}
    html, *choices = json.loads(call(server, "run", show_crop, [given, "pico", "auto", 50, 50])[1])["data"]
    assert "The model sees the whole picture." in html and not any(choice["visible"] for choice in choices)


def test_200_megabytes_are_turned_away_at_the_door(server):
    """By what the request says of itself, before a byte of the file is read."""
    host, port = server.address.removeprefix("http://").split(":")
    for length in ("Content-Length: 200000000", "Transfer-Encoding: chunked"):
        with socket.create_connection((host, int(port)), timeout=30) as line:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\n{length}\r\nContent-Type: multipart/form-data"
            line.sendall(f"{head}; boundary=x\r\n\r\n".encode())
            answer = line.recv(65536)
        assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 411"))


def test_every_answer_forbids_outside_addresses(server):
    with urllib.request.urlopen(server.address, timeout=60) as answer:
        policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
