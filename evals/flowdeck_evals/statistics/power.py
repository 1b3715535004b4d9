"""What a comparison can see at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

from flowdeck_evals.statistics.distributions import log_choose

__all__ = ["NOISE", "mcnemar_power", "noise_of", "smallest_drop"]

NOISE = 0.01
"""Flips each way that happen without a change, where nothing better is known."""
EXACT_UP_TO = 500
"""Cases up to which the power is summed exactly; beyond, its normal limit is within a tenth of the drop."""
_NEGLIGIBLE = 1e-9


@lru_cache(maxsize=4096)
def mcnemar_power(n: int, drop: float, *, noise: float = NOISE, alpha: float = 0.05) -> float:
    """Return how likely the one-sided exact McNemar test sees a drop of the pass rate over ``n`` cases.

    A case flips to the bad with probability ``drop + noise`` and to the good with ``noise``; ``drop=0`` gives the share
    of false alarms. Exact: summed over all numbers of flips.
    """
    worse, better = drop + noise, noise
    flips = worse + better
    if flips <= 0:
        return 0.0

    total = 0.0
    for m, weight in _binomial(n, min(flips, 1.0)):
        least = _fewest(m, alpha)
        if least is not None:
            total += weight * math.fsum(w for b, w in _binomial(m, worse / flips) if b >= least)

    return min(1.0, total)


def smallest_drop(n: int, *, power: float = 0.8, noise: float = NOISE, alpha: float = 0.05) -> float | None:
    """Return the smallest drop (0.05: five points) that ``n`` cases show with that power; ``None``: not even all."""
    if n > EXACT_UP_TO:
        z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
        drop = 0.0
        for _ in range(30):
            drop = z * math.sqrt((2 * noise + drop) / n)

        return drop

    most = 1 - 2 * noise
    if mcnemar_power(n, most, noise=noise, alpha=alpha) < power:
        return None

    low, high = 0.0, most
    while high - low > 0.001:
        middle = (low + high) / 2
        if mcnemar_power(n, middle, noise=noise, alpha=alpha) < power:
            low = middle
        else:
            high = middle

    return high


def noise_of(differences: Sequence[float]) -> float:
    """Return the flips each way that two sessions' differences show to happen without a change, at least :data:`NOISE`.

    What went the rarer way is noise for sure; as much of the other way is noise too, the rest may be a change. A case
    that moves by a part of its rounds counts by the square of it: that is its share of the variance.
    """
    if not differences:
        return NOISE

    up = math.fsum(one * one for one in differences if one > 0)
    down = math.fsum(one * one for one in differences if one < 0)
    return min(0.25, max(NOISE, min(up, down) / len(differences)))


@lru_cache(maxsize=4096)
def _fewest(m: int, alpha: float) -> int | None:
    """The fewest flips to the bad among ``m`` that are significant."""
    tail, whole = 0, 2**m
    for b in range(m, -1, -1):
        tail += math.comb(m, b)
        if tail >= alpha * whole:
            return b + 1 if b < m else None

    return 0


def _binomial(n: int, p: float) -> list[tuple[int, float]]:
    """The outcomes of a binomial variable that matter, with their probabilities."""
    if p >= 1:
        return [(n, 1.0)]

    spread = 8 * math.sqrt(n * p * (1 - p)) + 8
    out = []
    for k in range(max(0, int(n * p - spread)), min(n, int(n * p + spread)) + 1):
        weight = math.exp(log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)) if p > 0 else float(k == 0)
        if weight > _NEGLIGIBLE:
            out.append((k, weight))

    return out
