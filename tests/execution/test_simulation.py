"""Random flows under random interleavings and crashes come to what a sequential model says."""

from __future__ import annotations

import os

import pytest
from tests.execution.simulation import Simulation, build, model

SEEDS = int(os.environ.get("FLOWDECK_SIM_SEEDS", "2000"))
SHARDS = 4


@pytest.mark.parametrize("shard", range(SHARDS))
def test_interleavings_and_crashes_equal_the_sequential_model(shard: int) -> None:
    """Every seed's flow ends in the model's completions, log and counts, whatever the order and the crashes."""
    crashes = refused = 0
    for seed in range(shard, SEEDS, SHARDS):
        flow = build(seed)
        expected = model(flow)
        for crash_rate, concurrency in ((0.0, 0), (0.0, 1 + seed % 3), (0.08, 0), (0.3, seed % 3)):
            simulation = Simulation(flow, seed * 7 + 1, crash_rate=crash_rate, concurrency=concurrency)
            try:
                outcome = simulation.run()
                assert outcome.completed == expected.completed
                assert outcome.log == expected.log
                assert outcome.counts == expected.counts
            except Exception as exc:
                raise AssertionError(f"seed {seed}, crash rate {crash_rate}, concurrency {concurrency}: {exc}") from exc

            crashes += simulation.crashes
            refused += simulation.refused

    assert crashes > SEEDS // SHARDS, "the simulation never crashed anything"
    assert refused > SEEDS // SHARDS // 10, "nobody answered twice"
