"""Did it get slower? Per-case medians, paired; a ratio with its interval, and the difference in microseconds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from flowdeck_evals.statistics.intervals import percentile

__all__ = ["LatencyResult", "calibrate", "compare_latency"]

DRAWN = 1_000
MOST_DRAWN = 500
"""Cases that are drawn from; more of them are thinned evenly, which leaves quantiles where they are."""


class LatencyResult(NamedTuple):
    """A quantile after over the same quantile before."""

    n: int
    ratio: float
    low: float
    """One-sided 95 % lower end of the ratio."""
    high: float
    before_us: float
    after_us: float
    p: float
    """Share of resamples in which it did not exceed ``limit``: small when it got slower."""


def compare_latency(
    before_us: Sequence[float], after_us: Sequence[float], share: float = 0.5, *, limit: float = 1.0, seed: int = 0
) -> LatencyResult:
    """Compare a quantile over cases; cases are drawn in pairs (paired bootstrap).

    Args:
        before_us, after_us: the median of each case's rounds, the same cases in the same order, microseconds.
        share: which quantile, 0.95 for the 95th percentile.
        limit: the ratio that is still well.

    Raises:
        ValueError: there is no case.
    """
    n = len(before_us)
    if n == 0:
        raise ValueError("there is no case in both")

    pairs = sorted(zip(before_us, after_us, strict=True))
    step = -(-n // MOST_DRAWN)
    pairs = pairs[::step]
    draw = random.Random(seed).choices
    ratios = []
    for _ in range(DRAWN if len(pairs) <= 200 else 300):
        drawn = draw(pairs, k=len(pairs))
        ratios.append(_ratio(sorted(one for one, _ in drawn), sorted(one for _, one in drawn), share))

    ratios.sort()
    base, now = percentile(sorted(before_us), share), percentile(sorted(after_us), share)
    within = sum(one <= limit for one in ratios)
    return LatencyResult(
        n,
        now / max(base, 1e-9),
        percentile(ratios, 0.05),
        percentile(ratios, 0.95),
        base,
        now,
        (within + 1) / (len(ratios) + 1),
    )


def _ratio(before: list[float], after: list[float], share: float) -> float:
    return percentile(after, share) / max(percentile(before, share), 1e-9)


def calibrate() -> int:
    """Return the nanoseconds that a fixed loop takes on this machine now: whose times differ, differs in speed."""
    import time

    best = 10**12
    for _ in range(3):
        began = time.perf_counter_ns()
        total = 0
        for number in range(20_000):
            total += number * number % 7

        best = min(best, time.perf_counter_ns() - began)

    return best
