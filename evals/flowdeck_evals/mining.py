"""What production has to teach: stored runs that failed, were slow, or needed a person, one of each kind.

Two queries whatever the size of the store: candidates with the kind of what happened to them (columns and event types
narrow it down before anything is read), then the paths of those chosen. Runs of one kind that took one path are a
*cluster*; its newest run stands for it. Source: the evals reference, §3.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from flowdeck.errors import EvalError

__all__ = ["WHATS", "Cluster", "mine"]

What = Literal["failures", "slow", "answered"]
WHATS: Final[tuple[What, ...]] = ("failures", "slow", "answered")
NEWEST_OF_A_KIND: Final = 1_000
"""Runs of one kind whose paths are looked at; the others count, but their paths are not read."""


class Cluster(NamedTuple):
    """Runs to which the same happened on the same path."""

    key: str
    """The same in every mining of every store."""
    flow: str
    kind: str
    """The error's class and shape, ``slow``, or what was asked."""
    path: tuple[str, ...]
    """Its steps; one that repeats stands once."""
    runs: tuple[str, ...]
    """Execution ids, the newest first."""
    seen: int
    """Runs of this kind, whatever their path."""


_PRODUCTION: Final = """root_run_id NOT IN (SELECT run FROM (
  SELECT payload ->> '$.run_id' AS run FROM events WHERE event_type = 'eval.round_finished') WHERE run IS NOT NULL)"""
"""Rounds of evaluations are no production, though they may lie in the same store."""

_FAILURES: Final = f"""
SELECT execution_id, any_value(flow_name) AS flow, min(fingerprint) AS kind,
  any_value(coalesce(error_type, '') || ': ' || coalesce(shape, '')) AS said, max(ts) AS ts
FROM errors WHERE event_type = 'triggerflow.execution_failed' AND execution_id IS NOT NULL AND {_PRODUCTION}
GROUP BY execution_id"""

_SLOW: Final = f"""
SELECT execution_id, flow, 'slow' AS kind, 'slow' AS said, ts
FROM (
  SELECT execution_id, flow_name AS flow, ts, duration_ms,
    quantile_cont(duration_ms, 0.99) OVER (PARTITION BY flow_name) AS usual
  FROM events WHERE event_type = 'triggerflow.execution_completed' AND duration_ms IS NOT NULL
    AND {_PRODUCTION}
)
WHERE duration_ms >= coalesce($slower_ms, usual)"""

_ANSWERED: Final = f"""
SELECT execution_id, any_value(flow_name) AS flow, coalesce(min(step_name), 'a person') AS kind,
  'answered at ' || coalesce(min(step_name), 'a person') AS said, max(ts) AS ts
FROM events WHERE event_type = 'triggerflow.interrupt_raised' AND execution_id IS NOT NULL
  AND execution_id IN (SELECT execution_id FROM events
    WHERE event_type IN ('triggerflow.interrupt_answered', 'triggerflow.execution_resumed'))
  AND {_PRODUCTION}
GROUP BY execution_id"""

_CANDIDATES: Final = """
SELECT execution_id, flow, kind, said, seen FROM (
  SELECT *, count(*) OVER (PARTITION BY flow, kind) AS seen,
    row_number() OVER (PARTITION BY flow, kind ORDER BY ts DESC, execution_id) AS place
  FROM ({chosen}) WHERE {where}
) WHERE place <= $newest ORDER BY seen DESC, kind, place"""

_PATHS: Final = """
SELECT execution_id, list(step_name ORDER BY ts, wseq) FROM events
WHERE event_type = 'chunk.started' AND execution_id IN (SELECT unnest($1)) AND step_name IS NOT NULL
GROUP BY execution_id"""


def mine(
    store: str | Path | None,
    what: Sequence[What] = WHATS,
    *,
    flow: str | None = None,
    since: str | None = None,
    slower_s: float | None = None,
    newest: int = NEWEST_OF_A_KIND,
) -> list[Cluster]:
    """Return the clusters of a store, those seen most often first.

    Args:
        what: which runs.
        flow: only runs of this flow.
        since: only runs that ended so since: a SQL timestamp such as ``2026-11-01``, UTC.
        slower_s: what is slow; the 99th percentile of its flow when omitted.

    Raises:
        EvalError: ``since`` is no time.
        StoreError: the store cannot be read.
    """
    from flowdeck.layout import resolve_store
    from flowdeck_sinks.store import Reader

    if since is not None:
        try:
            datetime.fromisoformat(since)
        except ValueError:
            raise EvalError(f"{since!r} is no time such as 2026-11-01 or 2026-11-01T12:00") from None

    out: list[Cluster] = []
    with Reader(resolve_store(store)) as reader:
        for word in what:
            values: dict[str, Any] = {"newest": newest}
            where = ["true"]
            if flow is not None:
                where.append("flow = $flow")
                values["flow"] = flow

            if since is not None:
                where.append("ts >= $since::TIMESTAMP")
                values["since"] = since

            if word == "slow":
                values["slower_ms"] = None if slower_s is None else slower_s * 1000

            chosen = {"failures": _FAILURES, "slow": _SLOW, "answered": _ANSWERED}[word]
            sql = _CANDIDATES.format(chosen=chosen, where=" AND ".join(where))
            rows = [tuple(row) for row in reader.query(sql, values)]
            paths = dict(map(tuple, reader.query(_PATHS, [[row[0] for row in rows]]))) if rows else {}
            out += _clusters(rows, paths)

    return sorted(out, key=lambda one: (-one.seen, -len(one.runs), one.key))


def _clusters(rows: Iterable[tuple[Any, ...]], paths: dict[str, list[str]]) -> list[Cluster]:
    found: dict[tuple[str, str, str, tuple[str, ...]], tuple[list[str], int]] = {}
    for execution_id, flow, kind, said, seen in rows:
        path = _collapsed(paths.get(execution_id, []))
        runs, _ = found.setdefault((flow or "", kind, said, path), ([], seen))
        runs.append(execution_id)

    return [
        Cluster(_key(flow, kind, path), flow, said, path, tuple(runs), seen)
        for (flow, kind, said, path), (runs, seen) in found.items()
    ]


def _collapsed(steps: Sequence[str]) -> tuple[str, ...]:
    """Steps in the order they first came: how often a loop turned does not make another path."""
    return tuple(dict.fromkeys(steps))


def _key(flow: str, kind: str, path: tuple[str, ...]) -> str:
    return hashlib.blake2b("\0".join((flow, kind, *path)).encode(), digest_size=6).hexdigest()
