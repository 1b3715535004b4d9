"""The worker of the control experiment: its store takes every commit, whoever sends it."""

from __future__ import annotations

from typing import Any

from flowdeck.durable import _commits


def advanced(connection: Any, commit: Any) -> int:
    row = connection.execute("SELECT seq FROM durable WHERE execution_id = ?", (commit.execution_id,)).fetchone()
    commit.seq = row[0]  # wherever it stands, it goes on from there
    connection.execute(
        "UPDATE durable SET seq = ?, parked = ?, wake_us = ?, finished = ? WHERE execution_id = ?",
        (commit.seq + commit.count, commit.parked, commit.wake_us, commit.finished, commit.execution_id),
    )
    return 1


_commits._advanced = advanced

import process_worker  # noqa: E402, F401
