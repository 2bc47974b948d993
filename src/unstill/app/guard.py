"""Checks of every request before it reaches gradio: sender, path, size, and the files that it names."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unstill.app.hosts import Hosts
from unstill.app.limits import Limits
from unstill.app.uploads import own_upload
from unstill.errors import UnstillError


log = logging.getLogger(__name__)

# The paths that the page uses. Other paths of gradio (monitoring, proxies, files by URL) answer 404.
OPEN = (
    "",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/pwa_icon/192",  # the sizes in the manifest; others would be made as large as a request wants
    "/pwa_icon/512",
    "/gradio_api/info",
    "/gradio_api/startup-events",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
)
RUN, CALL, FILES, UPLOAD = "/gradio_api/run/", "/gradio_api/call/", "/gradio_api/file=", "/gradio_api/upload"
OPEN_UNDER = ("/assets/", "/static/", "/results/", "/gradio_api/heartbeat/", RUN, CALL)
# The browser loads resources from this server only.
POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; " + (
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
FAULT = "Server error"
"""Title of errors that the server caused; only these are answered with status 500."""

DEEPEST = 20  # levels of lists and objects in a request; the page sends 4
SMALLEST = 65_536  # bytes that an upload counts for at least, since many small files are a load, too
NOTHING_HERE = "There is nothing here."
NOT_UNDERSTOOD = "This request does not fit the page; load the page again."

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Refused(Exception):
    """A request that is answered here and not passed to gradio."""

    def __init__(self, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


class RequestGuard:
    """
    ASGI middleware that checks requests.

    Args:
        app: the ASGI application that gets the accepted requests.
        limits: sizes of requests and uploads.
        uploads: the only folder whose files a request may name.
        hosts: accepted host names.
        users: passwords by user name; if empty, no login is needed.
        names, indices: the functions of the page, as `/run/{name}` and as `fn_index`; others are refused.
    """

    def __init__(
        self,
        app: Any,
        *,
        limits: Limits,
        uploads: Path,
        hosts: Hosts,
        users: Mapping[str, str],
        names: Iterable[str],
        indices: Iterable[int],
    ) -> None:
        self._app = app
        self._limits = limits
        self._uploads = uploads.resolve()
        self._hosts = hosts
        self._users = users
        self._names = frozenset(names)
        self._indices = frozenset(indices)
        self._arriving = 0  # bytes of uploads being received

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = Answer(scope, send)
        arriving, unread = 0, True
        try:
            await self._check_sender(scope)
            self._check_path(scope)
            if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                length = self._check_length(scope)
                if scope["path"].rstrip("/") == UPLOAD:
                    arriving = length
                    self._check_room(length)
                else:
                    body, unread = await _body(receive), False
                    scope, receive = self._checked(scope, receive, body)
        except Refused as refusal:
            if unread:
                await self._discard(scope, receive)
            await answer.refuse(refusal)
            return
        self._arriving += arriving
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:  # raised by gradio for a request that it cannot handle
            log.info("a request failed", exc_info=error)
            await answer.refuse(Refused(500 if scope["method"] == "GET" else 422, NOT_UNDERSTOOD))
        finally:
            self._arriving -= arriving

    async def _check_sender(self, scope: Message) -> None:
        hosts, origins = (_values(scope, name) for name in (b"host", b"origin"))
        if len(hosts) != 1 or not self._hosts.known(hosts[0]):
            raise Refused(
                403, "This server was not started for the name in the address; add it with --allow-host NAME."
            )
        if len(origins) > 1 or (origins and not self._hosts.same_site(origins[0], hosts[0])):
            raise Refused(403, "Pages of other sites may not use this server.")
        if self._users and not self._signed_in(scope):
            if _values(scope, b"authorization"):
                await asyncio.sleep(1)  # slows down guessing
            raise Refused(
                401, "A user name and a password are needed here.", (b"www-authenticate", b'Basic realm="unstill"')
            )

    def _signed_in(self, scope: Message) -> bool:
        given = _values(scope, b"authorization")
        kind, _, secret = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        try:
            name, _, password = base64.b64decode(secret, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        right = hmac.compare_digest(password.encode(), self._users.get(name, "").encode())
        return kind.lower() == "basic" and name in self._users and right

    def _check_path(self, scope: Message) -> None:
        path = scope["path"]
        if path.startswith(FILES):
            try:
                own_upload(path.removeprefix(FILES), self._uploads, self._limits)
            except UnstillError as error:
                raise Refused(404, NOTHING_HERE) from error
        elif path.rstrip("/") not in OPEN and not path.startswith(OPEN_UNDER):
            raise Refused(404, NOTHING_HERE)
        elif scope["method"] == "POST" and path.startswith((RUN, CALL)):
            name = path.rstrip("/").removeprefix(RUN).removeprefix(CALL)
            if name not in self._names and not (path.startswith(RUN) and name == "predict"):
                raise Refused(404, "The page has no such function.")

    def _check_length(self, scope: Message) -> int:
        lengths = _values(scope, b"content-length")
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refused(411, "Say how long the request is.")
        upload = scope["path"].rstrip("/") == UPLOAD
        most = self._limits.upload + 10_000 if upload else self._limits.message
        if int(lengths[0]) > most:
            raise Refused(413, f"This is too large: up to {most / 1e6:.0f} MB are taken.")
        return int(lengths[0])

    def _check_room(self, length: int) -> None:
        stored = sum(max(file.stat().st_size, SMALLEST) for file in self._uploads.rglob("*") if file.is_file())
        if stored + self._arriving + length > self._limits.uploads:
            raise Refused(507, "Too many pictures wait here just now: try again in some minutes.")

    def _checked(self, scope: Message, receive: Receive, body: bytes) -> tuple[Message, Receive]:
        """The request with its body written anew, so that gradio reads exactly what was checked here."""
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError("no object")
            self._check_function(asked, scope["path"])
            written = json.dumps(self._with_own_files(asked), allow_nan=False).encode("ascii")
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnstillError):
                raise Refused(404, str(error)) from error
            raise Refused(400, "A request is a JSON object with finite numbers.") from error
        # Compressed, the answer's error could not be read in `Answer`.
        changed = (b"content-length", b"accept-encoding") if scope["path"].startswith(RUN) else (b"content-length",)
        headers = [(name, value) for name, value in scope["headers"] if name not in changed]
        scope = {**scope, "headers": [*headers, (b"content-length", b"%d" % len(written))]}
        pending: list[Message] = [{"type": "http.request", "body": written, "more_body": False}]

        async def read() -> Message:
            return pending.pop() if pending else await receive()

        return scope, read

    def _check_function(self, asked: dict[str, Any], path: str) -> None:
        index = asked.get("fn_index")
        whole = isinstance(index, int) and not isinstance(index, bool)
        if index is not None and not (whole and index in self._indices):
            raise Refused(404, "The page has no such function.")
        if index is None and path.rstrip("/") in ("/gradio_api/queue/join", f"{RUN}predict"):
            raise Refused(422, "The request does not say which function of the page it calls (fn_index).")
        if "data" in asked and not isinstance(asked["data"], list):
            raise Refused(422, "The values of a request (data) are a list.")

    def _with_own_files(self, value: Any, depth: int = 0) -> Any:
        """
        A copy of the data in which files are reduced to the path of an upload.

        Raises:
            UnstillError: a path that is not that of an upload.
        """
        if depth > DEEPEST:
            raise Refused(400, f"A request has at most {DEEPEST} levels of lists and objects.")
        if isinstance(value, list):
            return [self._with_own_files(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        if "path" in value:
            path = own_upload(value["path"], self._uploads, self._limits)
            return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
        return {key: self._with_own_files(item, depth + 1) for key, item in value.items()}

    async def _discard(self, scope: Message, receive: Receive) -> None:
        """Reads the rest of a small refused request: a client that is cut off while sending misses the answer."""
        lengths = _values(scope, b"content-length")
        if len(lengths) == 1 and lengths[0].isdigit() and int(lengths[0]) <= self._limits.upload:
            while (await receive()).get("more_body"):
                pass


class Answer:
    """Sends the answer of gradio with our headers, and with status 422 for errors that the request caused."""

    def __init__(self, scope: Message, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._started = False
        self._failed: Message | None = None  # the start of an answer of status 500, kept until its body is known
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] == 500 and self._scope["method"] == "POST":
                self._failed = message
                return
            await self._start(message)
        elif self._failed is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_error(self._failed)

    async def refuse(self, refusal: Refused) -> None:
        """Answers with a sentence, unless an answer has started."""
        if self._started:
            return
        kind, body = b"text/plain; charset=utf-8", refusal.sentence.encode()
        if self._scope["method"] == "POST" and self._scope["path"].rstrip("/") != UPLOAD:  # gradio's page reads JSON
            kind, body = b"application/json", json.dumps({"detail": refusal.sentence}).encode()
        headers = [(b"content-type", kind), (b"connection", b"close"), *refusal.headers]
        await self._start({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, message: Message) -> None:
        self._started = True
        # Other sites may not use this server, so gradio's CORS headers are removed.
        kept = [(name, value) for name, value in message.get("headers", ()) if not name.startswith(b"access-control-")]
        policy = POLICY + "; sandbox" if self._scope["path"].startswith(FILES) else POLICY
        headers = [*kept, (b"content-security-policy", policy.encode()), *HEADERS]
        await self._send({**message, "headers": headers})

    async def _send_error(self, start: Message) -> None:
        """Gradio answers every error with 500; those that the request caused are changed to 422."""
        try:
            answer = json.loads(bytes(self._body))
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "title" not in answer:
            await self.refuse(Refused(422, NOT_UNDERSTOOD))
            return
        await self._start({**start, "status": 500 if answer["title"] == FAULT else 422})
        await self._send({"type": "http.response.body", "body": bytes(self._body)})


async def _body(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request broke off.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _values(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
