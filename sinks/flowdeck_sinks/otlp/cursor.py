"""How far an export has come: on disk after every batch, so that a kill repeats nothing but the batch in flight.

Files in ``<store>/cursors/``::

    <name>.json     {"name", "writers": {writer: wseq}, "checkpoint", "updated_us"}   for people and retention
    <name>.state    the same position and the mapper's memory of open runs: what a restart goes on from
    <name>.sent     keys of the items acknowledged since that state, nine bytes each, appended after every batch
    <name>.lock     flock of the process that exports

A restart takes the state, reads on from its position, and passes over the items whose keys were acknowledged already;
ids are hashes of identities, so the same events give the same keys.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from flowdeck.layout import Layout, write_file

__all__ = ["Cursor", "CursorBusy", "read_cursor"]

log = logging.getLogger("flowdeck.sinks.otlp")

_SIGNALS: Final = {"traces": b"t", "logs": b"l"}
_KEY_BYTES: Final = 9
MEET_SECONDS: Final = 300.0
"""Longer than the mapper holds any span that has ended."""


class CursorBusy(Exception):
    """Another process exports with this cursor. ``pid`` is its process id, 0 when unknown."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        super().__init__(f"process {pid} exports from this store already" if pid else "another process exports already")


class _State(msgspec.Struct):
    checkpoint: int
    writers: dict[str, int]
    mapper: bytes = b""
    known: bytes = b""
    """Keys of items that were acknowledged before, and that the mapper holds and will give out again."""


class Cursor:
    """A cursor this process holds. Make it with :meth:`hold`; :meth:`close` lets another process go on."""

    def __init__(self, layout: Layout, name: str, lock: int) -> None:
        self.name = name
        self.position: dict[str, int] = {}
        self.mapper_state = b""
        self.fresh = True
        """There was no cursor of this name yet."""
        self._directory = layout.root / "cursors"
        self._lock: int | None = lock
        self._checkpoint = 0
        self._known: set[bytes] = set()
        self._sent: int | None = None
        self._loaded = time.monotonic()
        self._load()

    @classmethod
    def hold(cls, layout: Layout, name: str) -> Cursor:
        """Take the cursor ``name`` of a store.

        Raises:
            CursorBusy: another process holds it.
            OSError: the store cannot be written.
        """
        directory = layout.root / "cursors"
        directory.mkdir(0o700, exist_ok=True)
        path = directory / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = 0
            with suppress(ValueError, OSError):
                pid = int(os.pread(descriptor, 32, 0).split()[0])
            os.close(descriptor)
            raise CursorBusy(pid) from None

        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return cls(layout, name, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def _path(self, kind: str) -> Path:
        return self._directory / f"{self.name}.{kind}"

    def _load(self) -> None:
        public = read_cursor(self._path("json"))
        if public is None:
            return  # deleted by somebody who wants to begin anew, or never made

        self.fresh = False
        number, self.position = public
        self._checkpoint = number
        try:
            state = msgspec.msgpack.decode(self._path("state").read_bytes(), type=_State)
        except (OSError, msgspec.DecodeError):
            return

        # The state is written first: a kill in between leaves it one ahead.
        if state.checkpoint in (number, number + 1):
            self.position = dict(state.writers)
            self.mapper_state = state.mapper
            self._checkpoint = state.checkpoint
            self._known = _keys(state.known)

        with suppress(OSError):
            content = self._path("sent").read_bytes()
            if int.from_bytes(content[:8], "big") == self._checkpoint:
                self._known |= _keys(content[8:])

    def forget_mapper(self) -> None:
        """Go on without the mapper's memory: another version of the library wrote it."""
        self.mapper_state = b""

    def is_sent(self, signal: str, key: bytes) -> bool:
        """Whether an item was acknowledged before a restart. Asked once for each item: it is made once more only."""
        name = _SIGNALS[signal] + key
        if name not in self._known:
            return False

        self._known.discard(name)
        return True

    @property
    def repeats(self) -> int:
        """How many acknowledged items a restart may meet again."""
        return len(self._known)

    def sent(self, signal: str, keys: Iterable[bytes]) -> None:
        """Note acknowledged items.

        Raises:
            OSError: the disk refuses.
        """
        if self._sent is None:
            self._begin_sent()

        letter = _SIGNALS[signal]
        assert self._sent is not None
        os.write(self._sent, b"".join([letter + key for key in keys]))

    def _begin_sent(self) -> None:
        before = b""
        with suppress(OSError):  # what was noted since the present state, before a restart
            before = self._path("sent").read_bytes()

        header = self._checkpoint.to_bytes(8, "big")
        kept = b"".join(_keys(before[8:])) if before.startswith(header) else b""
        write_file(self._path("sent"), header + kept)
        self._sent = os.open(self._path("sent"), os.O_WRONLY | os.O_APPEND)

    def checkpoint(self, position: dict[str, int], mapper_state: bytes) -> None:
        """Save a position whose items are all acknowledged, with the mapper's memory at that position.

        Raises:
            OSError: the disk refuses; the cursor on disk stays as it was.
        """
        if time.monotonic() - self._loaded > MEET_SECONDS:
            self._known.clear()  # whatever the mapper held at the restart has been given out again

        number = self._checkpoint + 1
        state = _State(number, position, mapper_state, b"".join(self._known))
        write_file(self._path("state"), msgspec.msgpack.encode(state))
        self._checkpoint = number
        self._close_sent()
        about: dict[str, Any] = {
            "name": self.name,
            "writers": position,
            "checkpoint": number,
            "updated_us": time.time_ns() // 1000,
        }
        write_file(self._path("json"), json.dumps(about).encode() + b"\n")
        self.fresh = False

    def status(self, about: dict[str, Any]) -> None:
        """Leave the exporter's counters for ``flowdeck doctor``. Never raises."""
        with suppress(OSError, TypeError, ValueError):
            write_file(self._path("status"), json.dumps(about).encode() + b"\n")

    def _close_sent(self) -> None:
        if self._sent is not None:
            os.close(self._sent)
            self._sent = None

    def close(self) -> None:
        """Let go of the cursor. Safe to call twice."""
        self._close_sent()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _keys(content: bytes) -> set[bytes]:
    whole = len(content) - len(content) % _KEY_BYTES  # a kill may have cut the last one off
    return {content[at : at + _KEY_BYTES] for at in range(0, whole, _KEY_BYTES)}


def read_cursor(path: Path) -> tuple[int, dict[str, int]] | None:
    """Return checkpoint number and position of a cursor file; ``None`` when there is none that can be read."""
    try:
        about = json.loads(path.read_bytes())
        writers = about["writers"]
        position = {str(writer): int(wseq) for writer, wseq in writers.items()}
        return int(about.get("checkpoint", 0)), position
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
