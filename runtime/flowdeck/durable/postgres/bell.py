"""The listener: hears that somebody has changed something (``LISTEN``), and wakes those who wait for it.

A notification is a hint. It may be lost with a connection, so whoever waits looks again after :data:`POLL_SECONDS` in
any case, and after every reconnection at once.
"""

from __future__ import annotations

import os
import selectors
import threading
import weakref
from contextlib import suppress
from typing import Any, Final

import psycopg

from flowdeck.durable.postgres.address import Address
from flowdeck.durable.postgres.link import connect
from flowdeck.layout import StoreError

__all__ = ["POLL_SECONDS", "Bell"]

POLL_SECONDS: Final = 2.0
"""How often one who waits looks without having heard anything."""

RECONNECT_SECONDS: Final = (0.05, 1.0)


class Bell:
    """Counts changes of a store. The thread and its connection begin with the first :meth:`wait`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._reset()
        _bells.add(self)

    def _reset(self) -> None:
        self.count = 0
        """Rises when something may have changed."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._listening = False

    @property
    def poll_seconds(self) -> float:
        """How soon to look again: sooner while the server cannot tell us anything."""
        return POLL_SECONDS if self._listening else POLL_SECONDS / 8

    def wait(self, seen: int, timeout: float) -> int:
        """Sleep until the count differs from ``seen``, at most ``timeout`` seconds; return it."""
        self._start()
        with self._changed:
            if self.count == seen and timeout > 0:
                self._changed.wait(timeout)

            return self.count

    def ring(self) -> None:
        """Wake everybody."""
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread and wake everybody."""
        self._stopped.set()
        with self._changed:
            if self._pipe is not None:
                os.write(self._pipe[1], b"x")

        self.ring()

    def _start(self) -> None:
        if self._thread is not None or self._stopped.is_set():
            return

        with self._changed:
            if self._thread is None:
                self._pipe = os.pipe()
                self._thread = threading.Thread(target=self._run, name="flowdeck-bell", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = RECONNECT_SECONDS[0]
        while not self._stopped.is_set():
            with suppress(psycopg.Error, StoreError, OSError):
                connection = connect(self.address)
                try:
                    connection.execute(f"LISTEN {self.address.channel}".encode())
                    self._listening = True
                    pause = RECONNECT_SECONDS[0]
                    self.ring()  # what was said meanwhile was not heard
                    self._listen(connection)
                finally:
                    self._listening = False
                    with suppress(psycopg.Error):
                        connection.close()

            self._stopped.wait(pause)
            pause = min(pause * 2, RECONNECT_SECONDS[1])

        with self._changed:
            for descriptor in self._pipe or ():
                os.close(descriptor)

            self._pipe = None

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        assert self._pipe is not None
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._pipe[0], selectors.EVENT_READ)
            while not self._stopped.is_set():
                selector.select()
                if list(connection.notifies(timeout=0)):
                    self.ring()


_bells: weakref.WeakSet[Bell] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for bell in list(_bells):
        bell._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)
