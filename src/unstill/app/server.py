"""The web server of the app: serves the page, its API, and results by their token; no other files."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unstill.app.guard import RequestGuard
from unstill.app.hosts import Hosts, hosts_of
from unstill.app.limits import Limits
from unstill.app.scratch import scratch_folder
from unstill.errors import UnstillError


def serve(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str | None = None,
    offload: bool = False,
    allowed_hosts: Sequence[str] = (),
    users: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """
    Serves the page until Ctrl-C or SIGTERM; leaves no files behind.

    Args:
        models: names or local folders that are offered.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        device, offload: see `unstill.load`.
        allowed_hosts: accepted host names besides those of this machine and `host`.
        users: passwords by user name; `None` needs no login.
        limits: of requests and of the server.
        ready: called with the address when the page can be opened.

    Raises:
        UnstillError: gradio is missing, the port is taken, an unknown model.
    """
    listening = _listen(host, port)  # before the slow imports, so that a taken port is reported at once
    limits = limits or Limits()
    with scratch_folder() as folder:
        uploads, results = folder / "uploads", folder / "results"
        uploads.mkdir()
        results.mkdir()
        os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
        import uvicorn

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                # Cutting the connections of open pages is no reason for a traceback.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
                service.closed.set()
                await super().shutdown(sockets)

        from unstill.app.result_store import ResultStore
        from unstill.app.service import VideoService

        service = VideoService(models, ResultStore(results, limits.results), limits, device=device, offload=offload)
        app = make_app(service, uploads, hosts=hosts_of(host, allowed_hosts), users=users)
        threading.Thread(target=service.preload, daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        try:
            Server(config).run(sockets=[listening])
        finally:
            service.close()


def make_app(service: Any, uploads: Path, *, hosts: Hosts, users: Mapping[str, str] | None = None) -> Any:
    """
    The ASGI application.

    Args:
        service: a `VideoService`.
        uploads: gradio's folder, `GRADIO_TEMP_DIR`.
        hosts: accepted host names.
        users: passwords by user name; `None` needs no login.
    """
    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from unstill.app import html
    from unstill.app.page import build

    outer = FastAPI(openapi_url=None)

    @outer.get("/results/{token}/{name}")
    def result(token: str, name: str) -> FileResponse:
        try:
            return FileResponse(service.store.find(token, name))
        except UnstillError as error:
            raise HTTPException(404, str(error)) from error

    page = build(service)
    gr.mount_gradio_app(
        outer,
        page,
        path="/",
        favicon_path=html.ICON,
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=True,
        max_file_size=service.limits.upload,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=html.theme(),
        head=f"<style>{html.STYLE.read_text()}</style>",  # gradio would rewrite it as css=
    )
    called = {index: function for index, function in page.fns.items() if function.fn}  # others run in the browser
    outer.add_middleware(
        RequestGuard,
        limits=service.limits,
        uploads=uploads,
        hosts=hosts,
        users=users or {},
        names=[str(function.api_name) for function in called.values() if function.api_name],
        indices=called,
    )
    return outer


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)  # connections before the server is ready wait
    except OSError as error:
        raise UnstillError(
            f"{host}:{port} cannot be used ({error.strerror}); name another --port, or 0 for a free one."
        ) from error
    return listening
