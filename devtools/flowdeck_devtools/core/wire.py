"""Journal lines as DevTools reads them: decoded only as far, and only when, somebody looks.

``head`` reads what every line is judged by (type, level, lineage, time); ``decode`` reads a whole event but leaves
its payload as bytes. Neither ever raises: a line that is not what it should be is read leniently, and a line that is
not JSON becomes an event of type ``?`` that shows its text (DESIGN §5.4, consumers are fail-open).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["LEVELS", "MAX_VALUE_BYTES", "Event", "Head", "Lineage", "decode", "head", "level_rank", "lineage_of"]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_RANKS = {name: rank for rank, name in enumerate(LEVELS)} | {"WARN": 2, "FATAL": 4}

MAX_VALUE_BYTES = 512 * 1024
"""Largest payload that is decoded for display. The journal moves payloads over 256 KiB to a blob, so only a foreign
producer writes a larger one."""


def level_rank(level: str) -> int:
    """Place of a level in ``LEVELS``; an unknown one counts as INFO."""
    return _RANKS.get(level, _RANKS.get(level.upper(), 1))


class Lineage(msgspec.Struct, gc=False):
    """Who an event belongs to (``run`` on the wire), without its free-form part."""

    run_id: str | None = None
    run_kind: str | None = None
    root_run_id: str | None = None
    parent_run_id: str | None = None
    execution_id: str | None = None


class HeadMeta(msgspec.Struct, gc=False):
    us: int = 0
    epoch: int = 0
    seq: int = 0
    sub: int = 0
    attempt: int = 0
    scope: str | None = None
    duration_us: int | None = None
    compat_event_alias: bool | None = None


class Head(msgspec.Struct, gc=False):
    """What a line is judged by. Decoding it costs 1.0 µs for a line of 900 bytes (measured)."""

    event_type: str = "?"
    level: str = "INFO"
    run: Lineage | None = None
    meta: HeadMeta | None = None
    timestamp: int = 0
    wseq: int = 0

    @property
    def time_us(self) -> int:
        return self.timestamp * 1000 + (self.meta.us if self.meta else 0)


class FullLineage(Lineage, gc=False):
    agent_id: str | None = None
    agent_name: str | None = None
    session_id: str | None = None
    response_id: str | None = None
    meta: dict[str, Any] = {}


class Event(msgspec.Struct):
    """A whole event. ``payload`` is decoded on each access: keep the result if you need it twice."""

    event_type: str = "?"
    level: str = "INFO"
    run: FullLineage | None = None
    meta: dict[str, Any] = {}
    timestamp: int = 0
    wseq: int = 0
    event_id: str = ""
    source: str = ""
    message: str | None = None
    raw_payload: msgspec.Raw = msgspec.field(name="payload", default_factory=msgspec.Raw)
    error: dict[str, Any] | None = None

    @property
    def time_us(self) -> int:
        us = self.meta.get("us", 0)
        return self.timestamp * 1000 + (us if isinstance(us, int) else 0)

    @property
    def payload_bytes(self) -> int:
        return len(memoryview(self.raw_payload))

    @property
    def payload(self) -> Any:
        """The decoded payload; a too large or unreadable one is a mapping that says so and shows its beginning."""
        raw = bytes(self.raw_payload)
        if not raw:
            return None
        if len(raw) > MAX_VALUE_BYTES:
            return {"$size": len(raw), "$preview": raw[:4096].decode("utf-8", "replace")}

        try:
            return _any.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return {"$unreadable": raw[:4096].decode("utf-8", "replace")}

    def payload_map(self) -> Mapping[str, Any]:
        """The payload if it is an object, else an empty mapping."""
        value = self.payload
        return value if isinstance(value, dict) else {}


_any = msgspec.json.Decoder()
_head = msgspec.json.Decoder(Head)
_event = msgspec.json.Decoder(Event)
_NO_LINEAGE = Lineage()


def head(line: bytes) -> Head:
    """What a journal line is judged by. Never raises."""
    try:
        return _head.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _lenient_head(line)


def decode(line: bytes) -> Event:
    """A journal line as a whole event. Never raises."""
    try:
        return _event.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _lenient_event(line)


def lineage_of(event_head: Head) -> Lineage:
    """The lineage of an event, empty when it has none."""
    return event_head.run or _NO_LINEAGE


def _loads(line: bytes) -> dict[str, Any] | None:
    try:
        value = _any.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            value = _any.decode(line.decode("utf-8", "replace").encode())
        except (msgspec.MsgspecError, RecursionError):
            return None

    return value if isinstance(value, dict) else None


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value)[:256]


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _lenient_head(line: bytes) -> Head:
    raw = _loads(line)
    if raw is None:
        return Head(level="WARNING")

    run, meta = _map(raw.get("run")), _map(raw.get("meta"))
    lasted = meta.get("duration_us")
    return Head(
        event_type=_text(raw.get("event_type")) or "?",
        level=_text(raw.get("level")) or "INFO",
        run=Lineage(*(_text(run.get(name)) for name in Lineage.__struct_fields__)) if run else None,
        meta=HeadMeta(
            us=_whole(meta.get("us")),
            epoch=_whole(meta.get("epoch")),
            seq=_whole(meta.get("seq")),
            sub=_whole(meta.get("sub")),
            attempt=_whole(meta.get("attempt")),
            scope=_text(meta.get("scope")),
            duration_us=int(lasted) if isinstance(lasted, int | float) else None,
        ),
        timestamp=_whole(raw.get("timestamp")),
        wseq=_whole(raw.get("wseq")),
    )


def _lenient_event(line: bytes) -> Event:
    raw = _loads(line)
    if raw is None:
        return Event(level="WARNING", message="unreadable line: " + line[:512].decode("utf-8", "replace"))

    run, error = raw.get("run"), raw.get("error")
    lineage = None
    if isinstance(run, dict):
        names = [name for name in FullLineage.__struct_fields__ if name != "meta"]
        lineage = FullLineage(**{name: _text(run.get(name)) for name in names}, meta=_map(run.get("meta")))

    try:
        payload = msgspec.Raw(msgspec.json.encode(raw.get("payload")))
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        payload = msgspec.Raw(b"null")

    return Event(
        event_type=_text(raw.get("event_type")) or "?",
        level=_text(raw.get("level")) or "INFO",
        run=lineage,
        meta=_map(raw.get("meta")),
        timestamp=_whole(raw.get("timestamp")),
        wseq=_whole(raw.get("wseq")),
        event_id=_text(raw.get("event_id")) or "",
        source=_text(raw.get("source")) or "",
        message=_text(raw.get("message")),
        raw_payload=payload,
        error=error if isinstance(error, dict) else ({"message": str(error)} if error else None),
    )
