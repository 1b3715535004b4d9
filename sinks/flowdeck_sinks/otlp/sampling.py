"""Which traces are recorded: the standard samplers, decided once per root run on its trace id.

Source: OpenTelemetry specification, "Built-in samplers" and ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flowdeck_sinks.otlp.ids import Traceparent

__all__ = ["Sampler", "make_sampler"]

Sampler = Callable[[int, Traceparent | None], bool]
"""``(trace_id, incoming traceparent) -> recorded?``"""

_BITS: Final = 2**64


def make_sampler(name: str = "parentbased_always_on", ratio: float = 1.0) -> Sampler | None:
    """Return the sampler of a standard name; ``None`` when it records everything.

    ``parentbased_…`` follows the caller's decision where there is a caller. ``ratio`` counts for ``…traceidratio``.
    """
    base = name.removeprefix("parentbased_")
    share = {"always_on": 1.0, "always_off": 0.0}.get(base, min(1.0, max(0.0, ratio)))
    limit = round(share * _BITS)
    follows = name != base
    if share >= 1.0 and not follows:
        return None

    def sample(trace_id: int, caller: Traceparent | None) -> bool:
        if follows and caller is not None:
            return caller.sampled

        return trace_id % _BITS < limit

    return sample
