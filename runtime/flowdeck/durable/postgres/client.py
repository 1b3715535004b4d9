"""What is open in PostgreSQL, and how it is answered: a :class:`~flowdeck.durable.ControlClient` over a URL."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import psycopg

from flowdeck.durable._requests import Request
from flowdeck.durable._rows import AnswerResult
from flowdeck.durable.client import ControlClient
from flowdeck.durable.postgres.address import Address, address_of
from flowdeck.durable.postgres.bell import Bell
from flowdeck.durable.postgres.link import Link, Session
from flowdeck.durable.postgres.owners import is_alive

__all__ = ["PostgresClient"]

_OUTCOME: Final = "SELECT outcome, detail FROM inbox WHERE id = %s"
_INSERT: Final = """
    INSERT INTO inbox (execution_id, kind, target, payload, dedup_key, actor, created_us)
    VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id
"""
T = TypeVar("T")


class PostgresClient(ControlClient):
    """Reads and answers over PostgreSQL. Thread-safe and fork-safe; made by ``ControlClient("postgresql://...")``.

    Args:
        store_path: the URL.
        busy_timeout: seconds a question is asked again when the server is away.

    Raises:
        StoreError: the server cannot be used; every method raises it too.
    """

    def __init__(self, store_path: str | os.PathLike[str] | Address, *, busy_timeout: float = 5.0) -> None:
        found = address_of(store_path)
        assert found is not None
        self.address = found
        self._patience = busy_timeout
        self._link = Link(self.address)
        self._bell = Bell(self.address)
        self._link.run(lambda session: None, begin=None, patience=busy_timeout)

    @property
    def place(self) -> str:
        return str(self.address)

    def close(self) -> None:
        self._link.close()
        self._bell.stop()
        self._bell = Bell(self.address)

    def owner_alive(self, writer: str) -> bool:
        """Tell whether the process that owns an execution still lives, as far as can be told from here."""
        return self._look(lambda session: is_alive(session, writer), False)

    def version(self) -> int:
        """Return a number that changes when somebody may have changed something."""
        return self._bell.wait(-1, 0.0)

    def wait_outcome(self, row_id: int, timeout: float) -> AnswerResult:
        deadline = time.monotonic() + timeout
        while True:
            heard = self.version()
            found = self._look(lambda session: session.ask(_OUTCOME, (row_id,)).fetchone(), None)
            if found is None:
                return AnswerResult(None, "unknown", f"no inbox row {row_id}")

            if found[0] is not None:
                return AnswerResult(row_id, found[0], found[1])

            left = deadline - time.monotonic()
            if left <= 0:
                return AnswerResult(row_id, None, "the owner of the execution has not taken it yet")

            self._bell.wait(heard, min(self._bell.poll_seconds, left))

    def _submit(self, request: Request) -> AnswerResult:
        asked = _Request(*request)
        return self._link.run(
            lambda session: asked.decide(session, self.address.channel), begin="BEGIN", patience=self._patience
        )

    def _look(self, question: Callable[[Any], T], nothing: T) -> T:
        return self._link.read(question, patience=self._patience)


class _Request(Request):
    """Whoever decides about an execution holds its row: requests of it come one after the other, and before or after
    its end."""

    __slots__ = ()

    def decide(self, session: Session, channel: str) -> AnswerResult:
        session.ask("SELECT FROM executions WHERE id = %s FOR NO KEY UPDATE", (self.execution_id,))
        connection: Any = session
        result = self._repetition(connection) or self._refusal(connection)
        if result is not None:
            return result

        try:
            with session.connection.transaction():
                result = self._insert(connection)
        except psycopg.errors.UniqueViolation:
            # A start has no row to hold: somebody with the same key was quicker just now.
            result = self._repetition(connection)
            assert result is not None
            return result

        session.ask("SELECT pg_notify(%s, '')", (channel,))
        return result

    def _insert(self, connection: Any) -> AnswerResult:
        row = connection.ask(
            _INSERT,
            (
                *(self.execution_id, self.kind, self.target, self.payload, self.dedup_key, self.actor),
                time.time_ns() // 1_000,
            ),
        ).fetchone()
        if self.kind == "resume":
            connection.ask(
                "UPDATE interrupts SET answer_row = %s WHERE id = %s AND execution_id = %s",
                (row[0], self.target, self.execution_id),
            )

        return AnswerResult(row[0], None)
