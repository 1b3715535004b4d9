"""Random flows under interleavings, crashes, answers and clocks come to what a sequential model says."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.execution.simulation import check

SEEDS = int(os.environ.get("FLOWDECK_SIM_SEEDS", "20000"))
SIZE = max(2_000, SEEDS // 10)
"""Seeds in a shard, so that every worker of a parallel run gets some; enough of them for the counts below to hold."""


@pytest.mark.parametrize("shard", range(max(1, SEEDS // SIZE)))
def test_every_seed_ends_as_the_model_says(shard: int) -> None:
    """Whatever the order, the crashes, the answers and the clock: the same completions, log, counts and status.

    A failing seed names itself and the line to type to see its story.
    """
    seen: Counter[str] = Counter()
    for seed in range(shard * SIZE, (shard + 1) * SIZE):
        simulation = check(seed)
        for what in ("crashes", "refused", "early", "late", "lent"):
            seen[what] += getattr(simulation, what)

    assert seen["crashes"] > SIZE, "hardly any run was killed"
    assert seen["refused"] > SIZE // 2, "hardly any answer came twice"
    assert seen["early"] > SIZE // 50, "hardly any answer came early"
    assert seen["late"] > SIZE // 20, "hardly any answer came late"
    assert seen["lent"] > SIZE // 20, "hardly any handler lent its place"
