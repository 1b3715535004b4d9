"""The HTTP side of a collector: OTLP/HTTP on asyncio and h11, with a bound on everything.

Connections, bytes that wait, the time a head, a body and an answer may take, and the size of each are bounded. Bodies
are read while others are taken in; they are taken in one after the other, on a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import h11

from flowdeck.errors import FlowdeckError
from flowdeck_sinks.collect.decoding import JSON, PROTOBUF, SIGNALS, BadRequest, error_body
from flowdeck_sinks.collect.intake import Collector

__all__ = ["PORT", "CollectError", "CollectServer", "Limits", "is_loopback"]

PORT: Final = 4318
_HEAD_BYTES: Final = 32 * 1024
_CHUNK: Final = 65_536
_LINGER_SECONDS: Final = 2.0

log: Final = logging.getLogger("flowdeck.collect")


class CollectError(FlowdeckError):
    """A collector cannot listen; the message names the mend."""


class Limits(NamedTuple):
    """What a server holds and how long it waits."""

    connections: int = 128
    waiting_bytes: int = 64 * 1024 * 1024
    """Bodies that are being read or wait, in all."""
    idle_s: float = 75.0
    """Between two requests of a connection."""
    head_s: float = 10.0
    body_s: float = 30.0


class _Gone(Exception):
    """The client went away."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class CollectServer:
    """Serves a collector.

    Args:
        collector: Takes the requests in.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        token: What clients must send as ``Authorization: Bearer …``; ``None`` lets everybody in, on loopback only.
        limits: See there.

    Raises:
        CollectError: No token, and other machines could reach it.
    """

    def __init__(
        self,
        collector: Collector,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if token is None and not is_loopback(host):
            raise CollectError(f"{host} is reachable from other machines; give a token, or listen on 127.0.0.1")

        self.collector = collector
        self._host, self._port, self._token = host, port, token
        self._limits = limits or Limits()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flowdeck-collect")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._server is not None:
            self._port = self._server.sockets[0].getsockname()[1]

        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            CollectError: The address cannot be used.
        """
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=_CHUNK, backlog=128)
        except OSError as problem:
            raise CollectError(
                f"could not listen on {self.url} ({problem.strerror or problem}): choose another with --port, "
                f"or --port 0 for a free one"
            ) from None

    async def stop(self) -> None:
        """Stop listening, answer what is being taken in, and close every connection."""
        if self._server is not None:
            self._server.close()

        for task in self._tasks - self._busy:
            task.cancel()

        if self._busy:
            await asyncio.wait(self._busy, timeout=15.0)

        for task in self._tasks:
            task.cancel()

        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer, refused=len(self._tasks) >= self._limits.connections)
        task = asyncio.ensure_future(connection.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- one request ---------------------------------------------------------------------------------------

    def check(self, request: h11.Request, headers: dict[str, str]) -> tuple[str, str, str] | bytes:
        """Return signal, content type and encoding of a request, or the answer to a health check.

        Raises:
            BadRequest: It is none for us, told before its body is read.
        """
        path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
        if "origin" in headers:
            raise BadRequest(403, "a web page may not send here")

        if self._token is None:
            host = headers.get("host", "")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name.lower() or "?"):
                raise BadRequest(403, f"Host {host[:80]!r} is not this machine; a name from elsewhere needs a token")

        if path == "/healthz":
            return b'{"status":"ok"}'

        if self._token is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            wanted = self._token.encode("utf-8", "surrogateescape")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted):
                raise BadRequest(
                    401, "the token is missing or wrong: OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20<token>"
                )

        signal = SIGNALS.get(path)
        if signal is None:
            raise BadRequest(404, f"{path[:80]} is none of {', '.join(SIGNALS)}")

        if request.method != b"POST":
            raise BadRequest(405, f"{path} takes POST")

        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in (PROTOBUF, JSON):
            raise BadRequest(415, f"Content-Type {content_type[:60]!r} is not known: send {PROTOBUF} or {JSON}")

        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.collector.max_body:
            raise BadRequest(413, self._too_large())

        return signal, content_type, headers.get("content-encoding", "").strip().lower()

    def hold(self, size: int) -> None:
        """Make room for bytes of a body.

        Raises:
            BadRequest: There is none.
        """
        if self._waiting_bytes + size > max(self._limits.waiting_bytes, self.collector.max_body):
            raise BadRequest(503, "too much is waiting to be taken in; come again", 1)

        self._waiting_bytes += size

    def release(self, size: int) -> None:
        """Give room back."""
        self._waiting_bytes -= size

    async def take(self, signal: str, content_type: str, encoding: str, body: bytes) -> bytes:
        """Take a body in; return the body of the answer."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            return (
                await loop.run_in_executor(self._thread, self.collector.take, signal, content_type, encoding, body)
            ).body
        finally:
            self._busy.discard(task)

    def _too_large(self) -> str:
        return f"the body is larger than {self.collector.max_body} bytes; send smaller batches"


class _Connection:
    """One connection, one request after the other."""

    def __init__(
        self, server: CollectServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, refused: bool
    ) -> None:
        self._server = server
        self._limits = server._limits
        self._reader = reader
        self._writer = writer
        self._refused = refused
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)

    async def run(self) -> None:
        try:
            while await self._request():
                self._http.start_next_cycle()
        except (_Gone, OSError, TimeoutError, asyncio.CancelledError):
            pass
        except Exception:
            log.exception("flowdeck collect: a connection failed")
        finally:
            self._writer.close()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._writer.wait_closed(), 1.0)

    async def _request(self) -> bool:
        """Answer one request; return whether the connection can take another."""
        content_type = JSON
        try:
            request = await self._head()
            if request is None:
                return False

            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
            if headers.get("content-type", "").startswith(PROTOBUF):
                content_type = PROTOBUF

            if self._refused:
                raise BadRequest(503, "too many connections; come again", 1)

            wanted = self._server.check(request, headers)
            if isinstance(wanted, bytes):
                await self._body(limit=0)
                await self._answer(200, JSON, wanted)
            else:
                await self._answer(200, content_type, await self._taken(*wanted))
        except BadRequest as refusal:
            await self._refuse(refusal, content_type)
        except h11.RemoteProtocolError as problem:
            await self._refuse(BadRequest(problem.error_status_hint or 400, f"not HTTP/1.1: {problem}"), content_type)
        except TimeoutError:
            await self._refuse(BadRequest(408, "the request did not come in time"), content_type)

        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            return True

        await self._linger()
        return False

    async def _taken(self, signal: str, content_type: str, encoding: str) -> bytes:
        body = bytearray()
        held = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    event = await self._event()
                    if isinstance(event, h11.EndOfMessage):
                        break

                    if isinstance(event, h11.Data):
                        size = len(event.data)
                        if held + size > self._server.collector.max_body:
                            raise BadRequest(413, self._server._too_large())

                        self._server.hold(size)
                        held += size
                        body += event.data

            return await self._server.take(signal, content_type, encoding, bytes(body))
        finally:
            self._server.release(held)

    async def _body(self, *, limit: int) -> None:
        """Read a body that nobody wants."""
        async with asyncio.timeout(self._limits.head_s):
            while not isinstance(event := await self._event(), h11.EndOfMessage):
                if isinstance(event, h11.Data) and len(event.data) > limit:
                    raise BadRequest(400, "no body is expected here")

    async def _head(self) -> h11.Request | None:
        """Return the next request, ``None`` when the client has no more."""
        event: Any = self._http.next_event()
        if event is h11.NEED_DATA and not self._http.trailing_data[0]:
            async with asyncio.timeout(self._limits.idle_s):
                try:
                    data = await self._reader.read(_CHUNK)
                except OSError:
                    return None
            if not data:
                return None

            self._http.receive_data(data)
            event = self._http.next_event()

        async with asyncio.timeout(self._limits.head_s):
            while event is h11.NEED_DATA:
                event = await self._event()

        return event if isinstance(event, h11.Request) else None

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                going_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(going_on) or b"")

            self._http.receive_data(await self._reader.read(_CHUNK))

        if isinstance(event, h11.ConnectionClosed):
            raise _Gone

        return event

    async def _refuse(self, refusal: BadRequest, content_type: str) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return

        more = [] if refusal.retry_s is None else [("Retry-After", str(refusal.retry_s))]
        if refusal.status == 405:
            more.append(("Allow", "POST"))

        if refusal.status == 401:
            more.append(("WWW-Authenticate", "Bearer"))

        body = error_body(content_type, refusal.status, str(refusal))
        await self._answer(refusal.status, content_type, body, more)

    async def _answer(
        self, status: int, content_type: str, body: bytes, more: list[tuple[str, str]] | None = None
    ) -> None:
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), *(more or ())]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))

        out = (self._http.send(h11.Response(status_code=status, headers=headers)) or b"") + (
            self._http.send(h11.Data(data=body)) or b""
        )
        self._writer.write(out + (self._http.send(h11.EndOfMessage()) or b""))
        async with asyncio.timeout(self._limits.head_s):
            await self._writer.drain()

    async def _linger(self) -> None:
        """Read on for a moment, so that the answer is not lost with what the client still sends."""
        with contextlib.suppress(OSError, TimeoutError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._reader.read(_CHUNK):
                    pass
