"""The worker of the control experiment over PostgreSQL: its store takes every commit, whoever sends it."""

from __future__ import annotations

import sys
from pathlib import Path

from flowdeck.durable.host import Host
from flowdeck.durable.postgres import commits

commits._ADVANCE = (
    commits._ADVANCE.replace("SET seq = t.seq + t.count", "SET seq = d.seq + t.count")
    .replace("AND d.token = t.token AND d.seq = t.seq", "")
    .replace("RETURNING d.key, d.execution_id", "RETURNING d.key, d.execution_id, d.seq - t.count AS stood")
    .replace("SELECT a.key, t.seq, t.count", "SELECT a.key, a.stood, t.count")
)

# Nor does it hear that it was overtaken, which is another way of looking at tokens.
Host.look_around = lambda self: None  # type: ignore[method-assign]
Host.leave = lambda self, hosted: False  # type: ignore[method-assign]

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))
import process_worker  # noqa: E402, F401
