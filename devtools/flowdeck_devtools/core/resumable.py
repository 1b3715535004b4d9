"""Which open runs somebody can go on with: ``state.db`` knows, the event history does not."""

from __future__ import annotations

from pathlib import Path

__all__ = ["resumable_executions"]


def resumable_executions(store: Path) -> list[str]:
    """Return the open executions whose state is stored, so that a worker or ``executions resume`` can go on.

    Raises:
        StoreError: ``state.db`` cannot be read.
    """
    from flowdeck.durable import ControlClient

    with ControlClient(store) as client:
        return client.resumable()
