"""Flowdeck: an observability-first flow runtime.

    from flowdeck import TriggerFlow, TriggerFlowRuntimeData, runtime

Names are resolved at first use, so ``import flowdeck`` costs a few milliseconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("Flowdeck runs on Linux and macOS; on Windows, use it inside WSL 2 (Windows Subsystem for Linux)")

if TYPE_CHECKING:
    from flowdeck._observation import Observation
    from flowdeck._runtime import Runtime, runtime
    from flowdeck.definition.retry import Retry
    from flowdeck.events.center import EventCenter
    from flowdeck.events.lineage import RunContext, run_context
    from flowdeck.events.model import ObservationEvent
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.triggerflow import TriggerFlow

__all__ = [
    "EventCenter",
    "Observation",
    "ObservationEvent",
    "Retry",
    "RunContext",
    "Runtime",
    "TriggerFlow",
    "TriggerFlowRuntimeData",
    "__version__",
    "run_context",
    "runtime",
]

__version__ = "0.1.0"

_HOMES = {
    "EventCenter": "flowdeck.events.center",
    "Observation": "flowdeck._observation",
    "ObservationEvent": "flowdeck.events.model",
    "Retry": "flowdeck.definition.retry",
    "RunContext": "flowdeck.events.lineage",
    "Runtime": "flowdeck._runtime",
    "TriggerFlow": "flowdeck.triggerflow",
    "TriggerFlowRuntimeData": "flowdeck.execution.data",
    "run_context": "flowdeck.events.lineage",
    "runtime": "flowdeck._runtime",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flowdeck' has no attribute {name!r}")

    if name == "TriggerFlow":
        import_module("flowdeck._runtime")  # the default runtime hosts every flow nobody placed elsewhere

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
