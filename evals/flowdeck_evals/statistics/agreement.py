"""Do two judges mean the same? Chance agreement is taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["cohen_kappa", "krippendorff_alpha"]


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Return Cohen's kappa of two raters' labels of the same items: 1 is full agreement, 0 is chance.

    When both always say the same one label nothing can be told apart, so it is 0, not 1.

    Raises:
        ValueError: no items, or not as many on both sides.
    """
    n = len(one)
    if n == 0 or n != len(other):
        raise ValueError("two raters must have labelled the same items, at least one")

    observed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    left, right = Counter(one), Counter(other)
    chance = sum(left[label] * right[label] for label in left) / (n * n)
    return 0.0 if chance >= 1 else (observed - chance) / (1 - chance)


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> float:
    """Return Krippendorff's alpha (nominal) of any number of raters; ``None`` is a label that is missing.

    Args:
        ratings: per item the labels of its raters. Items with fewer than two labels say nothing.

    Raises:
        ValueError: no item has two labels.
    """
    items = [[label for label in item if label is not None] for item in ratings]
    items = [item for item in items if len(item) > 1]
    if not items:
        raise ValueError("no item has two labels")

    totals: Counter[Hashable] = Counter()
    disagreement = 0.0
    for item in items:
        counts = Counter(item)
        totals.update(counts)
        m = len(item)
        disagreement += (m * m - sum(c * c for c in counts.values())) / (m - 1)

    n = sum(totals.values())
    expected = (n * n - sum(c * c for c in totals.values())) / (n - 1)
    return 0.0 if expected == 0 else 1 - disagreement / expected
