"""The statements of the execution store that are about many executions: finding work, forking, forgetting."""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = [
    "CLAIM",
    "FORGET",
    "FORK_ROW",
    "OLD",
    "PRUNE_BATCH",
    "UNUSED_DEFINITIONS",
    "WORK",
    "transaction",
]

CLAIM: Final = "UPDATE durable SET token = token + 1, parked = 0, blocked = NULL WHERE key = ?"

PRUNE_BATCH: Final = 500
"""Executions forgotten in one transaction, so that nobody waits long for the write lock."""

# Three ways to have something to do, each over an index of its own: ten thousand parked executions cost nothing.
WORK: Final = """
    WITH found(key, why) AS (
        SELECT key, 'lost' FROM durable WHERE finished = 0 AND parked = 0 AND (blocked IS NULL OR :blocked)
        UNION ALL
        SELECT key, 'timer' FROM durable
            WHERE finished = 0 AND parked = 1 AND wake_us IS NOT NULL AND wake_us <= :now
            AND (blocked IS NULL OR :blocked)
        UNION ALL
        SELECT d.key, 'inbox' FROM inbox i JOIN durable d ON d.execution_id = i.execution_id
            WHERE (i.outcome IS NULL OR i.outcome = 'early') AND i.outcome IS NULL AND d.finished = 0 AND d.parked = 1
            AND (d.blocked IS NULL OR :blocked)
        UNION ALL
        SELECT key, 'blocked' FROM durable WHERE :blocked AND finished = 0 AND blocked IS NOT NULL
    )
    SELECT d.execution_id, e.flow_name, e.entrypoint, d.token,
        CASE WHEN f.why = 'lost' AND e.writer = '' THEN 'released' ELSE f.why END
    FROM found f JOIN durable d ON d.key = f.key JOIN executions e ON e.id = d.execution_id
    WHERE e.flow_name IN (SELECT value FROM json_each(:flows))
        AND e.writer NOT IN (SELECT value FROM json_each(:elsewhere)) AND (f.why <> 'lost' OR e.writer <> :me)
    GROUP BY d.key ORDER BY d.key LIMIT :limit
"""

FORK_ROW: Final = """
    INSERT INTO executions (id, writer, status, flow_name, entrypoint, definition, run_id, root_run_id,
        parent_execution_id, task_id, tenant_id, user_id, started_us, updated_us)
    SELECT ?, '', 'created', flow_name, entrypoint, definition, NULL, root_run_id, NULL, task_id, tenant_id, user_id,
        ?, ? FROM executions WHERE id = ?
"""

OLD: Final = """
    SELECT id FROM executions WHERE finished_us IS NOT NULL AND (finished_us < ? OR (? >= 0 AND finished_us < (
        SELECT coalesce(min(finished_us), 0) FROM (
            SELECT finished_us FROM executions WHERE finished_us IS NOT NULL ORDER BY finished_us DESC LIMIT max(?, 0)
        )))) ORDER BY finished_us LIMIT ?
"""

_KEYS: Final = "(SELECT key FROM durable WHERE execution_id IN (SELECT value FROM json_each(?)))"
_IDS: Final = "(SELECT value FROM json_each(?))"
FORGET: Final = (
    f"DELETE FROM inputs WHERE key IN {_KEYS}",
    f"DELETE FROM snapshots WHERE key IN {_KEYS}",
    f"DELETE FROM headers WHERE key IN {_KEYS}",
    f"DELETE FROM durable WHERE execution_id IN {_IDS}",
    f"DELETE FROM interrupts WHERE execution_id IN {_IDS}",
    f"DELETE FROM inbox WHERE execution_id IN {_IDS}",
    f"DELETE FROM executions WHERE id IN {_IDS}",
)
# A plan is named by headers and snapshots; children's plans by inputs only, so those stay while anything is open.
UNUSED_DEFINITIONS: Final = """
    DELETE FROM definitions WHERE NOT EXISTS (SELECT 1 FROM durable)
"""


class transaction:
    """``BEGIN IMMEDIATE`` to ``COMMIT``, or ``ROLLBACK``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
