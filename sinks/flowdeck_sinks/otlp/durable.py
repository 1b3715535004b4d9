"""Durable mode in a program: a daemon thread exports the store the program's events are written to.

One process exports for all writers of a store: whoever holds ``cursors/<name>.lock``. When it ends, another that
observes the same store goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Final

from flowdeck.layout import Layout
from flowdeck_sinks.otlp.cursor import CursorBusy
from flowdeck_sinks.otlp.outbox import suppress_instrumentation
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.store_export import CURSOR, Source, StoreExport

__all__ = ["ExportThread"]

log = logging.getLogger("flowdeck.sinks.otlp")

TAKEOVER_SECONDS: Final = 2.0
"""How often a process looks whether it is the one to export."""


class ExportThread(StoreExport):
    """Exports a store in a thread of its own, for as long as the program runs."""

    def __init__(self, layout: Layout, settings: OtlpSettings, *, name: str = CURSOR, source: Source) -> None:
        super().__init__(layout, settings, name=name, source=source)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Export in a daemon thread until :meth:`close`."""
        thread = threading.Thread(target=self._run, name="flowdeck-otlp-export", daemon=True)
        with suppress(RuntimeError):  # the interpreter is ending
            thread.start()
            self._thread = thread

    @property
    def started(self) -> bool:
        """Whether :meth:`start` was called."""
        return self._thread is not None

    def flush(self, timeout: float) -> bool:
        """Wait until everything stored so far is with the collector. Return whether it is."""
        deadline = time.monotonic() + timeout
        if self._source is not None:
            self._source.flush(timeout)

        with self._changed:
            self._flushes += 1
            wanted = self._flushes
            return self._changed.wait_for(
                lambda: self._flushed >= wanted or self._thread is None or not self._thread.is_alive(),
                max(0.0, deadline - time.monotonic()),
            ) and (self._flushed >= wanted)

    def close(self, timeout: float) -> None:
        """Export what is stored, save the cursor and stop, within ``timeout`` seconds. The rest stays in the store."""
        if self._source is not None:
            self._source.flush(timeout / 4)

        self.stop(timeout)
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, self._deadline - time.monotonic()))
            if thread.is_alive():
                log.info("flowdeck otlp: the collector has not answered; the rest is exported when the next one starts")

    def abandon(self) -> None:
        """Close what a forked child inherited; the parent goes on."""
        cursor, reader = self._cursor, self._reader
        self._cursor = self._reader = None
        if cursor is not None:
            cursor.close()

        if reader is not None:
            reader.close()

    def _run(self) -> None:
        suppress_instrumentation()
        try:
            # At least once, also when the end has come already: a short program leaves a position behind.
            while not self._opened():
                if self._stop.wait(TAKEOVER_SECONDS):
                    return

            self.follow()
        except Exception:
            log.exception("flowdeck otlp: the export has ended")
            self._problem = "the export has ended with an internal error; see the log"
        finally:
            self.shut()
            with self._changed:
                self._changed.notify_all()

    def _opened(self) -> bool:
        try:
            self.open()
        except CursorBusy as problem:
            self._busy = problem.pid or -1
            self._flushed_elsewhere()
            return False
        except OSError as problem:
            self._note(f"the cursor cannot be opened: {problem}")
            return False

        self._busy = 0
        return True

    def _flushed_elsewhere(self) -> None:
        """Another process exports what this one stores: there is nothing to wait for here."""
        with self._changed:
            self._flushed = self._flushes
            self._changed.notify_all()
