"""Which part of a session a machine runs: the longest cases first, each to the part with the least to do.

Every part computes the same division from the same files: durations come from the baseline in git, never from this
machine's store.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from statistics import median

from flowdeck.errors import EvalError

__all__ = ["assign", "case_list_hash", "parse_shard"]

Key = tuple[str, str]


def parse_shard(text: str) -> tuple[int, int]:
    """Return ``(2, 5)`` of ``2/5``.

    Raises:
        EvalError: it says something else.
    """
    index, slash, of = text.partition("/")
    if not (slash and index.isdigit() and of.isdigit() and 1 <= int(index) <= int(of)):
        raise EvalError(f"--shard {text}: must be such as 2/5, the second part of five")

    return int(index), int(of)


def assign(keys: Sequence[Key], durations: Mapping[Key, float], parts: int) -> dict[Key, int]:
    """Return the part, from 1, of every case (longest processing time first).

    A case without a duration takes the median of the others. Equal ones are put in an order by hash, so that
    neighbours in a file, which are often alike, come apart.
    """
    usual = median(durations.values()) if durations else 1.0
    ordered = sorted(keys, key=lambda key: (-durations.get(key, usual), _digest(key)))
    heap = [(0.0, number) for number in range(1, parts + 1)]
    out = {}
    for key in ordered:
        load, number = heapq.heappop(heap)
        out[key] = number
        heapq.heappush(heap, (load + max(durations.get(key, usual), 1e-6), number))

    return out


def case_list_hash(cases: Sequence[tuple[str, str, str]]) -> str:
    """Return a hash over ``(suite, case id, case hash)`` of all cases of a session, whatever their order."""
    digest = hashlib.blake2b(digest_size=12)
    for one in sorted(cases):
        digest.update("\0".join(one).encode() + b"\n")

    return digest.hexdigest()


def _digest(key: Key) -> bytes:
    return hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
