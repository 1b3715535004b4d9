"""Which events were received already: a window of the newest, and what it begins with after a restart."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Final

from flowdeck.layout import Layout
from flowdeck_sinks.collect.lines import SOURCE

__all__ = ["WINDOW", "Seen", "stored_ids"]

WINDOW: Final = 262_144
"""Events that are surely remembered; up to twice as many are. 60 bytes each."""

log: Final = logging.getLogger("flowdeck.collect")


class Seen:
    """The events of the last deliveries. Two generations: the older one goes when the newer one is full."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._new: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, event_id: str) -> bool:
        key = hash(event_id)
        return key in self._new or key in self._old

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, event_id: str) -> None:
        """Remember an event."""
        self._new.add(hash(event_id))
        if len(self._new) >= self._window:
            self._old, self._new = self._new, set()

    def forget(self, event_ids: Iterable[str]) -> None:
        """Forget events that were not written after all."""
        keys = {hash(event_id) for event_id in event_ids}
        self._new -= keys
        self._old -= keys

    def extend(self, event_ids: Iterable[str]) -> None:
        """Remember events, oldest first."""
        for event_id in event_ids:
            self.add(event_id)


def stored_ids(store: str | os.PathLike[str], window: int = WINDOW) -> list[str]:
    """Return the ids of the events received last that a store holds, oldest first.

    What a collector that was killed had written is among them, so a sender that repeats what it got no answer to is
    understood. Without DuckDB there are none, and a warning.
    """
    if find_spec("duckdb") is None:
        log.warning("flowdeck collect: without DuckDB a delivery repeated after a restart cannot be recognised")
        return []

    from flowdeck_sinks.store import connect

    Layout.open(store)
    # Writer ids sort by start, wseq by time of receipt: the events' own times are the senders'.
    with connect(store) as connection:
        rows = connection.execute(
            f"SELECT event_id FROM events WHERE source = '{SOURCE}' ORDER BY writer DESC, wseq DESC LIMIT {int(window)}"
        ).fetchall()
    return [row[0] for row in reversed(rows)]
