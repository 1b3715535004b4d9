"""The ledger as data: what is told of it step by step makes the same ledger elsewhere."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flowdeck.errors import SnapshotError
from flowdeck.execution.interventions_ledger import PLANNED, Address, Ledger
from flowdeck.execution.state import Task

PLACE = Address("point-1", "p", "intervention_point", None, None)

TASK = Task(1, 1, 0, "v", 0, 0, 0, 0, 0, 1, 0, 0, 1, "start", "START", "event", 0)


def change(ledger: Ledger, rng: random.Random, now: int) -> None:
    pending = list(ledger.pending)
    match rng.randrange(5) if ledger.items else 0:
        case 0 | 1:
            ledger.receive("x", {"n": now}, author=None, note=None, target=None, metadata={}, now_us=now)
        case 2:
            some = rng.sample(pending, rng.randint(0, len(pending)))
            ledger.insert(some, PLACE, TASK, "p", None, now)
        case 3 if pending:
            ledger.reject(rng.choice(pending), "no", None, now)
        case _:
            ledger.consume(rng.choice(list(ledger.items)), "me", "applied", None, {}, now)


@pytest.mark.parametrize("seed", range(20))
def test_news_make_the_same_ledger(seed: int) -> None:
    """After every change: the same items, versions and pending order; and each piece of news holds the change alone."""
    rng = random.Random(seed)
    ledger, copy = Ledger(PLANNED), Ledger(PLANNED)
    for now in range(60):
        before = {name: item.dump() for name, item in ledger.items.items()}
        change(ledger, rng, now)
        news = ledger.news()
        assert all(fields != before.get(fields[0]) for fields in news[3])
        copy.learn(news)
        assert copy.dump() == ledger.dump()
        assert list(copy.pending) == list(ledger.pending)

    assert ledger.news()[3] == []
    ledger.expire(99)
    copy.learn(ledger.news())
    assert (copy.dump(), copy.pending) == (ledger.dump(), {})


def test_news_that_are_none_are_refused() -> None:
    """As a damaged snapshot is."""
    broken: list[Any] = ["sometimes", 0, 0, []]
    with pytest.raises(SnapshotError, match="unknown mode"):
        Ledger(PLANNED).learn(broken)
