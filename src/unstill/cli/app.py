"""`unstill app`: the app, a web page served from this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from unstill.cli.shared_options import device_option, offload_option


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that visitors may choose: a name or a local folder. Repeatable; the first is shown."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for your network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 7860,
    device: Annotated[str | None, device_option()] = None,
    offload: Annotated[bool, offload_option()] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further host name in requests that is accepted, such as that of a proxy. Repeatable."),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(help="Ask visitors for a password: USER:PASSWORD, or a file with one such line for each user."),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """
    Serve the app: a web page that animates pictures.

    Upload a picture, choose how much should move, see the plain and the improved video side by side, download the
    video and the code that makes it again. Nothing is sent to other machines.
    """
    from importlib.util import find_spec

    from unstill.errors import UnstillError

    if find_spec("gradio") is None:
        raise UnstillError("The app needs gradio: python -m pip install 'unstill[app]'.")
    from unstill.app.hosts import is_loopback
    from unstill.app.server import serve
    from unstill.app.users import users_of
    from unstill.cli.output import silence_libraries

    def ready(address: str) -> None:
        typer.echo(f"unstill is at {address} (Ctrl-C ends it).", err=True)
        if browser:
            import webbrowser

            webbrowser.open(address)

    silence_libraries()
    users = users_of(auth) if auth is not None else {}
    if not users and not is_loopback(host):
        typer.echo(
            f"Warning: everybody who can reach {host} can use the app; require a password with --auth.", err=True
        )
    serve(
        model or ["pico"],
        host=host,
        port=port,
        device=device,
        offload=offload,
        allowed_hosts=allow_host or (),
        users=users,
        ready=ready,
    )
