"""What a visitor of a running server sends, as raw HTTP."""

import json
import urllib.error
import urllib.request


PATIENCE = 30  # seconds for an answer
JSON = {"Content-Type": "application/json"}
META = {"_type": "gradio.FileData"}


def fetch(server, path, data=None, **headers):
    """Status and body."""
    request = urllib.request.Request(server.address + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(server, name, data):
    """The path that the server gave an uploaded file."""
    form = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, body = fetch(server, "/gradio_api/upload", form + data + b"\r\n--x--\r\n", **kind)
    assert status == 200, body
    return json.loads(body)[0]


def config(server, **headers):
    """What the page is made of."""
    return json.loads(fetch(server, "/config", **headers)[1])


def call(server, door, function, data):
    """Status and body of one call of a page's function through one of gradio's four doors."""
    index, name = function["id"], function["api_name"]
    path, body = {
        "run": (f"/gradio_api/run/{name}", {"data": data}),
        "predict": ("/gradio_api/run/predict", {"data": data, "fn_index": index, "session_hash": "door"}),
        "call": (f"/gradio_api/call/{name}", {"data": data}),
        "join": ("/gradio_api/queue/join", {"data": data, "fn_index": index, "session_hash": f"join{index}"}),
    }[door]
    status, answer = fetch(server, path, json.dumps(body).encode(), **JSON)
    if door in ("call", "join") and status == 200:
        event = json.loads(answer)["event_id"]
        stream = {
            "call": f"/gradio_api/call/{name}/{event}",
            "join": f"/gradio_api/queue/data?session_hash=join{index}",
        }[door]
        status, answer = fetch(server, stream)
    return status, answer.decode()


DOORS = ("run", "predict", "call", "join")
