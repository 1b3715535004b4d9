"""Trace and span ids: hashes of identities, so that a replay, a restart and another process give the same ids.

``trace_id = h(root_run_id)``, ``span_id = h(run_id)``; waits, segments and the continuations of a very long trace hash
``(run_id, kind, ordinal)``. Whoever knows a run's id knows its span's id: no look-up, in any order, in any process.
Source: the design's §2, "Ids". Depends on nothing.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

__all__ = [
    "LONGEST_WAIT_HOURS",
    "Traceparent",
    "parse_traceparent",
    "part_span_id",
    "span_id_of",
    "trace_id_of",
]

LONGEST_WAIT_HOURS: Final = 24.0
"""An answer after a longer wait begins a new trace, linked to the one before."""
_TRACE: Final = b"flowdeck-trace"
_SPAN: Final = b"flowdeck-span"
_HEX: Final = frozenset("0123456789abcdef")


class Traceparent(NamedTuple):
    """A W3C ``traceparent`` header, version 00."""

    trace_id: int
    span_id: int
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller records its trace."""
        return bool(self.flags & 1)


@lru_cache(maxsize=4096)
def trace_id_of(root_run_id: str, ordinal: int = 0) -> int:
    """Return the 128-bit trace id of a root run; ``ordinal`` counts the continuations after very long waits."""
    key = root_run_id if ordinal == 0 else f"{root_run_id}\0trace\0{ordinal}"
    digest = blake2b(key.encode("utf-8", "backslashreplace"), digest_size=16, person=_TRACE).digest()
    return int.from_bytes(digest) or 1


def span_id_of(run_id: str) -> int:
    """Return the 64-bit id of a run's span."""
    digest = blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=8, person=_SPAN).digest()
    return int.from_bytes(digest) or 1


def part_span_id(run_id: str, kind: str, ordinal: int | str) -> int:
    """Return the 64-bit id of a part of a run: ``("wait", interrupt id)``, ``("segment", n)``, ``("trace", n)``."""
    return span_id_of(f"{run_id}\0{kind}\0{ordinal}")


@lru_cache(maxsize=1024)
def parse_traceparent(text: str) -> Traceparent | None:
    """Return the parts of a ``traceparent``, or ``None`` when it is not a valid one (W3C Trace Context, §3.2)."""
    parts = text.strip().split("-")
    if len(parts) < 4 or (parts[0] == "00" and len(parts) != 4):
        return None

    version, trace, span, flags = parts[:4]
    if (len(version), len(trace), len(span), len(flags)) != (2, 32, 16, 2) or version == "ff":
        return None

    if not all(_HEX.issuperset(part) for part in (version, trace, span, flags)):
        return None

    trace_id, span_id = int(trace, 16), int(span, 16)
    return Traceparent(trace_id, span_id, int(flags, 16)) if trace_id and span_id else None
