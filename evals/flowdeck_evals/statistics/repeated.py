"""Of n rounds c passed: would one of k have passed, would all of k?"""

from __future__ import annotations

import math

__all__ = ["pass_at_k", "pass_power", "rounds_to_see"]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate that at least one of ``k`` rounds passes (capability): 1 - C(n-c, k) / C(n, k).

    Chen et al., Evaluating large language models trained on code, 2021.

    Raises:
        ValueError: fewer than ``k`` rounds ran.
    """
    _enough(n, k)
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_power(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate that all of ``k`` rounds pass (reliability): C(c, k) / C(n, k).

    Raises:
        ValueError: fewer than ``k`` rounds ran.
    """
    _enough(n, k)
    return math.comb(c, k) / math.comb(n, k)


def rounds_to_see(rate: float, confidence: float = 0.95) -> int:
    """Return how many rounds show a failure of that rate at least once with that confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - rate))


def _enough(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} needs at least {k} rounds and is at least 1; {n} ran")
