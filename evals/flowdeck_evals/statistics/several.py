"""Many questions at once: one case among many, one rule among many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from flowdeck_evals.statistics.distributions import log_choose

__all__ = ["fisher", "holm"]


@lru_cache(maxsize=16_384)
def fisher(passed_before: int, before: int, passed_after: int, after: int) -> float:
    """Return the exact one-sided p that a case passes less often now, from its rounds on both sides.

    Fisher, On the interpretation of chi-square from contingency tables. J. Royal Statistical Society 85, 1922.
    """
    passed, total = passed_before + passed_after, before + after
    whole = log_choose(total, after)
    least = max(0, after - (total - passed))
    return min(
        1.0,
        math.fsum(
            math.exp(log_choose(passed, x) + log_choose(total - passed, after - x) - whole)
            for x in range(least, passed_after + 1)
        ),
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted so that all of them together are wrong as often as one: Holm's step-down, in order.

    Holm, A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6, 1979.
    """
    out = [1.0] * len(ps)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, ps[index] * (len(ps) - rank)))
        out[index] = least

    return out
