"""Did it get worse? The same cases before and after; a drop is a negative difference."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, NamedTuple

from flowdeck_evals.statistics.distributions import binomial_at_least, z_of
from flowdeck_evals.statistics.intervals import MOST_DRAWN, cluster_bootstrap

__all__ = [
    "EXACT_UP_TO",
    "FLIPS",
    "PairedResult",
    "difference_interval",
    "equivalent",
    "mcnemar",
    "paired_test",
    "sign_flip",
    "tango",
]

EXACT_UP_TO = 14
"""Cases up to which every assignment of signs is looked at (16,384 of them)."""
FLIPS = 20_000
_DIGITS = 2**16


class PairedResult(NamedTuple):
    """What a paired comparison says. ``p`` is one-sided: small when it got worse."""

    method: str
    n: int
    effect: float
    """Mean after minus mean before; -0.05 is a drop of five points."""
    low: float
    high: float
    p: float
    worse: int
    """Cases whose mean fell."""
    better: int


def mcnemar(worse: int, better: int) -> float:
    """Return the exact one-sided p of McNemar's test: flips to the bad are as likely as flips to the good.

    McNemar, Note on the sampling error of the difference between correlated proportions. Psychometrika 12, 1947.
    """
    return binomial_at_least(worse, worse + better)


def sign_flip(differences: Sequence[float], *, seed: int = 0, flips: int = FLIPS) -> float:
    """Return the one-sided p that the mean of paired differences is below zero only by chance.

    Under the hypothesis each difference could as well have had the other sign. All assignments are looked at up to
    :data:`EXACT_UP_TO` differences that are not zero; else ``flips`` random ones, the observed one among them
    (Phipson and Smyth, 2010), so p is never zero.
    """
    sizes, total = _integers([one for one in differences if one])
    if not sizes:
        return 1.0

    # A sum with random signs is 2 * (sum of those with a plus) - sum of all; it is as bad when it is not above.
    everything = sum(sizes)
    if len(sizes) <= EXACT_UP_TO:
        bad = sum(
            2 * sum(size for size, plus in zip(sizes, signs, strict=True) if plus) - everything <= total
            for signs in product((False, True), repeat=len(sizes))
        )
        return bad / 2.0 ** len(sizes)

    # The sizes as binary digits: one random integer of n bits draws all signs at once, one mask a digit adds them up.
    masks = [
        (digit, sum(1 << index for index, size in enumerate(sizes) if size >> digit & 1))
        for digit in range(max(sizes).bit_length())
    ]
    masks = [(digit, mask) for digit, mask in masks if mask]
    draw, bits = random.Random(seed).getrandbits, len(sizes)
    most = (everything + total) // 2
    bad = 0
    for _ in range(flips):
        signs = draw(bits)
        bad += sum((signs & mask).bit_count() << digit for digit, mask in masks) <= most

    return (bad + 1) / (flips + 1)


def _integers(differences: Sequence[float]) -> tuple[list[int], int]:
    """Return sizes and signed sum in whole units, so that equal sums compare equal: exact for rates of few rounds."""
    for unit in (1, 60, 2520, 27_720):
        scaled = [one * unit for one in differences]
        if all(abs(one - round(one)) < 1e-6 for one in scaled):
            whole = [round(one) for one in scaled]
            break
    else:
        largest = max(abs(one) for one in differences)
        whole = [round(one / largest * _DIGITS) for one in differences]

    shared = math.gcd(*whole) or 1 if whole else 1
    whole = [one // shared for one in whole]
    return [abs(one) for one in whole], sum(whole)


def tango(worse: float, better: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of the difference of two paired shares; it holds with few flips and with none.

    Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design.
    Statistics in Medicine 17, 1998.
    """
    if n == 0:
        return -1.0, 1.0

    z = z_of(confidence)
    effect = (better - worse) / n

    def score(delta: float) -> float:
        # delta is the true difference; share is the likeliest rate of flips to the bad given it
        half = -better - worse + (2 * n - better + worse) * delta
        square = max(0.0, half * half - 8 * n * (-worse * delta * (1 - delta)))
        share = (math.sqrt(square) - half) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        return (better - worse - n * delta) / math.sqrt(max(variance, 1e-12))

    low = _root(lambda delta: score(delta) - z, -1.0, effect)
    high = _root(lambda delta: score(delta) + z, effect, 1.0)
    return low, high


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle

    return (low + high) / 2


def difference_interval(
    differences: Sequence[float], *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, str]:
    """Return the interval of the mean difference, and how it was had.

    Whole flips, or fewer than five cases that changed: Tango's score interval (a bootstrap of zeros would say that
    nothing can ever change). Otherwise the paired bootstrap, beyond :data:`MOST_DRAWN` cases its normal limit.
    """
    n = len(differences)
    changed = [one for one in differences if one]
    if len(changed) < 5 or all(abs(one) == 1 for one in changed):
        worse = -math.fsum(one for one in changed if one < 0)
        better = math.fsum(one for one in changed if one > 0)
        return *tango(worse, better, n, confidence), "Tango"

    if n > MOST_DRAWN:
        mean = math.fsum(differences) / n
        error = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (n - 1) / n)
        return mean - z_of(confidence) * error, mean + z_of(confidence) * error, "normal"

    return *cluster_bootstrap(differences, seed=seed, confidence=confidence), f"BCa bootstrap, seed {seed}"


def paired_test(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> PairedResult:
    """Compare the means of the same cases: McNemar when each is a pass or a failure, else the sign-flip permutation.

    Args:
        before, after: one number between 0 and 1 per case, in the same order.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    n = len(differences)
    if n == 0:
        return PairedResult("no pair", 0, math.nan, -1.0, 1.0, 1.0, 0, 0)

    worse, better = sum(one < 0 for one in differences), sum(one > 0 for one in differences)
    low, high, interval = difference_interval(differences, seed=seed)
    if all(one in (0.0, 1.0) for one in (*before, *after)):
        p, method = mcnemar(worse, better), "exact McNemar"
    else:
        p, method = sign_flip(differences, seed=seed), "sign-flip permutation"
        method += " (exact)" if worse + better <= EXACT_UP_TO else f" ({FLIPS:,}, seed {seed})"

    return PairedResult(f"{method}; {interval}", n, math.fsum(differences) / n, low, high, p, worse, better)


def equivalent(
    differences: Sequence[float], margin: float, *, alpha: float = 0.05, seed: int = 0
) -> Literal["equivalent", "different", "inconclusive"]:
    """Say whether a difference is within ``±margin``: two one-sided tests, by the interval of confidence 1 - 2 alpha.

    ``different`` when the whole interval is outside. No proof of a difference is not a proof of sameness: anything else
    is ``inconclusive``. Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987.
    """
    if not differences:
        return "inconclusive"

    low, high, _ = difference_interval(differences, seed=seed, confidence=1 - 2 * alpha)
    if -margin < low and high < margin:
        return "equivalent"

    return "different" if high < -margin or low > margin else "inconclusive"
