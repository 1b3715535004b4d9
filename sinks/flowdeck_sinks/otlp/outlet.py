"""Where finished spans leave the mapper: once each, sampled, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from flowdeck_sinks.otlp.sampling import Sampler
from flowdeck_sinks.otlp.state import TraceState

__all__ = ["Outlet"]

REMEMBERED: Final = 65_536
"""Ids of exported spans that are remembered, at least: what comes late or twice is known by them."""


class Outlet:
    """Gives out every span once. The last 65,536 keys (mostly span ids) are remembered, in two generations."""

    def __init__(
        self, count: Counter[str], sampler: Sampler | None, on_final: Callable[[ReadableSpan], None] | None
    ) -> None:
        self._count = count
        self._sampler = sampler
        self._on_final = on_final
        self.spans = 0
        """Given out so far."""
        self.out: list[ReadableSpan] = []
        """Given out and not yet taken."""
        self._keys: set[int] = set()
        self._older: set[int] = set()

    def exported(self, key: int) -> bool:
        """Whether the span of this key has left."""
        return key in self._keys or key in self._older

    def sampled(self, trace: TraceState) -> bool:
        """Whether the trace is recorded; decided once, on its id."""
        sampled = trace.sampled
        if sampled is None:
            sampled = trace.sampled = self._sampler is None or self._sampler(trace.trace_id(), trace.caller)

        return sampled

    def admit(self, trace: TraceState, key: int) -> bool:
        """Whether the span of ``key`` is to be built: it has not left before, and somebody wants it."""
        keys = self._keys
        if key in keys or key in self._older:
            self._count["late_events"] += 1
            return False

        keys.add(key)
        if len(keys) >= REMEMBERED:
            self._older, self._keys = keys, set()

        if trace.sampled or self.sampled(trace):
            return True

        self._count["unsampled"] += 1
        return self._on_final is not None

    def put(self, trace: TraceState, span: ReadableSpan) -> None:
        """Give out the span that was admitted."""
        if self._on_final is not None:
            self._on_final(span)

        if trace.sampled:
            self.out.append(span)
            self.spans += 1

    def take(self) -> list[ReadableSpan]:
        """Return and forget what was given out."""
        if not self.out:
            return []

        out, self.out = self.out, []
        return out

    def remembered(self, limit: int) -> list[int]:
        """Return the newest keys, about, for a snapshot."""
        return [*self._older, *self._keys][-limit:]

    def remember(self, keys: Iterable[int]) -> None:
        """Take over the keys of a snapshot."""
        self._keys.update(keys)
