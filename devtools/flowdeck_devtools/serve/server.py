"""The server behind ``flowdeck devtools --serve``: one DevTools process per browser tab, drawn there by textual-serve.

Whoever may look may also answer and cancel, so: it binds to 127.0.0.1 and nothing else; every request needs the token
(once in the address, afterwards in a cookie that scripts cannot read and other sites do not send); a request by another
host name or from another origin is refused, so that no page on the web can reach it; the page loads nothing from
elsewhere and holds no secret.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

from flowdeck.errors import FlowdeckError

__all__ = ["PORT", "TOKEN_VARIABLE", "DevToolsServer", "ServeError", "serve_devtools"]

PORT = 8611
HOST = "127.0.0.1"
TOKEN_VARIABLE = "FLOWDECK_DEVTOOLS_TOKEN"
SHORTEST_TOKEN = 16
MOST_WINDOWS = 8
"""Browser tabs at once: each is a process of some 60 MB."""
_COOKIE = "flowdeck_devtools"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        "img-src 'self' data:; connect-src 'self' ws://127.0.0.1:* ws://localhost:*; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ServeError(FlowdeckError):
    """DevTools cannot be served; the message names the mend."""


class DevToolsServer(Server):
    """Serves DevTools on a store. ``url`` opens it."""

    def __init__(self, command: list[str], bound: socket.socket, token: str) -> None:
        self._socket = bound
        port = int(bound.getsockname()[1])
        own = Path(__file__).with_name("page")
        super().__init__(shlex.join(command), host=HOST, port=port, title="Flowdeck", templates_path=own)
        self.token = token
        self._own = own
        self._cookie = f"{_COOKIE}_{port}"
        self._windows = 0

    @property
    def url(self) -> str:
        """The address that opens it, with the token."""
        return f"{self.public_url}/?token={self.token}"

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.router.add_static("/page", self._own)
        app.middlewares.append(self._guard)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Nothing: the greeting of textual-serve would show paths, and comes before anybody can connect."""

    def serve(self, debug: bool = False) -> None:
        """Serve until SIGINT or SIGTERM; where it is, is said once it can be reached."""
        web.run_app(self._make_app(), sock=self._socket, print=self._announce, access_log=None)

    def _announce(self, *_: object) -> None:
        sys.stdout.write(f"DevTools: {self.url}\nOnly this machine can reach it. Ctrl-C ends it; runs go on.\n")
        sys.stdout.flush()

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if self._windows >= MOST_WINDOWS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_WINDOWS} windows are open: close one\n")
        self._windows += 1
        try:
            return await super().handle_websocket(request)
        finally:
            self._windows -= 1

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        names = {f"{HOST}:{self.port}", f"localhost:{self.port}"}
        origin = request.headers.get("Origin")
        if request.host not in names or (origin is not None and urlsplit(origin).netloc not in names):
            return web.Response(status=403, text="refused: another host or origin\n", headers=_HEADERS)

        given = request.query.get("token")
        if given is not None and request.path == "/" and self._is_token(given):
            # From here on the cookie says it, so that the token does not stay in the address line and its history.
            away = web.Response(status=303, headers={**_HEADERS, "Location": "/"})
            away.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict", path="/")
            return away
        if not self._is_token(request.cookies.get(self._cookie, "")):
            text = "This needs the token: open the address that flowdeck devtools --serve printed.\n"
            return web.Response(status=401, text=text, headers=_HEADERS)

        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "surrogateescape"), self.token.encode())

    async def handle_index(self, request: web.Request) -> Any:
        # The address of the web socket must be of the name the page was opened by, else the cookie is not sent.
        self.public_url = f"http://{request.host}"
        return await super().handle_index(request)


def serve_devtools(store: Path, *, port: int = PORT, arguments: list[str] | None = None) -> int:
    """Serve DevTools on a store until Ctrl-C. Returns the exit code.

    Args:
        store: The store's directory.
        port: The port on 127.0.0.1; 0 takes a free one.
        arguments: Further arguments of ``flowdeck devtools`` for every window.

    Raises:
        ServeError: The port is taken, or the token in ``FLOWDECK_DEVTOOLS_TOKEN`` is too short.
    """
    token = os.environ.pop(TOKEN_VARIABLE, "") or secrets.token_urlsafe(24)
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise ServeError(f"{TOKEN_VARIABLE} must be at least {SHORTEST_TOKEN} letters, digits, - or _; or unset it")
    command = [sys.executable, "-m", "flowdeck_devtools.cli", "devtools", "--store", str(store), *(arguments or [])]
    DevToolsServer(command, _bound(port), token).serve()
    return 0


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        mend = "choose another with --port, or --port 0 for a free one"
        raise ServeError(f"port {port} of {HOST} cannot be used ({error.strerror}): {mend}") from None
    return bound
