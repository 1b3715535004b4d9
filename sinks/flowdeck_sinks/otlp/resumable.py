"""Which open executions can still go on, although the process that ran them is gone."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import Final

from flowdeck.layout import Layout

__all__ = ["resumable_executions"]

log = logging.getLogger("flowdeck.sinks.otlp")

_WAITING: Final = "SELECT id FROM executions WHERE finished_us IS NULL AND status = 'waiting'"
"""Also those that are not durable: somebody may have saved them and load them elsewhere."""
_DURABLE: Final = "SELECT execution_id FROM durable WHERE finished = 0"


def resumable_executions(layout: Layout) -> set[str]:
    """Return the executions that ``state.db`` holds open: the end of their spans is still to come.

    What cannot be read counts as nothing; the reason is logged.
    """
    if not layout.state_db.exists():
        return set()

    found: set[str] = set()
    try:
        with closing(sqlite3.connect(f"{layout.state_db.as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, query in (("executions", _WAITING), ("durable", _DURABLE)):
                if table in tables:
                    found.update(str(row[0]) for row in connection.execute(query))
    except sqlite3.Error as problem:
        log.info("flowdeck otlp: state.db cannot be read: %s", problem)

    return found
