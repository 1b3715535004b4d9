"""Events from elsewhere than a store: an exported file, a pipe, or a finished run that is played once more.

Whatever it is becomes a journal in a store of its own, in a temporary folder that goes away with the window; so every
screen, SQL and the filter language work on it as on any other. Lines are numbered anew, because one file may hold those
of many writers. A process that is killed leaves its folder behind; the next that makes one removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from flowdeck.errors import FlowdeckError
from flowdeck.layout import Layout, WriterLock
from flowdeck_devtools.core.clock import Clock, HeldClock, ReplayClock, SystemClock
from flowdeck_devtools.core.wire import head

__all__ = ["Source", "SourceError", "lines_of_file", "open_file", "open_lines", "open_pipe", "remove_left_behind"]

_FOLDER = "flowdeck-file-"
_SETTLED_S = 60.0
_WRITER = "w0000000000000source"
_HEADER = b'{"flowdeck":"journal"'
_BATCH = 512
MOST_ROWS = 400_000
"""Events taken from a database or a Parquet file; the newest ones."""
LONGEST_GAP_S = 3.0
"""A replay passes over longer silence than this, in seconds of the person who looks."""
MAX_LINE = 64 * 1024 * 1024


class SourceError(FlowdeckError):
    """A file or pipe cannot be shown; the message says why."""


class Source:
    """A temporary store with the events, and the clock they are seen by. ``close`` removes it."""

    def __init__(self, words: str) -> None:
        self.words = words
        """What it is, for the top line: ``file``, ``pipe``, ``replay 10x``."""
        self.clock: Clock = SystemClock()
        remove_left_behind()
        self.store = Path(tempfile.mkdtemp(prefix=_FOLDER))
        self._held = os.open(self.store, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.closing = threading.Event()
        self.problem: str | None = None
        self._layout = Layout.create(self.store / "store")
        self.store = self._layout.root
        self._lock = WriterLock(self._layout, _WRITER)
        self._file = self._layout.segment_path(_WRITER, 1).open("wb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        header = {"flowdeck": "journal", "format": 1, "writer": _WRITER, "schema": 1, "pid": os.getpid()}
        self._file.write(msgspec.json.encode(header) + b"\n")
        self._number = 0
        self.newest_us = 0

    def write(self, lines: Iterable[bytes]) -> int:
        """Take lines in; what is no event line stays as it is and is shown as unreadable. Gives how many came."""
        out: list[bytes] = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith(_HEADER):
                continue
            self._number += 1
            out.append(_numbered(text, self._number))
            self.newest_us = max(self.newest_us, head(text).time_us)
        if out:
            self._file.write(b"\n".join(out) + b"\n")
        return len(out)

    def bring_blobs(self, beside: Path) -> None:
        """Large payloads that were exported beside the file."""
        if beside.is_dir():
            shutil.rmtree(self._layout.blobs, ignore_errors=True)
            self._layout.blobs.symlink_to(beside.absolute())

    def feed(self, work: Callable[[], None]) -> None:
        """Let lines come from a thread while the window is open."""

        def run() -> None:
            try:
                work()
            except (OSError, ValueError) as error:
                self.problem = f"the source ended: {error}"

        threading.Thread(target=run, name="flowdeck-source", daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._file.close()
        self._lock.release()
        shutil.rmtree(self.store.parent, ignore_errors=True)
        with suppress(OSError):
            os.close(self._held)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_left_behind() -> None:
    """Remove the folders of this user that no process holds any more: theirs was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(held)
                # One that was made just now may not be locked yet.
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _SETTLED_S:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _numbered(line: bytes, number: int) -> bytes:
    try:
        event = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return line
    event["wseq"] = msgspec.Raw(str(number).encode())
    return msgspec.json.encode(event)


def open_file(path: Path, *, speed: float | None = None) -> Source:
    """The events of a ``.jsonl``, ``.duckdb`` or ``.parquet`` file; with ``speed`` played in their own rhythm.

    Raises:
        SourceError: There is no such file, or it holds no events.
    """
    lines = lines_of_file(path)
    source = open_lines(lines, speed=speed, words="file")
    source.bring_blobs(path.with_name(path.name + ".blobs"))
    return source


def open_lines(lines: Iterable[bytes], *, speed: float | None = None, words: str = "file") -> Source:
    """Lines of events, all at once with the clock held at the last of them, or played in their own rhythm.

    Raises:
        SourceError: There are none.
    """
    if speed is not None:
        return _replay(list(lines), speed)
    source = Source(words)
    try:
        source.write(lines)
        if not source._number:
            raise SourceError("it holds no events")
    except BaseException:
        source.close()
        raise
    source.clock = HeldClock(source.newest_us)
    return source


def _replay(lines: list[bytes], speed: float) -> Source:
    """Events in order of time, each when its time has come on a clock that runs ``speed`` times as fast."""
    timed = sorted(((head(line).time_us, place) for place, line in enumerate(lines) if not line.startswith(_HEADER)))
    timed = [one for one in timed if one[0] > 0]
    if not timed:
        raise SourceError("it holds no events with a time")
    source = Source(f"replay {speed:g}x")
    clock = ReplayClock(timed[0][0], speed)
    source.clock = clock

    def play() -> None:
        at = 0
        while at < len(timed) and not source.closing.is_set():
            ahead = (timed[at][0] - clock.now_us()) / 1e6 / speed
            if ahead > LONGEST_GAP_S:
                clock.skip_to(timed[at][0])
            elif ahead > 0:
                source.closing.wait(ahead)
                continue
            now, begin = clock.now_us(), at
            while at < len(timed) and timed[at][0] <= now and at - begin < _BATCH:
                at += 1
            source.write(lines[place] for _, place in timed[begin:at])
        clock.hold(timed[-1][0])

    source.feed(play)
    return source


def open_pipe(stream: BinaryIO) -> Source:
    """Events as they come through a pipe, one JSON object a line, until it ends."""
    source = Source("pipe")

    def read() -> None:
        while not source.closing.is_set():
            line = stream.readline(MAX_LINE)
            if not line:
                source.words = "pipe ended"
                return
            source.write([line])

    source.feed(read)
    return source


def lines_of_file(path: Path) -> Iterator[bytes]:
    """The event lines of an exported file.

    Raises:
        SourceError: There is no such file, or it is of another kind.
    """
    if not path.is_file():
        raise SourceError(f"{path} is no file" if path.exists() else f"{path} does not exist")
    kind = path.suffix.lower()
    if kind in (".duckdb", ".db", ".parquet"):
        return _of_table(path, kind)
    if kind not in (".jsonl", ".ndjson", ".json", ".log", ".txt", ""):
        raise SourceError(f"{path.name} is of no known kind: .jsonl, .duckdb or .parquet")
    return _of_text(path)


def _of_text(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            yield line


def _of_table(path: Path, kind: str) -> Iterator[bytes]:
    import duckdb

    from flowdeck_devtools.core.history import LINE_COLUMNS, line_of
    from flowdeck_sinks.store._duckdb import spill_place

    quoted = "'" + str(path).replace("'", "''") + "'"
    try:
        connection = duckdb.connect(
            ":memory:" if kind == ".parquet" else str(path),
            read_only=kind != ".parquet",
            config={"temp_directory": spill_place()},
        )
        table = f"read_parquet({quoted})" if kind == ".parquet" else "events"
        newest = f"(SELECT * FROM {table} ORDER BY ts DESC LIMIT {MOST_ROWS})"
        found = connection.execute(f"SELECT {LINE_COLUMNS} FROM {newest} ORDER BY ts, writer, wseq")
    except duckdb.Error as error:
        raise SourceError(f"{path}: {str(error).partition(chr(10))[0]}") from None
    names = [column[0] for column in found.description]
    with connection:
        while rows := found.fetchmany(1_000):
            yield from (line_of(dict(zip(names, row, strict=True))) for row in rows)
