"""The distributions behind the tests: binomial, hypergeometric, beta, normal."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

__all__ = ["beta_quantile", "binomial_at_least", "log_choose", "z_of"]


@lru_cache(maxsize=256)
def z_of(confidence: float) -> float:
    """Return the two-sided normal quantile of a confidence: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def log_choose(n: int, k: int) -> float:
    """Return log C(n, k)."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@lru_cache(maxsize=65_536)
def binomial_at_least(k: int, n: int) -> float:
    """Return P(X >= k) for X ~ Binomial(n, 1/2), exactly while it fits, else summed from logarithms."""
    if k <= 0:
        return 1.0

    if k > n:
        return 0.0

    if n <= 1000:
        return float(sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n)

    return min(1.0, math.fsum(math.exp(log_choose(n, i) - n * math.log(2)) for i in range(k, n + 1)))


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return the point below which a Beta(a, b) variable lies with the given probability."""
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        if _beta_below(middle, a, b) < share:
            low = middle
        else:
            high = middle

    return (low + high) / 2


def _beta_below(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0

    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_below(1 - x, b, a)

    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            fraction *= c * d

        if abs(c * d - 1) < 1e-15:
            break

    return front * fraction / a
