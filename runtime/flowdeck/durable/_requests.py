"""One request into the inbox: whether it may stand, decided inside the transaction that would write it."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any, Final, NamedTuple

from flowdeck.durable._batch import TERMINAL
from flowdeck.durable._rows import AnswerResult
from flowdeck.durable._values import decode
from flowdeck.execution.json_schema import check, same_json

__all__ = ["Request", "strict_json"]

_DETAIL_LIMIT: Final = 5
"""How many complaints about a value one message lists."""


class Request(NamedTuple):
    """An inbox row that somebody wants to write. ``payload`` is JSON text."""

    kind: str
    execution_id: str
    target: str | None
    payload: str
    actor: str | None
    dedup_key: str

    def submit(self, connection: sqlite3.Connection) -> AnswerResult:
        """Write the row, or say why not. First answer wins, over all processes.

        Raises:
            sqlite3.Error: Nothing was written.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = self._repetition(connection) or self._refusal(connection) or self._insert(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

        return result

    def _repetition(self, connection: sqlite3.Connection) -> AnswerResult | None:
        """Answer a dedup key that was used before; asked first, so that a retry after success is told so."""
        row = connection.execute(
            "SELECT id, kind, target, payload FROM inbox WHERE execution_id = ? AND dedup_key = ?",
            (self.execution_id, self.dedup_key),
        ).fetchone()
        if row is None:
            return None

        if (row[1], row[2]) == (self.kind, self.target) and same_json(decode(row[3]), decode(self.payload)):
            return AnswerResult(row[0], "duplicate", "the same request was accepted before")

        return AnswerResult(None, "conflict", f"the dedup key {self.dedup_key!r} was used for another request")

    def _refusal(self, connection: sqlite3.Connection) -> AnswerResult | None:
        row = connection.execute("SELECT status FROM executions WHERE id = ?", (self.execution_id,)).fetchone()
        if self.kind == "start":
            known = f"execution {self.execution_id} was started before"
            return None if row is None else AnswerResult(None, "conflict", known)

        if row is None:
            return AnswerResult(None, "unknown", f"no execution {self.execution_id!r} is registered")

        refused = self._refused_answer(connection) if self.kind == "resume" else None
        if refused is None and row[0] in TERMINAL:
            return AnswerResult(None, "rejected", f"execution {self.execution_id} is already {row[0]}")

        return refused

    def _refused_answer(self, connection: sqlite3.Connection) -> AnswerResult | None:
        row = connection.execute(
            "SELECT i.status, i.expires_us, i.record, i.answer_row, coalesce(i.actor, b.actor) "
            "FROM interrupts i LEFT JOIN inbox b ON b.id = i.answer_row WHERE i.id = ? AND i.execution_id = ?",
            (self.target, self.execution_id),
        ).fetchone()
        if row is None:
            return None

        status, expires_us, record, answer_row, actor = row
        if status == "expired" or (status == "waiting" and expires_us is not None and expires_us <= _now_us()):
            return AnswerResult(None, "expired", f"interrupt {self.target} has expired")

        if answer_row is not None or status == "resumed":
            by = f" by {actor}" if actor else ""
            return AnswerResult(None, "conflict", f"interrupt {self.target} was already answered{by}")

        if status != "waiting":
            return AnswerResult(None, "conflict", f"interrupt {self.target} is {status}")

        return _misfit(record, self.payload)

    def _insert(self, connection: sqlite3.Connection) -> AnswerResult:
        row_id = connection.execute(
            "INSERT INTO inbox (execution_id, kind, target, payload, dedup_key, actor, created_us) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.execution_id, self.kind, self.target, self.payload, self.dedup_key, self.actor, _now_us()),
        ).lastrowid
        if self.kind == "resume":
            connection.execute(
                "UPDATE interrupts SET answer_row = ? WHERE id = ? AND execution_id = ?",
                (row_id, self.target, self.execution_id),
            )

        return AnswerResult(row_id, None)


def strict_json(value: Any) -> str:
    """Return ``value`` as JSON text that means exactly it.

    Raises:
        TypeError, ValueError, RecursionError: It has no JSON form (NaN, bytes, a cycle, a broken surrogate, ...).
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    decode(text)
    return text


def _misfit(record: str, payload: str) -> AnswerResult | None:
    """Check an answer against the schema in the interrupt's record; no schema, no objection."""
    fields = decode(record)
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema is None:
        return None

    errors = check(decode(payload), schema).errors
    if not errors:
        return None

    more = f"; and {len(errors) - _DETAIL_LIMIT} more" if len(errors) > _DETAIL_LIMIT else ""
    return AnswerResult(None, "rejected", "; ".join(errors[:_DETAIL_LIMIT]) + more)


def _now_us() -> int:
    return time.time_ns() // 1_000
