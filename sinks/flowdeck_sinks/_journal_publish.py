"""When the journal asks for a publisher: a low-priority child process, never work of its own.

Asked for when the last open execution of the process ended, when the journal has grown, and at close; started when
what lies in the journal is worth it, nobody else is at it, and ``FLOWDECK_PUBLISH`` is not ``off``. The child is not
waited for and outlives the process.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from flowdeck.layout import Layout, is_locked

__all__ = ["PUBLISH_VARIABLE", "SERVED_BYTES", "PublishTrigger"]

PUBLISH_VARIABLE: Final = "FLOWDECK_PUBLISH"
"""``off`` keeps the sink from starting a publisher; ``flowdeck store publish`` still works."""
BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""A live tail of so many bytes costs a query 4 ms: from here on a publisher pays."""
BACKLOG_FILES: Final = 32
"""Each further file costs a query 0.45 ms."""
GROWTH_BYTES: Final = BACKLOG_BYTES
GROWTH_FILES: Final = 8
"""So many bytes, or segments, of one writer ask for a publisher although executions are open."""
PAUSE_SECONDS: Final = 30.0
"""Least time between two children of one sink, except at close."""
LOOK_SECONDS: Final = 1.0
"""Least time between two looks at whether one is wanted, or at work."""
SERVED_BYTES: Final = 2 * 1024 * 1024
"""While a publisher is at work a segment is sealed at this size: queries read 1.7 ms a MB of what is not published."""

_TYPE_AT: Final = len('{"event_id":"') + 32 + len('","event_type":"')
_PREFIX: Final = b"triggerflow.execution_"
_CHANGES: Final = {b"started": 1, b"recovered": 1, b"closed": -1}

_log: Final = logging.getLogger("flowdeck.sinks.journal")


class PublishTrigger:
    """Watches what one sink writes. Used by its writer thread alone."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open = 0
        self._written = 0
        self._segments = 0
        self._next = 0.0
        self._next_served = 0.0
        self._child: int | None = None

    def saw(self, lines: Sequence[bytes], written: int, segments: int) -> bool:
        """Take note of lines as they were accepted, and of all bytes and segments so far; return whether to publish."""
        ended = False
        try:
            # Where the type begins in a line that carries an id of ours; others are not executions.
            for line in [line for line in lines if line.startswith(_PREFIX, _TYPE_AT)]:
                at = _TYPE_AT + len(_PREFIX)
                change = _CHANGES.get(line[at : line.find(b'"', at)], 0)
                self._open = max(0, self._open + change)
                ended = ended or (change < 0 and not self._open)
        except (TypeError, AttributeError):
            pass  # a line that is not bytes: it was counted as lost

        if written - self._written >= GROWTH_BYTES or segments - self._segments >= GROWTH_FILES:
            self._written, self._segments = written, segments
            ended = True
        return ended and time.monotonic() >= self._next

    def served(self) -> bool:
        """Return, about once a second, whether a publisher is there to take what is sealed."""
        now = time.monotonic()
        if now < self._next_served:
            return False

        self._next_served = now + LOOK_SECONDS
        return is_locked(self._layout.keeper_lock)

    def start(self) -> int | None:
        """Start a publisher unless there is no need, no way or another one; return its process id.

        Never raises and never waits.
        """
        try:
            self._reap()
            if self._child is None and self.wanted():
                self._child = _spawn(self._layout)
                self._next = time.monotonic() + PAUSE_SECONDS
        except Exception as error:
            _log.info("flowdeck journal: no publisher could be started: %s", error)
            return None

        return self._child

    def wanted(self) -> bool:
        """Return whether a publisher may be started, and enough lies in the journal, of whichever writers."""
        self._next = time.monotonic() + LOOK_SECONDS
        return (
            os.environ.get(PUBLISH_VARIABLE, "").lower() != "off"
            and bool(sys.executable)
            and self._worth_it()
            and find_spec("duckdb") is not None
            and not self._busy()
        )

    def _worth_it(self) -> bool:
        files = size = 0
        with suppress(OSError), os.scandir(self._layout.journal) as entries:
            for entry in entries:
                files += 1
                size += entry.stat().st_size
        return files >= BACKLOG_FILES or size >= BACKLOG_BYTES

    def _busy(self) -> bool:
        """Whether somebody publishes now, or will by himself."""
        return is_locked(self._layout.keeper_lock) or is_locked(self._layout.publish_lock)

    def _reap(self) -> None:
        """Let go of a child that has ended."""
        if self._child is not None:
            try:
                if os.waitpid(self._child, os.WNOHANG)[0]:
                    self._child = None
            except ChildProcessError:  # somebody else waited for it
                self._child = None


def _spawn(layout: Layout) -> int:
    """Start the publisher in a session of its own, with nothing of ours open; return its process id."""
    # posix_spawn: it works while the interpreter ends, where a fork is refused since Python 3.12.
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    command = [sys.executable, "-P", "-m", "flowdeck_sinks.store.publisher", str(layout.root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), PUBLISH_VARIABLE: "off"}
    try:
        return os.posix_spawn(sys.executable, command, environment, file_actions=null, setsid=True)
    except NotImplementedError:  # an older macOS: the child shares our session, no more
        return os.posix_spawn(sys.executable, command, environment, file_actions=null)
