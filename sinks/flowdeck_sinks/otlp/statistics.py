"""The counters of the lanes, flat: what ``sink.statistics()``, the status file and ``flowdeck doctor`` show."""

from __future__ import annotations

from collections.abc import Mapping

from flowdeck_sinks.otlp.delivery import Lane

__all__ = ["lane_statistics"]

_NAMES = {"traces": "spans", "logs": "logs", "metrics": "points"}


def lane_statistics(lanes: Mapping[str, Lane], queued: Mapping[str, int] | None = None) -> dict[str, int | float | str]:
    """Return the counters of every lane, and sums over all of them."""
    out: dict[str, int | float | str] = {}
    failures = []
    refusals = []
    unwanted = []
    for signal, lane in lanes.items():
        name = _NAMES[signal]
        counts = lane.counts
        out[f"{name}_exported"] = counts.exported
        out[f"{name}_queued"] = lane.waiting if queued is None else queued.get(signal, 0)
        out[f"{name}_dropped"] = counts.dropped
        out[f"{name}_rejected"] = counts.rejected
        out[f"{name}_dead"] = counts.dead
        if counts.failure and counts.failure not in failures:
            failures.append(counts.failure)
        if counts.unwanted:
            unwanted.append(signal)
        if counts.last_refusal and counts.last_refusal not in refusals:
            refusals.append(counts.last_refusal)

    for field in ("requests", "retries", "splits", "bytes"):
        out[field] = sum(getattr(lane.counts, field) for lane in lanes.values())

    out["endpoint"] = next((lane.target.shown for lane in lanes.values()), "")
    out["unwanted"] = ", ".join(unwanted)
    out["failure"] = "; ".join(failures)
    out["last_refusal"] = "; ".join(refusals)
    return out
