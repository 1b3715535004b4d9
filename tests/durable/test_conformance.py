"""Every clause holds for every store; and each clause is worth something: ten broken stores each fail at least one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.durable.clauses import CLAUSES
from tests.durable.shelves import MemoryBench, SqliteBench, StoreBench

from flowdeck.durable import MemoryStore
from flowdeck.durable._shelf import Held
from flowdeck.durable.store import Claim, Commit, Done, Retention, Stored
from flowdeck.errors import ExecutionFenced


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreBench]:
    made: StoreBench = MemoryBench() if request.param == "memory" else SqliteBench(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("clause", CLAUSES, ids=list(CLAUSES))
def test_a_store_keeps_the_clause(bench: StoreBench, clause: str) -> None:
    """What the clause's own docstring says."""
    CLAUSES[clause](bench)


def test_there_are_enough_clauses() -> None:
    """Eighty at least, and each says in a sentence what it wants."""
    assert len(CLAUSES) >= 80
    assert all(clause.__doc__ for clause in CLAUSES.values())


# -- stores that are wrong on purpose --------------------------------------------------------------------------------


class NoFence(MemoryStore):
    """Takes commits of whoever sends them."""

    def _fenced(self, commit: Commit) -> Held | None:
        return self.shelf.held.get(commit.execution_id)


class NoTokens(MemoryStore):
    """Looks at the sequence alone."""

    def _fenced(self, commit: Commit) -> Held | None:
        held = self.shelf.held.get(commit.execution_id)
        if commit.header is None and held is not None and held.seq == commit.seq:
            return held

        return super()._fenced(commit)


class NoSequence(MemoryStore):
    """Looks at the token alone."""

    def _fenced(self, commit: Commit) -> Held | None:
        held = self.shelf.held.get(commit.execution_id)
        return (
            held
            if held is not None and held.token == commit.token and commit.header is None
            else super()._fenced(commit)
        )


class HalfCommits(MemoryStore):
    """Writes the changes of a commit although its inputs are refused."""

    def _write(self, commit: Commit) -> None:
        try:
            super()._write(commit)
        except ExecutionFenced:
            held = self.shelf.held.get(commit.execution_id)
            for name, arguments in commit.changes if held is not None else ():
                self._change(held, name, arguments)

            raise


class StealsFromTheLiving(MemoryStore):
    """Lets anybody claim anything."""

    def _runs_elsewhere(self, held: Held) -> bool:
        return False


class SameTokenForAll(MemoryStore):
    """Does not raise the token with a claim."""

    def claim(self, execution_id: str, *, token: int | None = None, force: bool = False) -> Claim:
        claim = super().claim(execution_id, token=token, force=force)
        self.shelf.held[execution_id].token = claim.token = claim.token - 1
        return claim


class LosesEarlyAnswers(MemoryStore):
    """Forgets answers to questions that were not asked yet."""

    def read_inbox(self, execution_id: str) -> list[Any]:
        known = {interrupt for owner, interrupt in self.shelf.interrupts if owner == execution_id}
        return [row for row in super().read_inbox(execution_id) if row.kind != "resume" or row.target in known]


class PrunesTheOpen(MemoryStore):
    """Retention takes what still waits."""

    def prune(self, retention: Retention, *, now_us: int | None = None) -> int:
        for held in self.shelf.held.values():
            held.finished, held.finished_us = True, held.finished_us or 1

        return super().prune(retention, now_us=now_us)


class NewestSnapshotAlways(MemoryStore):
    """Begins every replay at the last snapshot, also of points before it."""

    def _stored(self, held: Held, at: int) -> Stored:
        stored = super()._stored(held, at)
        if held.snapshots:
            last = super()._stored(held, max(held.snapshots))
            stored.snapshot, stored.definition = last.snapshot, last.definition

        return stored


class AcknowledgesOutOfOrder(MemoryStore):
    """Says that a commit is done before the one submitted earlier."""

    _kept: Any = None

    def submit(self, commit: Commit, done: Done) -> None:
        if self._kept is None and commit.header is None and commit.count and commit.seq % 2:
            self._kept = done
            super().submit(commit, lambda error: None)
            return

        super().submit(commit, done)
        if self._kept is not None:
            self._kept(None)
            self._kept = None


class ForgetsParking(MemoryStore):
    """Takes every parked execution for a lost one."""

    def _write(self, commit: Commit) -> None:
        commit.parked = False
        super()._write(commit)


MUTANTS = [
    NoFence,
    NoTokens,
    NoSequence,
    HalfCommits,
    StealsFromTheLiving,
    SameTokenForAll,
    LosesEarlyAnswers,
    PrunesTheOpen,
    NewestSnapshotAlways,
    AcknowledgesOutOfOrder,
    ForgetsParking,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_store_is_found(mutant: type[MemoryStore]) -> None:
    """At least one clause fails for a store that does what its docstring says."""
    failed = []
    for name, clause in CLAUSES.items():
        if mutant is AcknowledgesOutOfOrder and name != "append_says_done_in_order":
            continue  # whoever waits for a single commit would wait for ever

        try:
            clause(MemoryBench(mutant))
        except (Exception, AssertionError, pytest.fail.Exception):
            failed.append(name)

    assert failed, f"no clause fails for {mutant.__name__}"
