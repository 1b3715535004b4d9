"""ConsoleSink: events as lines on stderr.

``simple`` prints one line per event, ``detail`` adds the payload and the error's traceback. Formatting and writing
belong to a thread, so a terminal that is stopped or a pipe nobody reads never holds the program up: what does not
fit into the queue is dropped and counted. Everything printed comes from the redacted wire form and has control
characters removed.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from typing import Any, Final, TextIO

import msgspec

from flowdeck.events.profiles import MODES, Profiles
from flowdeck.events.record import EventRecord
from flowdeck_sinks._queued import LINGER_S, QUEUE_BYTES, QueuedSink

__all__ = ["MODES", "ConsoleSink", "create_sink", "describe_event", "format_event", "strip_control"]

CHUNK: Final = 512
"""Bytes per write: POSIX promises that a pipe ready for writing takes this many without blocking."""
DETAIL_LIMIT: Final = 4096
"""Characters of a payload that are printed."""

# ANSI and other escape sequences first (with what belongs to them), then every control, C1 and bidi-override character.
_ESCAPES: Final = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]"
    "|\x1b[\\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x9b[0-?]*[ -/]*[@-~]"
    "|\x1b[ -/]*[0-~]?"
)
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")
_decode: Final = msgspec.json.Decoder().decode


def strip_control(text: str, *, lines: bool = False) -> str:
    """Return ``text`` without escape sequences and control characters; line breaks become blanks unless ``lines``."""
    if text.isprintable():
        return text

    text = _ESCAPES.sub("", text)
    text = text.replace("\t", " ")
    if not lines:
        text = text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")

    return _CONTROLS.sub("", text)


class ConsoleSink(QueuedSink):
    """Prints events.

    Args:
        profile: ``"off"``, ``"simple"`` or ``"detail"``, with exceptions by family such as
            ``"simple+model=detail+tool=off"``; see :mod:`flowdeck.events.profiles`. A run's own ``console`` meta
            (``run_context(console="off")``, or its flow's settings) goes before it.
        stream: where to; stderr as it is at each write by default.
        queue_bytes: what may wait for the terminal.

    Raises:
        ValueError: there is no such mode or family.
    """

    name = "console"

    def __init__(
        self, profile: str = "simple", *, stream: TextIO | None = None, queue_bytes: int = QUEUE_BYTES
    ) -> None:
        self.profiles = Profiles.parse(profile)
        self._stream = stream
        super().__init__(queue_bytes=queue_bytes)

    def statistics(self) -> dict[str, int | float | str]:
        """Return what was accepted, printed and dropped."""
        return {"mode": self.profiles.spec, "printed": self._handed_over, **super().statistics()}

    def _wants(self, record: EventRecord) -> bool | None:
        profiles = self.profiles
        run = record.run
        own = None if run is None else run.inherited("console")
        if own is not None:
            profiles = _profiles_of(own) or profiles

        mode = profiles.mode_of(record.event_type)
        return None if mode == "off" else mode == "detail"

    # -- the thread ----------------------------------------------------------------------------------------------

    def _hand_over(self, batch: list[tuple[Any, bytes]], missed: int) -> int:
        parts = [self._format(line, detail) for detail, line in batch]
        if missed:
            parts.append(f"  … {missed} events not shown: the terminal is too slow\n")

        return len(batch) if self._write("".join(parts)) else 0

    def _format(self, line: bytes, detail: bool) -> str:
        try:
            return format_event(_decode(line), detail=detail)
        except Exception as problem:
            return f"[an event could not be shown: {type(problem).__name__}]\n"

    def _write(self, text: str) -> bool:
        """Write ``text``. Return whether it is out; a reader that went away ends the sink quietly."""
        stream = self._stream if self._stream is not None else sys.stderr
        try:
            try:
                descriptor = stream.fileno()
            except (AttributeError, OSError, ValueError):
                stream.write(text)
                stream.flush()
                return True

            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.flush()
            return self._write_bytes(descriptor, text.encode(encoding, "backslashreplace"))
        except Exception:  # closed, broken, full: whatever it is, it must not reach the program
            self._ended = True
            return False

    def _write_bytes(self, descriptor: int, data: bytes) -> bool:
        # Not through the stream: a daemon thread that hangs inside its buffer would block the interpreter's exit.
        # A duplicate, because the number may belong to another file once the program has closed its stream.
        own = os.dup(descriptor)
        try:
            return self._write_chunks(own, memoryview(data))
        finally:
            os.close(own)

    def _write_chunks(self, descriptor: int, view: memoryview) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while view:
            if poll.poll(100):
                try:
                    view = view[os.write(descriptor, view[:CHUNK]) :]
                except BlockingIOError:
                    time.sleep(LINGER_S)
            elif self._ended:  # closed, and the time for it is over
                return False

        return True


def _profiles_of(spec: Any) -> Profiles | None:
    """Return the profiles a run asks for, ``None`` for what is none: a run must not silence the console by mistake."""
    try:
        return Profiles.parse(spec) if isinstance(spec, str) else None
    except ValueError:
        return None


def format_event(event: dict[str, Any], *, detail: bool = False) -> str:
    """Return an event (decoded from the wire) as text that ends with a line break."""
    stamp = event.get("timestamp") or 0
    clock = time.strftime("%H:%M:%S", time.localtime(stamp / 1000))
    level = strip_control(str(event.get("level", "")))
    text = f"{clock}.{stamp % 1000:03d} {level:<8} {describe_event(event)}\n"
    return text + _details(event) if detail else text


def describe_event(event: dict[str, Any]) -> str:
    """Return an event (decoded from the wire) as one line: type, name, attempt, duration, message, error."""
    meta = event.get("meta") or {}
    run = event.get("run") or {}
    words = [str(event.get("event_type", ""))]
    name = _name(event.get("payload"), run)
    if name:
        words.append(name)

    if "attempt" in meta and meta["attempt"] > 1:
        words.append(f"attempt={meta['attempt']}")

    if "duration_us" in meta:
        words.append(_duration(meta["duration_us"]))

    if event.get("message"):
        words.append(f"- {event['message']}")

    error = event.get("error")
    if error:
        words.append(f"! {error.get('type')}: {error.get('message')}")

    return strip_control(" ".join(words))


def _details(event: dict[str, Any]) -> str:
    out: list[str] = []
    payload = event.get("payload")
    if payload is not None:
        body = json.dumps(payload, ensure_ascii=False, indent=2)
        if len(body) > DETAIL_LIMIT:
            body = f"{body[:DETAIL_LIMIT]}… [{len(body) - DETAIL_LIMIT} more characters]"

        out += [f"    {line}" for line in strip_control(body, lines=True).split("\n")]

    trace = (event.get("error") or {}).get("traceback")
    if trace:
        out += [f"    {line}" for line in strip_control(trace, lines=True).rstrip().split("\n")]

    run = event.get("run") or {}
    if run.get("run_id"):
        out.append(
            strip_control(f"    run {run.get('run_kind')} {run['run_id']} parent {run.get('parent_run_id') or '-'}")
        )

    return "".join(f"{line}\n" for line in out)


def _name(payload: Any, run: dict[str, Any]) -> str:
    for place, key in (
        (payload, "chunk_name"),
        (run.get("meta"), "chunk_name"),
        (run.get("meta"), "flow_name"),
        (payload, "flow_name"),
    ):
        if isinstance(place, dict) and isinstance(place.get(key), str):
            return f"[{place[key]}]"

    return ""


def _duration(us: Any) -> str:
    if not isinstance(us, int | float):
        return ""

    return f"{us / 1_000_000:.2f} s" if us >= 1_000_000 else f"{us / 1000:.1f} ms" if us >= 1000 else f"{us} us"


def create_sink(target: str | None = None, **options: Any) -> ConsoleSink:
    """Return the sink for ``FLOWDECK_SINKS="console"`` and ``runtime.observe(console=...)``.

    Args:
        target: the profile, ``"simple"`` by default; ``"simple+model=detail"`` differs by family.
        options: those of :class:`ConsoleSink`.

    Raises:
        ValueError: an unknown mode or family.
    """
    return ConsoleSink(target or "simple", **options)
