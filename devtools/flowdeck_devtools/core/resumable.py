"""Which open runs somebody can go on with: ``state.db`` knows, the event history does not."""

from __future__ import annotations

from pathlib import Path

__all__ = ["resumable_executions"]

_MOST_OPEN = 100_000


def resumable_executions(store: Path) -> list[str]:
    """Return the open executions whose state is stored, so that a worker or ``executions resume`` can go on.

    Raises:
        StoreError: ``state.db`` cannot be read.
    """
    from flowdeck.durable import ControlClient

    with ControlClient(store) as client:
        found = []
        for row in client.list_executions(open_only=True, limit=_MOST_OPEN):
            held = client.durable_info(row.id)
            if held is not None and not held.finished:
                found.append(row.id)
        return found
