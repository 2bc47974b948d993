"""The page on the net: a server that opens no more than the page needs, and no file but results by their token."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from unstill.app.limits import Limits
from unstill.errors import UnstillError


# What the page asks for. Whatever else gradio could answer (monitoring, proxies, addresses as files) is not there.
OPEN = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/gradio_api/info",
    "/gradio_api/startup-events",
)
OPEN_UNDER = (
    "/assets/",
    "/static/",
    "/results/",
    "/gradio_api/heartbeat/",
    "/gradio_api/queue/",
    "/gradio_api/run/",
    "/gradio_api/call/",
)
OPEN_EXACT = ("/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/cancel", "/gradio_api/reset")
FILES = "/gradio_api/file="
# The reader's browser fetches nothing from anywhere else, whatever the page or gradio's code says.
POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; " + (
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Door:
    """Everything comes through here: unknown paths, too much at once and files of others are turned away."""

    def __init__(self, app: Any, limits: Limits, uploads: Path) -> None:
        self._app = app
        self._limits = limits
        self._uploads = uploads.resolve()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, with_headers)
            return
        await self._read(scope, receive)
        status, sentence = refusal
        kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await with_headers({"type": "http.response.start", "status": status, "headers": kind})
        await send({"type": "http.response.body", "body": sentence.encode()})

    async def _read(self, scope: dict[str, Any], receive: Any) -> None:
        """What was sent of a refused request, if it is little: cut off while it writes, a client misses the answer."""
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) <= self._limits.upload:
            while (await receive()).get("more_body"):
                pass

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        path, headers = scope["path"], dict(scope["headers"])
        if path.startswith(FILES):
            if not Path(path.removeprefix(FILES)).resolve().is_relative_to(self._uploads):
                return 404, "There is nothing here."
        elif path.rstrip("/") not in (*OPEN, *OPEN_EXACT, "") and not path.startswith(OPEN_UNDER):
            return 404, "There is nothing here."
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411, "Say how long the request is."
        upload = path.rstrip("/") == "/gradio_api/upload"
        most = self._limits.upload + 10_000 if upload else self._limits.message
        if int(length) > most:
            return 413, f"This is too large: up to {most / 1e6:.0f} MB are taken."
        if upload and _size(self._uploads) + int(length) > self._limits.uploads:
            return 507, "Too many pictures wait here just now: try again in some minutes."
        return None


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def serve(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str | None = None,
    offload: bool = False,
    limits: Limits | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """
    Serves the page until Ctrl-C; leaves nothing on the disk.

    Args:
        models: names or local folders that visitors may choose from.
        port: where; 0 takes a free one.
        device, offload: as of `unstill.load`.
        ready: is told the address when the page can be opened.

    Raises:
        UnstillError: gradio is missing, the port is taken, an unknown model.
    """
    listening = _listen(host, port)  # before the long imports: a taken port is said at once
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="unstill-app-", ignore_cleanup_errors=True) as folder:
        uploads, results = Path(folder, "uploads"), Path(folder, "results")
        uploads.mkdir()
        results.mkdir()
        os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
        import uvicorn

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                # Open pages hold a line that is cut now: no reason for a traceback.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
                await super().shutdown(sockets)

        from unstill.app.shelf import Shelf
        from unstill.app.studio import Studio

        studio = Studio(models, Shelf(results, limits.results), limits, device=device, offload=offload)
        app = make_app(studio, uploads)
        threading.Thread(target=studio.warm, daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        try:
            Server(config).run(sockets=[listening])
        finally:
            studio.closed.set()


def make_app(studio: Any, uploads: Path) -> Any:
    """The ASGI application of a studio; `uploads` is gradio's folder, `GRADIO_TEMP_DIR`."""
    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from unstill.app import look
    from unstill.app.page import build

    outer = FastAPI(openapi_url=None)

    @outer.get("/results/{token}/{name}")
    def result(token: str, name: str) -> FileResponse:
        try:
            return FileResponse(studio.shelf.find(token, name))
        except UnstillError as error:
            raise HTTPException(404, str(error)) from error

    gr.mount_gradio_app(
        outer,
        build(studio),
        path="/",
        favicon_path=look.ICON,
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=True,
        max_file_size=studio.limits.upload,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=look.theme(),
        head=f"<style>{look.STYLE.read_text()}</style>",  # as css= gradio would rewrite it
    )
    outer.add_middleware(Door, limits=studio.limits, uploads=uploads)
    return outer


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)  # who comes early waits
    except OSError as error:
        raise UnstillError(
            f"{host}:{port} cannot be used ({error.strerror}); name another --port, or 0 for a free one."
        ) from error
    return listening
