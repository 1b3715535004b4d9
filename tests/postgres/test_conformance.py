"""The PostgreSQL store keeps every clause the other stores keep, and broken ones are found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.durable.clauses import CLAUSES
from tests.postgres.server import Server
from tests.postgres.shelves import PostgresBench


@pytest.fixture
def bench(server: Server) -> Iterator[PostgresBench]:
    made = PostgresBench(server)
    yield made
    made.close()


@pytest.mark.parametrize("clause", CLAUSES, ids=list(CLAUSES))
def test_a_store_keeps_the_clause(bench: PostgresBench, clause: str) -> None:
    """What the clause's own docstring says."""
    CLAUSES[clause](bench)
