"""The clauses are worth something for SQLite too: a dozen stores, wrong on purpose, fail the clauses meant for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.durable.clauses import CLAUSES
from tests.durable.shelves import SqliteBench

from flowdeck.durable import SqliteStore, _commits, _inputs, _requests, sqlite
from flowdeck.durable._control_writer import ControlWriter

Patch = pytest.MonkeyPatch


def no_token(patch: Patch) -> None:
    """Looks at the sequence alone."""
    patch.setattr(_commits, "_ADVANCE", _commits._ADVANCE.replace("token = ?", "? IS NOT NULL"))


def no_sequence(patch: Patch) -> None:
    """Looks at the token alone."""
    patch.setattr(_commits, "_ADVANCE", _commits._ADVANCE.replace("AND seq = ?", "AND ? IS NOT NULL"))


def says_yes(patch: Patch) -> None:
    """Refuses, and says that it is committed."""
    inner = _commits.write_commits
    patch.setattr("flowdeck.durable._control_writer.write_commits", lambda *a: inner(*a) and {})


def half_commits(patch: Patch) -> None:
    """Writes a commit's inputs in one transaction and its changes in another, if it comes to that."""

    def commit(self: Any, connection: sqlite3.Connection, batch: Any, items: list[Any]) -> None:
        for item in items:
            for change in getattr(item, "changes", ()):
                batch.add(change)

        inner(self, connection, batch, items)

    inner = ControlWriter._commit
    patch.setattr(ControlWriter, "_commit", commit)


def steals(patch: Patch) -> None:
    """Lets anybody claim anything."""
    patch.setattr(SqliteStore, "_runs_elsewhere", lambda *a: False)


def same_token(patch: Patch) -> None:
    """Does not raise the token with a claim."""
    inner = SqliteStore._claimed

    def claimed(self: SqliteStore, connection: sqlite3.Connection, execution_id: str, *more: Any) -> Any:
        claim = inner(self, connection, execution_id, *more)
        connection.execute("UPDATE durable SET token = token - 1 WHERE execution_id = ?", (execution_id,))
        claim.token -= 1
        return claim

    patch.setattr(SqliteStore, "_claimed", claimed)


def forgets_parking(patch: Patch) -> None:
    """Takes every parked execution for a lost one."""
    patch.setattr(_commits, "_ADVANCE", _commits._ADVANCE.replace("parked = ?", "parked = 0 AND ?"))


def loses_early_answers(patch: Patch) -> None:
    """Forgets answers to questions that were not asked yet."""
    inner = SqliteStore.read_inbox

    def read(self: SqliteStore, execution_id: str) -> Any:
        known = {row.id for row in self.list_interrupts(open_only=False)}
        return [row for row in inner(self, execution_id) if row.kind != "resume" or row.target in known]

    patch.setattr(SqliteStore, "read_inbox", read)


def answers_twice(patch: Patch) -> None:
    """Takes every answer."""
    patch.setattr(_requests.Request, "_refused_answer", lambda *a: None)


def prunes_the_open(patch: Patch) -> None:
    """Retention takes what still waits."""
    patch.setattr(sqlite, "OLD", "SELECT id FROM executions WHERE coalesce(?, ?, ?) IS NOT NULL LIMIT ?")


def merges_away(patch: Patch) -> None:
    """Keeps only the last commit of an execution that has ended."""

    def merge(connection: sqlite3.Connection, key: int) -> None:
        connection.execute(
            "DELETE FROM inputs WHERE key = ? AND id < (SELECT max(id) FROM inputs WHERE key = ?)", (key, key)
        )

    patch.setattr(_commits, "_merge", merge)


def newest_snapshot(patch: Patch) -> None:
    """Begins every replay at the last snapshot, also of points before it."""
    inner = _inputs.read

    def read(connection: sqlite3.Connection, execution_id: str, at: int | None = None) -> Any:
        stored = inner(connection, execution_id, at)
        last = inner(connection, execution_id, None)
        stored.snapshot = last.snapshot
        return stored

    patch.setattr(_inputs, "read", read)


MUTANTS: dict[Callable[[Patch], None], str] = {
    no_token: "append_with_a_stale_token_is_refused",
    no_sequence: "append_with_a_gap_is_refused",
    says_yes: "append_with_an_old_seq_is_refused",
    half_commits: "a_fenced_acknowledgement_is_none",
    steals: "claim_of_a_living_owner_is_refused",
    same_token: "claim_raises_the_token",
    forgets_parking: "work_leaves_parked_ones_alone",
    loses_early_answers: "an_early_answer_is_kept",
    answers_twice: "the_first_answer_wins",
    prunes_the_open: "prune_keeps_the_open",
    merges_away: "history_survives_the_end",
    newest_snapshot: "snapshot_of_the_future_is_not_used",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_store_is_found(mutant: Callable[[Patch], None], monkeypatch: Patch, tmp_path: Path) -> None:
    """The clause fails for a store that does what its docstring says, and holds for the same store unbroken."""
    clause = CLAUSES[MUTANTS[mutant]]
    with closing(SqliteBench(tmp_path / "whole")) as bench:
        clause(bench)

    mutant(monkeypatch)
    with closing(SqliteBench(tmp_path / "broken")) as bench, pytest.raises((AssertionError, pytest.fail.Exception)):
        clause(bench)
