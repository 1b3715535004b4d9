"""One connection to an MCP server: a task of its own enters and leaves the official client's contexts.

A server that is a child process stands behind the same guard as every command (:mod:`flowdeck.environments._guard`), so
it ends with this process however this process ends. The guard's pipe is a FIFO here, as the official client passes no
descriptors on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from flowdeck.environments.process import guarded
from flowdeck.errors import ActionError

__all__ = ["CONNECT_SECONDS", "Connection", "client_module", "described"]

CONNECT_SECONDS: Final = 30.0
ALIVE_SECONDS: Final = 5.0
"""How long a server may take to answer whether it is still there."""
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Of one answer over HTTP; larger ones fail their call."""


def client_module(name: str) -> Any:
    """Import a module of the official client.

    Raises:
        ActionError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise ActionError(f"MCP servers need the extra 'mcp': pip install 'flowdeck[mcp]' ({problem})") from problem


class Connection:
    """From the first contact to the last. Made in the event loop it belongs to."""

    def __init__(self, name: str, transport: Any) -> None:
        self._name = name
        self._transport = transport
        self._leave = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Any] = self._loop.create_future()
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to whoever waits
        self._task = self._loop.create_task(self._keep())

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._task.done() or self._leave.is_set()

    async def session(self) -> Any:
        """Return the official client's session, once the server has answered.

        Raises:
            ActionError: it cannot be reached.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError as problem:
            self._task.cancel()
            raise ActionError(f"MCP server {self._name!r} did not answer within {CONNECT_SECONDS} s") from problem

    async def alive(self) -> bool:
        """Ask the server whether it is still there."""
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                await (await self.session()).send_ping()
        except Exception:  # whatever the client makes of a server that has gone
            return False

        return True

    def leave(self) -> asyncio.Task[None] | None:
        """End the connection, and the child process of a server that is one. Returns what to await, if one can."""
        if asyncio.get_running_loop() is self._loop:
            self._leave.set()
            return self._task

        with contextlib.suppress(RuntimeError):  # its loop has ended, and the task with it
            self._loop.call_soon_threadsafe(self._leave.set)

        return None

    async def _keep(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                read, write = await stack.enter_async_context(self._streams())
                session = await stack.enter_async_context(client_module("mcp").ClientSession(read, write))
                await session.initialize()
                self._ready.set_result(session)
                await self._leave.wait()
        except BaseException as problem:
            if not self._ready.done():
                how = f"{type(problem).__name__}: {problem}"
                self._ready.set_exception(
                    problem
                    if isinstance(problem, ActionError)
                    else ActionError(f"MCP server {self._name!r} cannot be reached: {how}")
                )

            if isinstance(problem, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
                raise

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        url = self._transport.get("url")
        if url is not None:
            http = client_module("mcp.client.streamable_http")
            web = client_module("httpx2")
            timeout = web.Timeout(CONNECT_SECONDS, read=None)  # a call has a limit of its own
            async with (
                web.AsyncClient(headers=self._transport.get("headers"), timeout=timeout) as client,
                http.streamable_http_client(url, http_client=client, max_sse_event_size=MAX_EVENT_BYTES) as streams,
            ):
                yield streams[0], streams[1]

            return

        stdio = client_module("mcp.client.stdio")
        command = self._transport["command"]
        env = {**stdio.get_default_environment(), **(self._transport.get("env") or {})}
        if shutil.which(command, path=env.get("PATH")) is None:
            raise ActionError(f"MCP server {self._name!r} cannot be reached: there is no command {command!r}")

        with _owned_fifo() as fifo:
            first, *rest = guarded(fifo, [command, *map(str, self._transport.get("args") or ())])
            parameters = stdio.StdioServerParameters(
                command=first, args=rest, env=dict(env), cwd=self._transport.get("cwd")
            )
            async with stdio.stdio_client(parameters) as (read, write):
                yield read, write


@contextmanager
def _owned_fifo() -> Iterator[str]:
    """Make a FIFO whose write end this process holds until the block ends; whoever opens it for reading sees that."""
    folder = Path(tempfile.mkdtemp(prefix="flowdeck-mcp-"))
    fifo = folder / "owner"
    held = -1
    try:
        os.mkfifo(fifo, 0o600)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO opens for writing only while somebody reads
        try:
            held = os.open(fifo, os.O_WRONLY)
        finally:
            os.close(reader)

        yield str(fifo)
    finally:
        if held >= 0:
            os.close(held)

        shutil.rmtree(folder, ignore_errors=True)


def described(transport: Any) -> str:
    """Return what a transport looks like, without its values: they may be secrets."""
    return f"a mapping with {sorted(map(str, transport))}" if isinstance(transport, Mapping) else repr(transport)
