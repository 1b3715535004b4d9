"""Did it get slower? Per-case medians, paired; a ratio with its interval, and the difference in microseconds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from flowdeck_evals.statistics.distributions import binomial_at_least
from flowdeck_evals.statistics.intervals import percentile

__all__ = ["LatencyResult", "calibrate", "compare_latency"]

DRAWN = 1_000
MOST_DRAWN = 500
"""Cases that are drawn from; more of them are thinned evenly, which leaves quantiles where they are."""
FEWEST_BEYOND = 2
"""Cases beyond the quantile below which drawing says little: the largest of twelve is the largest of most draws.
Simulated, it cried wolf at 9 % instead of 5 %."""


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
    """Share of resamples in which it did not exceed ``limit``: small when it got slower. Where too few cases lie beyond
    the quantile, at least the sign test's: most cases must have become slower than the limit."""


def compare_latency(
    before_us: Sequence[float],
    after_us: Sequence[float],
    share: float = 0.5,
    *,
    limit: float = 1.0,
    seed: int = 0,
    resamples: int = DRAWN,
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
    for _ in range(resamples if len(pairs) <= 200 else min(resamples, 300)):
        drawn = draw(pairs, k=len(pairs))
        ratios.append(_ratio(sorted(one for one, _ in drawn), sorted(one for _, one in drawn), share))

    ratios.sort()
    base, now = percentile(sorted(before_us), share), percentile(sorted(after_us), share)
    p = (sum(one <= limit for one in ratios) + 1) / (len(ratios) + 1)
    if n * (1 - share) < FEWEST_BEYOND:
        p = max(p, binomial_at_least(sum(after > limit * before for before, after in pairs), n))

    return LatencyResult(
        n,
        now / max(base, 1e-9),
        percentile(ratios, 0.05),
        percentile(ratios, 0.95),
        base,
        now,
        p,
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
