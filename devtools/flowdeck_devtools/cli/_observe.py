"""Observing a run of the command line into its store, and telling what could not be stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck import Observation

__all__ = ["lost_events", "observe", "tell_otlp_problems_ourselves", "unsent_traces"]


def observe(store: Path, *, otlp: bool | str | None = None) -> Observation:
    """Attach ``store`` and what else ``FLOWDECK_SINKS`` asks for to the default runtime.

    Args:
        otlp: also export traces: ``True`` for the ``OTEL_*`` variables, or an endpoint.

    Raises:
        flowdeck.layout.StoreError: the store cannot be used.
        flowdeck.errors.FlowdeckError: a sink is not installed.
    """
    from flowdeck import runtime

    # The command line has decided about the store; left in place, the variables would attach another one.
    os.environ.pop("FLOWDECK_STORE", None)
    names = [name.strip() for name in os.environ.pop("FLOWDECK_SINKS", "").split(",")]
    further = [name for name in names if name and name.partition(":")[0] not in _OURS]
    if otlp:
        further = [name for name in further if name.partition(":")[0] != "otlp"]

    if otlp:
        tell_otlp_problems_ourselves()

    return runtime.observe(store, otlp=otlp or None, sinks=further)


_OURS = ("store", "off")


def lost_events(observation: Observation) -> str:
    """Say how many events a closed observation could not store and has not told of itself, or nothing."""
    sinks = observation.statistics()["sinks"]
    dropped = _dropped({name: counts for name, counts in sinks.items() if name != "otlp"})
    return f"{dropped} events could not be stored: is the disk of {observation.store} full?" if dropped else ""


def tell_otlp_problems_ourselves() -> None:
    """Keep the exporter's warnings out of the terminal of a command that says itself what became of the traces."""
    import logging

    logging.getLogger("flowdeck.sinks.otlp").setLevel(logging.ERROR)


def unsent_traces(observation: Observation) -> str:
    """Say what stands between the traces of a closed observation and the collector, or nothing."""
    counts = observation.statistics()["sinks"].get("otlp", {})
    if not counts.get("failure"):
        return f"traces: {counts['problems']}" if counts.get("problems") else ""

    waits = counts.get("mode") == "durable"
    fate = "they wait in the store: flowdeck export otlp" if waits else f"{counts.get('dropped', 0)} items are lost"
    return f"traces are not with the collector: {counts['failure']}; {fate}"


def _dropped(statistics: Mapping[str, Any]) -> int:
    """Add up what the sinks dropped, and what they still held when they had to close."""
    own = sum(value for name in ("dropped", "queued") if isinstance(value := statistics.get(name, 0), int))
    own -= int(statistics.get("told", 0))
    return own + sum(_dropped(value) for value in statistics.values() if isinstance(value, Mapping))
