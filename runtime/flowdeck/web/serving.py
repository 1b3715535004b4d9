"""uvicorn's HTTP protocol with bounds on clients that neither finish a request nor read what they are sent.

uvicorn waits without end for the headers of a request, and for the peer to take what stands in its buffers. Here both
have a time, after which the connection is aborted: what it would still have to send is dropped with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

__all__ = ["HEADER_SECONDS", "bounded_protocol"]

_log = logging.getLogger("flowdeck.web")

HEADER_SECONDS: Final = 10.0
"""How long a client may take from connecting, or from the first byte of its next request, to the end of its headers."""


def bounded_protocol(
    unread: float, headers: float = HEADER_SECONDS, base: type[asyncio.Protocol] | None = None
) -> type[asyncio.Protocol]:
    """Return a protocol class for ``uvicorn.Config(http=...)``.

    Args:
        unread: seconds a client may leave its full buffer untouched.
        headers: seconds until the headers of a request must be complete.
        base: uvicorn's protocol; by default the one it would choose.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    chosen: Any = base or AutoHTTPProtocol

    class Bounded(chosen):  # type: ignore[misc]
        _headers_due: asyncio.TimerHandle | None = None
        _read_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._answering():
                self._stop_timer("_headers_due")
            elif self._headers_due is None:
                self._expect_headers()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stop_timer("_read_due")
            self._read_due = self.loop.call_later(unread, self._abort, "took nothing for", unread)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_timer("_read_due")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer("_headers_due")
            self._stop_timer("_read_due")
            super().connection_lost(exc)

        def _answering(self) -> bool:
            moved = self.transport.get_protocol() is not self  # a WebSocket has rules of its own
            return moved or (self.cycle is not None and not self.cycle.response_complete)

        def _expect_headers(self) -> None:
            self._headers_due = self.loop.call_later(headers, self._headers_missing)

        def _headers_missing(self) -> None:
            self._headers_due = None
            if not self._answering() and not self.transport.is_closing():
                self._abort("sent no whole request within", headers)

        def _abort(self, what: str, seconds: float) -> None:
            _log.info("a client %s %g s and was cut off", what, seconds)
            self.transport.abort()

        def _stop_timer(self, name: str) -> None:
            timer: asyncio.TimerHandle | None = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

    return Bounded
