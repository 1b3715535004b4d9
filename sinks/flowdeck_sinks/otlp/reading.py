"""Event: one journal line as the mappers read it. The reading protocol of this package.

Live and stored events take the same way: :func:`decode_event` reads a journal line (with ``wseq``) and a live record's
:attr:`~flowdeck.events.record.EventRecord.encoded` alike, :func:`event_of` is the short form for the latter. The
payload stays undecoded bytes until somebody needs a part of it, so that a 6 MB payload costs its scan and no more.
"""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

import msgspec

__all__ = ["ErrorPart", "Event", "Meta", "Run", "decode_event", "event_of"]


class Run(msgspec.Struct, gc=False):
    """The ``run`` of an event."""

    run_id: str
    run_kind: str = "run"
    root_run_id: str | None = None
    parent_run_id: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    session_id: str | None = None
    response_id: str | None = None
    execution_id: str | None = None
    meta: dict[str, Any] = {}


class Meta(msgspec.Struct, gc=False):
    """The part of ``meta`` the mappers use; other keys are skipped."""

    us: int = 0
    epoch: int = 0
    seq: int = 0
    sub: int = 0
    scope: str | None = None
    attempt: int = 0
    duration_us: float | None = None
    compat_event_alias: bool | None = None
    execution_id: str | None = None


class ErrorPart(msgspec.Struct, gc=False):
    """The ``error`` of an event."""

    type: str | None = None
    message: str | None = None
    module: str | None = None
    traceback: str | None = None


class Event(msgspec.Struct, gc=False):
    """One event as it stands in the journal."""

    event_id: str
    event_type: str
    timestamp: int = 0
    source: str = ""
    level: str = "INFO"
    message: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorPart | None = None
    run: Run | None = None
    meta: Meta | None = None
    wseq: int = 0
    writer: str = ""
    """Who wrote it; set by who reads it, not part of the line."""

    @property
    def time_us(self) -> int:
        """Microseconds since the Unix epoch."""
        meta = self.meta
        return self.timestamp * 1000 + (0 if meta is None else meta.us)


class _Encoded(Protocol):
    @property
    def encoded(self) -> bytes: ...


_decode: Final = msgspec.json.Decoder(Event, strict=False).decode


def decode_event(line: bytes) -> Event:
    """Return the event of one journal line or wire form.

    Raises:
        ValueError: the line is not an event: cut off, not UTF-8, or with a field that is not what it must be.
    """
    try:
        return _decode(line)
    except ValueError:  # bytes or escapes that are no text: with replacement marks, so that the event is not lost
        text = json.dumps(json.loads(line.decode("utf-8", "replace")), ensure_ascii=False)
        return _decode(text.encode("utf-8", "replace"))


def event_of(record: _Encoded) -> Event:
    """Return the event of a live record: what is redacted and bounded, never the emitter's own objects."""
    return _decode(record.encoded)
