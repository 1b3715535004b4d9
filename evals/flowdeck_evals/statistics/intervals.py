"""How sure a pass rate is."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from flowdeck_evals.statistics.distributions import beta_quantile, z_of

__all__ = ["Interval", "cluster_bootstrap", "jeffreys", "mean_score", "pass_rate", "percentile", "wilson"]

_NORMAL = NormalDist()
RESAMPLES = 4_000
MOST_DRAWN = 400
"""Cases up to which the bootstrap is drawn; beyond, the mean's normal interval is the same to three digits."""
FEWEST_CASES = 30
"""Below this a bootstrap over cases is too narrow: simulated, its lower end was above the truth of 6 % of suites of 20
cases, of 8 % of those of 10, instead of 2.5 %. Wilson's interval over cases is wide enough."""


class Interval(NamedTuple):
    """An estimate and where it may lie."""

    value: float
    low: float
    high: float
    method: str


def wilson(passed: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share. ``passed`` may be a sum of rates: then it is wider than need be.

    Wilson, Probable inference, the law of succession, and statistical inference. JASA 22, 1927.
    """
    if n == 0:
        return 0.0, 1.0

    z = z_of(confidence)
    share = passed / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(max(0.0, share * (1 - share) / n + z * z / (4 * n * n)))
    low, high = (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
    return (0.0 if passed == 0 else max(0.0, low)), (1.0 if passed == n else min(1.0, high))


@lru_cache(maxsize=16_384)
def jeffreys(events: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the equal-tailed Jeffreys interval of a share: Beta(events + 1/2, n - events + 1/2)."""
    tail = (1 - confidence) / 2
    low = 0.0 if events == 0 else beta_quantile(tail, events + 0.5, n - events + 0.5)
    high = 1.0 if events == n else beta_quantile(1 - tail, events + 0.5, n - events + 0.5)
    return low, high


def cluster_bootstrap(
    means: Sequence[float], *, seed: int = 0, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the interval of the mean over cases, which are drawn whole, with all their rounds.

    Corrected for bias and skew (BCa): pass rates pile up at 1, and the plain percentiles then promise twice too often.
    Efron, Better bootstrap confidence intervals. JASA 82, 1987.
    """
    n = len(means)
    if n == 0:
        return 0.0, 1.0

    mean = sum(means) / n
    draw = random.Random(seed).choices
    found = sorted(sum(draw(means, k=n)) / n for _ in range(resamples))
    below = (bisect_left(found, mean) + bisect_right(found, mean)) / 2 / resamples
    bias = _NORMAL.inv_cdf(min(max(below, 1 / resamples), 1 - 1 / resamples))
    away = [one - mean for one in means]
    squares = math.fsum(one * one for one in away)
    skew = math.fsum(one**3 for one in away) / (6 * squares**1.5) if squares else 0.0

    def end(share: float) -> float:
        z = bias + _NORMAL.inv_cdf(share)
        return percentile(found, _NORMAL.cdf(bias + z / (1 - skew * z)))

    tail = (1 - confidence) / 2
    return end(tail), end(1 - tail)


def pass_rate(means: Sequence[float], *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Return the pass rate of a suite from the pass rate of each of its cases.

    One round each: Wilson. More: the cluster bootstrap, or Wilson over cases where that would pretend to know more than
    it can (fewer than :data:`FEWEST_CASES` cases, or fewer than five that differ from the rest).
    """
    n = len(means)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, "no case")

    total = math.fsum(means)
    mean = total / n
    binary = all(one in (0.0, 1.0) for one in means)
    common = max(means.count(0.0), means.count(1.0))
    if binary or n < FEWEST_CASES or n - common < 5:
        low, high = wilson(total, n, confidence)
        return Interval(mean, low, high, "Wilson" if binary else "Wilson over cases")

    if n > MOST_DRAWN:
        error = math.sqrt(math.fsum((one - mean) ** 2 for one in means) / (n - 1) / n)
        return Interval(
            mean, max(0.0, mean - z_of(confidence) * error), min(1.0, mean + z_of(confidence) * error), "clustered"
        )

    low, high = cluster_bootstrap(means, seed=seed, confidence=confidence)
    return Interval(mean, low, high, f"cluster bootstrap (BCa, {RESAMPLES:,}, seed {seed})")


def mean_score(means: Sequence[float], *, seed: int = 0) -> tuple[float, float | None, float | None]:
    """Return the mean of a score over cases and its 95 % interval, which of one case is not known."""
    n = len(means)
    mean = math.fsum(means) / n
    if n < 2:
        return mean, None, None

    if n > MOST_DRAWN or n < FEWEST_CASES:
        error = math.sqrt(math.fsum((one - mean) ** 2 for one in means) / (n - 1) / n)
        return mean, mean - 1.96 * error, mean + 1.96 * error

    return mean, *cluster_bootstrap(means, seed=seed, resamples=1_000)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted numbers, linear between neighbours (NumPy's default)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
