"""A model server for tests and offline examples: it speaks HTTP and server-sent events on the loopback.

    with LocalModel(["Hello.", {"title": "Rain"}, ModelReply(status=429, retry_after=0.1)]) as server:
        agent = runtime.create_agent().use_model("local", base_url=server.base_url, api_key=server.api_key)

It answers ``POST /v1/chat/completions`` (streamed or not) as the chat completions API does, from a script: a list of
replies in order, or a function of the request. It is no model and says so: its replies are what the script holds.
Faults are as real as the wire lets them be: connections are reset, streams stall, JSON is cut in the middle of a token.

From a shell: ``python -m flowdeck.testing --text "Hello."`` prints its address.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final

from flowdeck.testing.local_replies import ModelReply, chunks_of, whole_of

__all__ = ["LocalModel", "main"]

Script = Iterable[Any] | Callable[[dict[str, Any]], Any]
_REASONS: Final = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_MAX_BODY: Final = 64 * 1024 * 1024


class LocalModel:
    """A scripted model server in a thread of its own; use it as a context manager.

    Args:
        script: replies in the order of the requests, or ``function(request) -> reply`` (plain or async). A reply is a
            text, anything that becomes JSON, or a :class:`ModelReply`. A script that is used up answers 500.
        api_key: what clients must send; made up by default. Without it they get 401.

    Attributes:
        base_url: ``http://127.0.0.1:<port>/v1``.
        requests: the bodies of the requests so far.
        headers: the headers of the requests so far, names in lower case.
    """

    def __init__(self, script: Script = ("Hello.",), *, api_key: str | None = None, port: int = 0) -> None:
        self._script = script if callable(script) else iter(list(script))
        self.api_key = api_key or f"sk-local-{secrets.token_hex(16)}"
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.base_url = ""
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<LocalModel {self.base_url or 'not started'}, {len(self.requests)} requests>"

    def __enter__(self) -> LocalModel:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> LocalModel:
        """Listen on the loopback; chainable.

        Raises:
            OSError: the port is taken.
        """
        self._thread = threading.Thread(target=self._run, name="flowdeck-local-model", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

        return self

    def stop(self) -> None:
        """End every connection, and the thread."""
        if self._loop is not None and self._stopped is not None and self._thread is not None:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._stopped.set)

            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:
            self._failure = problem
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._connection(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client has left, or the server ends
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", self._port)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(connections):
            task.cancel()

        await asyncio.gather(*connections, return_exceptions=True)

    # -- HTTP ------------------------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, until it or a fault ends it."""
        while True:
            line = await reader.readline()
            if not line.strip():
                return

            method, path, *_ = line.decode("latin-1").split()
            headers: dict[str, str] = {}
            while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()

            size = int(headers.get("content-length") or 0)
            body = await reader.readexactly(size) if 0 < size <= _MAX_BODY else b""
            if not await self._answer(method, path, headers, body, writer):
                return

    async def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; return whether the connection goes on."""
        if headers.get("authorization") != f"Bearer {self.api_key}":
            # As some providers do: the key stands in the message. Clients must not pass it on.
            wrong = headers.get("authorization", "none").removeprefix("Bearer ")
            return await _send_error(writer, 401, f"Incorrect API key provided: {wrong}.")

        if path.rstrip("/") == "/v1/models":
            return await _send(writer, 200, {"object": "list", "data": [{"id": "local", "object": "model"}]})

        if method != "POST" or path != "/v1/chat/completions":
            return await _send_error(writer, 404, f"no such address: {method} {path}")

        try:
            request = json.loads(body)
        except ValueError:
            return await _send_error(writer, 400, "the body is no JSON")

        self.requests.append(request)
        self.headers.append(headers)
        number = len(self.requests)
        reply = await self._reply(request)
        if reply.status != 200:
            more = {} if reply.retry_after is None else {"Retry-After": f"{reply.retry_after:g}"}
            return await _send_error(writer, reply.status, reply.error or "scripted failure", more)

        if request.get("stream"):
            return await self._stream(reply, request, number, writer)

        if reply.delay:
            await asyncio.sleep(reply.delay)

        return await _send(writer, 200, whole_of(reply, request, number))

    async def _reply(self, request: dict[str, Any]) -> ModelReply:
        if callable(self._script):
            given = self._script(request)
            return ModelReply.of(await given if isawaitable(given) else given)

        return ModelReply.of(next(self._script, ModelReply(status=500, error="the script has no reply left")))

    async def _stream(
        self, reply: ModelReply, request: Mapping[str, Any], number: int, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        if reply.raw is not None:
            if reply.raw:
                await _send_chunk(writer, reply.raw.encode())

            await _send_chunk(writer, b"")
            return True

        sent = 0
        for index, chunk in enumerate(chunks_of(reply, request, number)):
            if reply.end_early is not None and index > reply.end_early:
                await _send_chunk(writer, b"")
                return True

            if reply.stall_after is not None and index > reply.stall_after:
                await writer.drain()
                await asyncio.Event().wait()  # until the client leaves, or the server stops

            line = f"data: {json.dumps(chunk)}\n\n".encode()
            if reply.cut_after is not None and sent + len(line) > reply.cut_after:
                await _send_chunk(writer, line[: reply.cut_after - sent])
                _reset(writer)
                return False

            if reply.delay:
                await asyncio.sleep(reply.delay)

            await _send_chunk(writer, line)
            sent += len(line)

        await _send_chunk(writer, b"data: [DONE]\n\n")
        await _send_chunk(writer, b"")
        return True


async def _send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


async def _send(
    writer: asyncio.StreamWriter, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> bool:
    data = json.dumps(body, ensure_ascii=False).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nContent-Type: application/json\r\n{more}"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode("latin-1") + data)
    await writer.drain()
    return True


async def _send_error(
    writer: asyncio.StreamWriter, status: int, message: str, headers: Mapping[str, str] | None = None
) -> bool:
    return await _send(writer, status, {"error": {"message": message, "type": "scripted", "code": None}}, headers)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection at once, without a goodbye."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    writer.transport.abort()


def main(argv: list[str] | None = None) -> int:
    """Serve one reply to every request until the standard input ends."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("--text", default="Hello.", help="what to answer; @FILE reads it from a file")
    options.add_argument("--piece", type=int, default=16, help="characters of one delta")
    options.add_argument("--api-key", default=None)
    given = options.parse_args(argv)
    text = given.text
    if text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")

    with LocalModel(lambda _: ModelReply(text, piece=given.piece), api_key=given.api_key) as server:
        print(json.dumps({"base_url": server.base_url, "api_key": server.api_key}), flush=True)
        sys.stdin.read()

    return 0
