"""The reference system's names, so that a program changes one import: ``from flowdeck.compat import Agently``.

Names are resolved at first use. What differs on purpose is listed in ``docs/compatibility.md``; what is kept here
although the native API does better: invalid events raise :class:`pydantic.ValidationError` into the emitter, and the
error helpers re-raise when ``runtime.raise_error`` / ``runtime.raise_critical`` are set (the default).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck.agents.agent import Agent
    from flowdeck.agents.session import Session
    from flowdeck.compat.agently import Agently, AgentlyMain, async_print, print_
    from flowdeck.compat.bridge import ObservationBridge
    from flowdeck.compat.event_center import CompatEmitter, CompatEventCenter
    from flowdeck.compat.fastapi_helper import FastAPIHelper
    from flowdeck.compat.hookers import RuntimeConsoleSinkHooker, RuntimeStorageSinkHooker
    from flowdeck.definition.contract import TriggerFlowContractSpec
    from flowdeck.definition.retry import Retry
    from flowdeck.definition.stream_items import (
        TriggerFlowInterruptEvent,
        TriggerFlowIntervention,
        TriggerFlowInterventionEvent,
        TriggerFlowSystemStreamEvent,
    )
    from flowdeck.errors import (
        ExecutionEnvironmentApprovalDenied,
        ExecutionEnvironmentApprovalRequired,
        ExecutionEnvironmentError,
    )
    from flowdeck.events.aliases import (
        get_triggerflow_event_aliases,
        matches_observation_event_type,
        normalize_triggerflow_event_type,
    )
    from flowdeck.events.errorinfo import ErrorInfo
    from flowdeck.events.lineage import RunContext
    from flowdeck.events.model import ObservationEvent, RuntimeEvent
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.triggerflow import TriggerFlow

__all__ = [
    "Agent",
    "Agently",
    "AgentlyMain",
    "CompatEmitter",
    "CompatEventCenter",
    "ErrorInfo",
    "EventCenter",
    "ExecutionEnvironmentApprovalDenied",
    "ExecutionEnvironmentApprovalRequired",
    "ExecutionEnvironmentError",
    "FastAPIHelper",
    "ObservationBridge",
    "ObservationEvent",
    "Retry",
    "RunContext",
    "RuntimeConsoleSinkHooker",
    "RuntimeEvent",
    "RuntimeStorageSinkHooker",
    "Session",
    "TriggerFlow",
    "TriggerFlowBlueprint",
    "TriggerFlowChunk",
    "TriggerFlowContractSpec",
    "TriggerFlowEventData",
    "TriggerFlowExecution",
    "TriggerFlowInterruptEvent",
    "TriggerFlowIntervention",
    "TriggerFlowInterventionEvent",
    "TriggerFlowProcess",
    "TriggerFlowRuntimeData",
    "TriggerFlowSystemStreamEvent",
    "async_print",
    "get_triggerflow_event_aliases",
    "matches_observation_event_type",
    "normalize_triggerflow_event_type",
    "print_",
]

_HOMES = {
    "Agent": "flowdeck.agents.agent",
    "Agently": "flowdeck.compat.agently",
    "AgentlyMain": "flowdeck.compat.agently",
    "CompatEmitter": "flowdeck.compat.event_center",
    "CompatEventCenter": "flowdeck.compat.event_center",
    "ErrorInfo": "flowdeck.events.errorinfo",
    "ExecutionEnvironmentApprovalDenied": "flowdeck.errors",
    "ExecutionEnvironmentApprovalRequired": "flowdeck.errors",
    "ExecutionEnvironmentError": "flowdeck.errors",
    "FastAPIHelper": "flowdeck.compat.fastapi_helper",
    "ObservationBridge": "flowdeck.compat.bridge",
    "ObservationEvent": "flowdeck.events.model",
    "Retry": "flowdeck",
    "RunContext": "flowdeck.events.lineage",
    "RuntimeConsoleSinkHooker": "flowdeck.compat.hookers",
    "RuntimeEvent": "flowdeck.events.model",
    "RuntimeStorageSinkHooker": "flowdeck.compat.hookers",
    "Session": "flowdeck.agents.session",
    "TriggerFlow": "flowdeck",
    "async_print": "flowdeck.compat.agently",
    "print_": "flowdeck.compat.agently",
    "TriggerFlowContractSpec": "flowdeck.definition.contract",
    "TriggerFlowInterruptEvent": "flowdeck.definition.stream_items",
    "TriggerFlowIntervention": "flowdeck.definition.stream_items",
    "TriggerFlowInterventionEvent": "flowdeck.definition.stream_items",
    "TriggerFlowRuntimeData": "flowdeck",
    "TriggerFlowSystemStreamEvent": "flowdeck.definition.stream_items",
    "get_triggerflow_event_aliases": "flowdeck.events.aliases",
    "matches_observation_event_type": "flowdeck.events.aliases",
    "normalize_triggerflow_event_type": "flowdeck.events.aliases",
}


_RENAMED = {
    "EventCenter": ("flowdeck.compat.event_center", "CompatEventCenter"),
    "TriggerFlowBlueprint": ("flowdeck.definition.blueprint", "Blueprint"),
    "TriggerFlowChunk": ("flowdeck.definition.blueprint", "Chunk"),
    "TriggerFlowEventData": ("flowdeck", "TriggerFlowRuntimeData"),
    "TriggerFlowExecution": ("flowdeck.execution.execution", "TriggerFlowExecution"),
    "TriggerFlowProcess": ("flowdeck.definition.process", "Process"),
}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        module, own_name = _RENAMED[name]
        value = globals()[name] = getattr(import_module(module), own_name)
        return value

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(
            f"module 'flowdeck.compat' has no attribute {name!r}; flowdeck docs compatibility lists what is there"
        )

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from flowdeck.definition.blueprint import Blueprint as TriggerFlowBlueprint
    from flowdeck.definition.blueprint import Chunk as TriggerFlowChunk
    from flowdeck.definition.process import Process as TriggerFlowProcess
    from flowdeck.execution.execution import TriggerFlowExecution

    EventCenter = CompatEventCenter
    TriggerFlowEventData = TriggerFlowRuntimeData
