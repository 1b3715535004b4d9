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
import threading
import time
import weakref
from collections import deque
from typing import Any, Final, TextIO

import msgspec

from flowdeck.events.record import EventRecord

__all__ = ["MODES", "ConsoleSink", "create_sink", "strip_control"]

MODES: Final = ("off", "simple", "detail")
QUEUE_BYTES: Final = 4 * 1024 * 1024
"""Bound of what waits for the terminal."""
LINGER_S: Final = 0.02
"""How long the thread lets lines gather."""
BATCH: Final = 65_536
"""Characters formatted before they are written."""
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


class ConsoleSink:
    """Prints events.

    Args:
        mode: ``"off"``, ``"simple"`` or ``"detail"``.
        stream: where to; stderr as it is at each write by default.
        queue_bytes: what may wait for the terminal.

    Raises:
        ValueError: ``mode`` is none of the three.
    """

    name = "console"

    def __init__(self, mode: str = "simple", *, stream: TextIO | None = None, queue_bytes: int = QUEUE_BYTES) -> None:
        if mode not in MODES:
            raise ValueError(f"console mode must be one of {', '.join(MODES)}, not {mode!r}")

        self.mode = mode
        self._stream = stream
        self._queue_bytes = queue_bytes
        self._printed = 0
        self._accepted = 0
        self._dropped = 0
        self._told_dropped = 0
        self._ended = mode == "off"
        self._reset()
        _sinks.add(self)

    def _reset(self) -> None:
        """Set up an empty queue; in a forked child the thread and its locks are gone."""
        self._queue: deque[bytes | threading.Event] = deque()  # events, and the markers of who flushes
        self._queued = 0
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    # -- the emitting threads ------------------------------------------------------------------------------------

    def accept(self, record: EventRecord) -> None:
        """Queue one event. Never blocks, never raises."""
        if self.mode == "off":
            return

        line = record.encoded
        size = len(line)
        # Single additions of plain numbers: CPython switches threads at calls, and there is none in between.
        self._accepted += 1
        if self._ended or self._closing or self._queued + size > self._queue_bytes:
            self._dropped += 1
            return

        self._queued += size
        self._queue.append(line)
        if not self._bell.is_set():
            self._bell.set()

        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._closing:
                return

            thread = threading.Thread(target=self._run, name="flowdeck-console", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending
                self._ended = True
                return

            self._thread = thread

    def flush(self, timeout: float) -> bool:
        """Wait until everything accepted is printed, at most ``timeout`` seconds. Return whether it is."""
        if self._ended or self._thread is None:
            return self._ended or not self._queue

        marker = threading.Event()
        self._queue.append(marker)
        self._bell.set()
        return marker.wait(timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Print what is queued, within ``timeout`` seconds, and stop. Closing twice does nothing."""
        if self._closing:
            return

        self._closing = True
        self._bell.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

        self._ended = True

    def statistics(self) -> dict[str, int | float | str]:
        """Return what was accepted, printed and dropped."""
        return {
            "mode": self.mode,
            "accepted": self._accepted,
            "printed": self._printed,
            "dropped": self._dropped,
            "queued": len(self._queue),
        }

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            if self._queue:
                self._print_batch()
            elif self._closing:
                break
            else:
                self._bell.wait()
                self._bell.clear()  # before the next look at the queue: what is appended after it rings again
                if not self._closing:
                    time.sleep(LINGER_S)

        self._discard()

    def _print_batch(self) -> None:
        parts: list[str] = []
        size = 0
        count = 0
        markers: list[threading.Event] = []
        while self._queue and size < BATCH:
            line = self._queue.popleft()
            if isinstance(line, threading.Event):
                markers.append(line)
                continue

            length = len(line)
            self._queued -= length
            count += 1
            text = self._format(line)
            size += len(text)
            parts.append(text)

        if self._dropped > self._told_dropped:
            parts.append(f"  … {self._dropped - self._told_dropped} events not shown: the terminal is too slow\n")
            self._told_dropped = self._dropped

        if self._write("".join(parts)):
            self._printed += count
        else:
            self._dropped += count

        for marker in markers:
            marker.set()

    def _discard(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._dropped += 1

        self._queued = 0

    def _format(self, line: bytes) -> str:
        try:
            return format_event(_decode(line), detail=self.mode == "detail")
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


def format_event(event: dict[str, Any], *, detail: bool = False) -> str:
    """Return an event (decoded from the wire) as text that ends with a line break."""
    stamp = event.get("timestamp") or 0
    clock = time.strftime("%H:%M:%S", time.localtime(stamp / 1000))
    meta = event.get("meta") or {}
    run = event.get("run") or {}
    words = [f"{clock}.{stamp % 1000:03d}", f"{event.get('level', ''):<8}", str(event.get("event_type", ""))]
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

    text = strip_control(" ".join(words)) + "\n"
    return text + _details(event) if detail else text


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
        target: the mode, ``"simple"`` by default.
        options: those of :class:`ConsoleSink`.

    Raises:
        ValueError: an unknown mode.
    """
    return ConsoleSink(target or "simple", **options)


_sinks: weakref.WeakSet[ConsoleSink] = weakref.WeakSet()


def _reset_all() -> None:
    for sink in list(_sinks):
        sink._reset()


os.register_at_fork(after_in_child=_reset_all)
