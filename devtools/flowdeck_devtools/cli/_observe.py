"""Observing a run of the command line into its store, and telling what could not be stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck import Observation

__all__ = ["lost_events", "observe"]


def observe(store: Path) -> Observation:
    """Attach ``store`` and what else ``FLOWDECK_SINKS`` asks for to the default runtime.

    Raises:
        flowdeck.layout.StoreError: the store cannot be used.
        flowdeck.errors.FlowdeckError: a sink is not installed.
    """
    from flowdeck import runtime

    # The command line has decided about the store; left in place, the variables would attach another one.
    os.environ.pop("FLOWDECK_STORE", None)
    names = [name.strip() for name in os.environ.pop("FLOWDECK_SINKS", "").split(",")]
    return runtime.observe(store, sinks=[name for name in names if name and name.partition(":")[0] not in _OURS])


_OURS = ("store", "off")


def lost_events(observation: Observation) -> str:
    """Say how many events a closed observation could not store, or return an empty string."""
    dropped = _dropped(observation.statistics())
    return f"{dropped} events could not be stored: is the disk of {observation.store} full?" if dropped else ""


def _dropped(statistics: Mapping[str, Any]) -> int:
    """Add up what the sinks dropped, and what they still held when they had to close."""
    own = sum(value for name in ("dropped", "queued") if isinstance(value := statistics.get(name, 0), int))
    return own + sum(_dropped(value) for value in statistics.values() if isinstance(value, Mapping))
