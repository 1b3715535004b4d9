"""Frames as Server-Sent Events, with ids to come back to, and an end for clients that do not read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowdeck.web.feed import Frame, encode_item

__all__ = ["EventStream"]

_log = logging.getLogger("flowdeck.web")

RETRY_MS: Final = 1_000
"""After so long a browser connects again."""
CHUNK_BYTES: Final = 65_536
"""So much is encoded for one client at a time."""
FINISH_SECONDS: Final = 1.0
"""How long the end of a stream may take to leave; a server that stops waits for it."""


class EventStream(Response):
    """Sends frames as they come.

    An item is an unnamed event (``onmessage``); the feed's own frames are named. Every event has an ``id``, which the
    browser sends back as ``Last-Event-ID``. A client that takes nothing for ``stall`` seconds is let go: nothing more
    is read for it, and if it begins to read within as long again, it finds ``dropped`` as the last event. What it has
    missed it gets when it comes back.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncGenerator[list[Frame], None], *, stall: float = 30.0, stop: asyncio.Event | None = None
    ):
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._stall = stall
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the run has ended, the client is gone, or the service stops."""
        loop = asyncio.get_running_loop()
        sending = loop.create_task(self._send(send))
        leaving = loop.create_task(_left(receive))
        waits: set[asyncio.Task[Any]] = {sending, leaving}
        if self._stop is not None:
            waits.add(loop.create_task(self._stopped(self._stop)))

        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

            await asyncio.gather(*waits, return_exceptions=True)

        if sending.done() and not sending.cancelled() and sending.exception() is not None:
            raise sending.exception()  # type: ignore[misc]

        if not leaving.done() or leaving.cancelled():
            await self._finish(send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._frames) as frames:
            if not await self._chunk(send, f"retry: {RETRY_MS}\n\n".encode()):
                return

            async for batch in frames:
                if not await self._batch(send, batch):
                    break
            else:
                return

        _log.info("a client of an event stream took nothing for %g s and was let go", self._stall)
        reason = {"reason": f"nothing was read for {self._stall:g} s; connect again to go on"}
        await self._chunk(send, b"event: dropped\ndata: " + encode_item(reason) + b"\n\n")

    async def _batch(self, send: Send, batch: list[Frame]) -> bool:
        waiting = [] if batch else [b": alive\n\n"]
        size = 0
        for frame in batch:
            encoded = _encoded(frame)
            waiting.append(encoded)
            size += len(encoded)
            if size >= CHUNK_BYTES:
                if not await self._chunk(send, b"".join(waiting)):
                    return False

                waiting, size = [], 0

        return not waiting or await self._chunk(send, b"".join(waiting))

    async def _chunk(self, send: Send, body: bytes) -> bool:
        """Hand over what there is; tell whether the client made room for it in time."""
        try:
            async with asyncio.timeout(self._stall):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            return False

        return True

    async def _finish(self, send: Send) -> None:
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            pass

    @staticmethod
    async def _stopped(stop: asyncio.Event) -> None:
        await stop.wait()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _encoded(frame: Frame) -> bytes:
    event = b"" if frame.event == "item" else b"event: " + frame.event.encode() + b"\n"
    return b"%sid: %s\ndata: %s\n\n" % (event, str(frame.position).encode(), encode_item(frame.data))
