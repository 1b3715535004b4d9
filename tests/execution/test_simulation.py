"""Random flows under interleavings, crashes, answers and clocks come to what a sequential model says."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.execution.simulation import check

SEEDS = int(os.environ.get("FLOWDECK_SIM_SEEDS", "20000"))
SHARDS = 10
"""So that every worker of a parallel run gets some."""


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_seed_ends_as_the_model_says(shard: int) -> None:
    """Whatever the order, the crashes, the answers and the clock: the same completions, log, counts and status.

    A failing seed names itself and the line to type to see its story.
    """
    size = SEEDS // SHARDS
    seen: Counter[str] = Counter()
    for seed in range(shard * size, (shard + 1) * size):
        simulation = check(seed)
        for what in ("crashes", "refused", "early", "late"):
            seen[what] += getattr(simulation, what)

    assert seen["crashes"] > size, "hardly any run was killed"
    assert seen["refused"] > size // 2, "hardly any answer came twice"
    assert seen["early"] > size // 50, "hardly any answer came early"
    assert seen["late"] > size // 20, "hardly any answer came late"
