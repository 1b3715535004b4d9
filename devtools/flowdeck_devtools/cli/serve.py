"""``flowdeck serve``: flows behind HTTP."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._flows import load_flow, load_function
from flowdeck_devtools.cli._observe import observe
from flowdeck_devtools.cli._options import StoreOption

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["serve"]

TOKEN_VARIABLE = "FLOWDECK_WEB_TOKEN"


def serve(
    flows: Annotated[list[str], typer.Argument(metavar="MODULE:FLOW...", help="The flows to serve.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 for a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar=TOKEN_VARIABLE, help="What clients must know; made up when not given.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let in anybody on this machine.")] = False,
    resources: Annotated[str | None, typer.Option(metavar="MODULE:FN", help="Returns runtime resources.")] = None,
    store: StoreOption = None,
) -> None:
    """Serve flows over HTTP: start, watch as Server-Sent Events, answer, intervene, cancel. /docs describes it.

    Runs are durable: what a server that was killed left behind goes on when the next one starts.
    """
    from flowdeck import runtime
    from flowdeck.layout import resolve_store
    from flowdeck.web import FlowService, bearer
    from flowdeck.web.access import is_loopback

    if no_token and not is_loopback(host):
        raise CliError(f"--no-token: {host} is reachable from other machines; serve with a token, or on 127.0.0.1", 2)

    root = Path(resolve_store(store))
    secret = None if no_token else token or secrets.token_urlsafe(24)
    port = port or _free_port(host)
    given: Callable[[], Any] | None = load_function(resources) if resources else None
    with observe(root):
        service = FlowService(
            *(load_flow(spec) for spec in flows),
            store=root,
            runtime=runtime,
            resources=given,
            auth=None if secret is None else bearer(secret),
        )
        shown = f"[{host}]" if ":" in host else host
        _output.note(f"serving {', '.join(service.desk.flows)} on http://{shown}:{port} from {root}; Ctrl-C stops")
        if secret is not None and not (token or os.environ.get(TOKEN_VARIABLE)):
            _output.note(f"token, new each time unless {TOKEN_VARIABLE} is set: {secret}")

        try:
            service.run(host, port, log_level="warning")
        except SystemExit as leaving:
            if leaving.code:
                raise CliError(f"could not listen on {shown}:{port}; choose another with --port", 1) from None


def _free_port(host: str) -> int:
    """Return a port nobody listens on, so that it can be told before the server has it.

    Raises:
        CliError: the address is not this machine's.
    """
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            return int(probe.getsockname()[1])
    except OSError as problem:
        raise CliError(f"could not listen on {host}: {problem}; choose another with --host", 1) from None
