"""What visitors may not do: read other files, stop the server, come from other sites, come in without the password."""

import base64
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.app.conftest import running
from tests.app.visitor import DOORS, JSON, META, call, config, fetch, upload
from unstill.app.hosts import hosts_of, is_loopback
from unstill.app.limits import Limits
from unstill.app.page import WENT_WRONG
from unstill.app.users import users_of
from unstill.errors import UnstillError


def a_picture(colour="red", size=(64, 64)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "png")
    return data.getvalue()


def content(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def outside(server):
    """Paths that no visitor may name, by what is wrong with them; the picture of `real` is a valid one."""
    home, uploads = Path(server.home), server.uploads
    real = home / "private.png"
    real.write_bytes(a_picture("blue"))
    uploaded = Path(upload(server, "red.png", a_picture()))
    made = {"link": uploads / "link.png", "folder": uploads / "folder.png", "pipe": uploads / "pipe.png"}
    made["link"].symlink_to(real)
    made["folder"].mkdir()
    os.mkfifo(made["pipe"])
    made["linked folder"] = uploads / "home"
    made["linked folder"].symlink_to(home)
    made["large"] = uploads / "large.png"
    with made["large"].open("wb") as file:
        file.truncate(Limits().upload + 1)
    yield {
        "real": str(real),
        "relative": "private.png",
        "dots": f"{uploaded.parent}/../../../../{home.name}/private.png",
        "null byte": f"{uploaded}\0.png",
        "device": "/dev/zero",
        "vanished": str(uploaded.with_name("vanished.png")),
        "beside the folder": f"{uploads}-other/red.png",
        "address": "http://127.0.0.1:9/x.png",
        "file address": f"file://{real}",
        "too long": "a" * 5000,
        "no text": 7,
        "empty": "",
        **{name: str(path) for name, path in made.items() if name != "linked folder"},
        "below a linked folder": str(made["linked folder"] / "private.png"),
    }
    for path in made.values():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_no_function_takes_a_file_that_was_not_uploaded(server, outside):
    """Every function that gradio lists, in every place of its values, by every way to call it."""
    before, functions = content(server.uploads), config(server)["dependencies"]
    assert {"check_upload", "show_crop", "animate"} <= {function["api_name"] for function in functions}
    for function in functions:
        for place in range(max(1, len(function["inputs"]))):
            for door in DOORS if place == 0 else ("run",):
                for wrong, path in outside.items():
                    for extra in ({}, {"is_stream": True}, {"url": "http://127.0.0.1:9/x.png"}):
                        if extra and (place or wrong != "real"):
                            continue
                        data: list = [None] * max(1, len(function["inputs"]))
                        data[place] = {"path": path, "meta": META, **extra}
                        began = time.monotonic()
                        status, said = call(server, door, function, data)
                        where = (function["api_name"], place, door, wrong)
                        sentence = "This picture is not on the server; upload it again."
                        if not function["backend_fn"]:  # it runs in the browser only
                            sentence = "The page has no such function."
                        refused = {"detail": sentence}
                        assert (status, json.loads(said)) == (404, refused), where
                        assert time.monotonic() - began < 5, where
    assert content(server.uploads) == before, "something was copied"


def test_a_file_in_any_other_part_of_a_request(server, outside):
    file = {"path": outside["real"], "meta": META}
    for body in (
        {"data": [[{"deep": [file]}]]},
        {"data": [], "event_data": file},
        {"data": [None], "session_hash": "x", "trigger_id": 1, "more": {"a": file}},
    ):
        assert fetch(server, "/gradio_api/run/check_upload", json.dumps(body).encode(), **JSON)[0] == 404
    # Written twice, the second one counts: for the check and for gradio.
    uploaded = json.dumps(upload(server, "red.png", a_picture()))
    twice = f'{{"data": [{{"path": {uploaded}, "path": "{outside["real"]}", "meta": {json.dumps(META)}}}]}}'
    assert fetch(server, "/gradio_api/run/check_upload", twice.encode(), **JSON)[0] == 404
    utf16 = json.dumps({"data": [file]}).encode("utf-16")
    assert fetch(server, "/gradio_api/run/check_upload", utf16, **JSON)[0] == 404


def test_an_uploaded_picture_is_taken(server):
    (check_upload,) = [one for one in config(server)["dependencies"] if one["api_name"] == "check_upload"]
    path = upload(server, "red.png", a_picture())
    for door in DOORS:
        for extra in ({}, {"url": f"{server.address}/gradio_api/file={path}", "orig_name": "red.png", "size": 9}):
            status, said = call(server, door, check_upload, [{"path": path, "meta": META, **extra}])
            assert status == 200 and "image.png" in said, said


HOSTILE = {
    "null": None,
    "empty text": "",
    "null byte": "\0",
    "half a character": "\ud800",
    "long text": "x" * 100_000,
    "path": "../../../etc/passwd",
    "markup": "<script>alert(1)</script>",
    "minus one": -1,
    "huge": 10**400,
    "large": 1e308,
    "true": True,
    "list": [],
    "object": {},
    "deep": json.loads("[" * 15 + "]" * 15),
    "address": {"url": "http://127.0.0.1:9/x.png", "meta": META},
    "event": {"index": 10**9},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_function_answers_hostile_values_with_a_sentence(server, kind):
    """All that gradio lists, so that a new function cannot be forgotten."""
    value = HOSTILE[kind]
    for function in config(server)["dependencies"]:
        count = len(function["inputs"])
        for data in ([value] * count, [value] * (count + 3), []):
            for door in ("predict", "join"):
                status, said = call(server, door, function, data)
                where = (function["api_name"], door, data[:1], said[:500])
                assert status < 500 and WENT_WRONG not in said and "Traceback" not in said, where
                assert "Original error" not in said and server.scratch not in said.replace(str(server.uploads), "")
                if status != 200:
                    told = said
                    if said.startswith("{"):  # of gradio, or of the guard
                        answer = json.loads(said)
                        told = answer["error"] if "error" in answer else answer["detail"]
                    assert told.endswith(".") and len(told) < 400, where
    assert fetch(server, "/")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/gradio_api/run/check_upload", b"", 400),
        ("/gradio_api/run/check_upload", b"{", 400),
        ("/gradio_api/run/check_upload", b"[]", 400),
        ("/gradio_api/run/check_upload", b'{"data": [NaN]}', 400),
        ("/gradio_api/run/check_upload", b'{"data": [1e999]}', 400),
        ("/gradio_api/run/check_upload", b'{"data": ' + b"[" * 30 + b"]" * 30 + b"}", 400),
        ("/gradio_api/run/check_upload", b"[" * 900_000, 400),
        ("/gradio_api/run/check_upload", b'{"data": "x"}', 422),
        ("/gradio_api/run/check_upload", b'{"data": []}', 422),
        ("/gradio_api/run/check_upload", b"\xff\xfe\xfd", 400),
        ("/gradio_api/run/predict", b'{"data": []}', 422),
        ("/gradio_api/run/predict", b'{"data": [], "fn_index": -1}', 404),
        ("/gradio_api/run/predict", b'{"data": [], "fn_index": true}', 404),
        ("/gradio_api/run/nothing", b'{"data": []}', 404),
        ("/gradio_api/call/nothing", b'{"data": []}', 404),
        ("/gradio_api/call/v2/animate", b'{"data": []}', 404),
        ("/gradio_api/queue/join", b'{"data": []}', 422),
        ("/gradio_api/queue/join", b'{"data": [], "fn_index": 99999, "session_hash": "x"}', 404),
        ("/gradio_api/queue/join", b'{"data": [], "fn_index": 0}', 400),
        ("/gradio_api/component_server", b'{"data": []}', 404),
        ("/gradio_api/stream/x", b'{"data": []}', 404),
        ("/gradio_api/cancel", b"{}", 422),
        ("/gradio_api/file=/etc/passwd%00.png", None, 404),
        ("/gradio_api/file=/dev/zero", None, 404),
        ("/results/%00/%00", None, 404),
    ],
)
def test_a_request_that_cannot_be_is_of_the_4xx_kind(server, path, body, status):
    answered, said = fetch(server, path, body, **JSON)
    assert answered == status and said and b"Internal Server Error" not in said, said


def test_uploads_without_a_name_and_many_small_ones(server):
    assert upload(server, "", a_picture())
    assert upload(server, "../../evil.png", a_picture()).startswith(str(server.uploads))
    for name in ("\0.png", "a" * 400 + ".png", "..", "."):
        form = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\nx\r\n--x--\r\n'.encode()
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        status, said = fetch(server, "/gradio_api/upload", form, **kind)
        assert status < 500, (name, said)
    assert not list(Path(server.scratch).parent.rglob("evil*")) or all(
        path.is_relative_to(server.uploads) for path in Path(server.scratch).parent.rglob("evil*")
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "192.168.1.7:7860"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "[::1]:7860"}, 200),
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 200),
        ({"Host": "localhost:7860", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:7860", "Origin": "http://127.0.0.1:7860"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://[::1"}, 403),
    ],
)
def test_only_the_servers_own_pages_ask_it(server, headers, status):
    for path, body in (("/", None), ("/config", None), ("/gradio_api/upload", b"x"), ("/results/a/b", None)):
        answered, said = fetch(server, path, body, **headers)
        if status == 403:
            assert answered == 403 and said.endswith(b"."), (path, said)
        elif body is None and path != "/results/a/b":
            assert answered == 200


def test_no_answer_opens_itself_to_other_sites(server):
    import urllib.request

    request = urllib.request.Request(f"{server.address}/config", headers={"Origin": server.address})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_names_of_a_server():
    lan = hosts_of("0.0.0.0")
    assert lan.known("192.168.1.7:7860") and lan.known("localhost") and not lan.known("evil.example")
    behind = hosts_of("127.0.0.1", ["Film.Example"])
    assert behind.known("film.example") and not behind.known("10.0.0.1")
    assert behind.same_site("https://film.example", "127.0.0.1:7860")  # a proxy that names the server behind it
    assert not behind.same_site("https://other.example", "127.0.0.1:7860")
    assert is_loopback("localhost") and is_loopback("127.0.0.2") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("film.example")


def test_with_a_password_nothing_is_reached_without(tmp_path, tiny):
    (tmp_path / "users").write_text("ada:long enough\n\nbob:x:y\n")
    (tmp_path / "scratch").mkdir()
    options = "--model", tiny, "--host", "0.0.0.0", "--auth", "users", "--allow-host", "a.b"
    with running(tmp_path, tmp_path / "scratch", *options) as server:
        assert "Warning" not in "".join(server.said)
        right = {"Authorization": "Basic " + base64.b64encode(b"bob:x:y").decode()}
        page = config(server, **right)
        index = page["dependencies"][0]["id"]
        uploaded = f"{server.uploads}/{next(server.uploads.rglob('*.png')).relative_to(server.uploads)}"
        paths: list[tuple[str, bytes | None]] = [
            ("/", None),
            ("/config", None),
            ("/theme.css", None),
            ("/gradio_api/info", None),
            ("/gradio_api/startup-events", None),
            ("/gradio_api/heartbeat/x", None),
            ("/gradio_api/queue/data?session_hash=x", None),
            ("/gradio_api/upload_progress?upload_id=x", None),
            ("/gradio_api/upload", b"x"),
            ("/gradio_api/cancel", b"{}"),
            ("/gradio_api/reset", b"{}"),
            ("/gradio_api/queue/join", json.dumps({"data": [], "fn_index": index, "session_hash": "x"}).encode()),
            (f"/gradio_api/file={uploaded}", None),
            ("/results/a/b", None),
            *((f"/gradio_api/run/{one['api_name']}", b'{"data": []}') for one in page["dependencies"]),
            *((f"/gradio_api/call/{one['api_name']}", b'{"data": []}') for one in page["dependencies"]),
        ]
        for path, body in paths:
            status, said = fetch(server, path, body, **JSON)
            assert status == 401 and b"password" in said, path
        wrong = [b"bob:x", b"bob:", b"eve:x:y", b":", b"ada:long enough "]
        headers = [
            *("Basic " + base64.b64encode(each).decode() for each in wrong),
            *("Basic", "Basic \xff", "Bearer x", right["Authorization"].replace("Basic", "Digest")),
        ]
        with ThreadPoolExecutor(len(headers)) as pool:  # an answer takes a second
            answers = list(pool.map(lambda header: fetch(server, "/config", Authorization=header)[0], headers))
        assert answers == [401] * len(headers)
        assert fetch(server, f"/gradio_api/file={uploaded}", **right)[0] == 200
        assert fetch(server, "/config", Host="a.b", **right)[0] == 200
        gradio_client = pytest.importorskip("gradio_client")
        client = gradio_client.Client(server.address, verbose=False, httpx_kwargs={"auth": ("ada", "long enough")})
        path = tmp_path / "red.png"
        path.write_bytes(a_picture())
        with pytest.raises(gradio_client.exceptions.AppError, match="goes from"):
            client.predict(param_1=gradio_client.handle_file(str(path)), param_9=10**6, api_name="/animate")


@pytest.mark.parametrize("given", ["", "ada", ":secret", "ada:", "/", "\0", "a" * 5000])
def test_what_is_no_user_is_one_sentence(given):
    with pytest.raises(UnstillError, match=r"^--auth takes USER:PASSWORD") as caught:
        users_of(given)
    assert "secret" not in str(caught.value)
