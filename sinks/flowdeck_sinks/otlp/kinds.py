"""What each kind of run and each framework event means for spans: tables made from the event catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from flowdeck.events.catalogue import CATALOGUE, TERMINAL
from flowdeck_sinks.otlp import conventions as names

__all__ = [
    "CONTINUES",
    "ENDS",
    "ENRICHES",
    "FLOW",
    "KINDS",
    "PLAIN",
    "QUIET",
    "STARTS",
    "WAIT_EVENTS",
    "Kind",
    "canonical_type",
]

FLOW: Final = "workflow_execution"
"""The run kind of executions."""

CONTINUES: Final = {
    "triggerflow.execution_started": "start",
    "triggerflow.execution_waiting": "wait",
    "triggerflow.execution_resumed": "resume",
    "triggerflow.execution_recovered": "recover",
}
"""Events at which an execution changes between active and waiting."""

STARTS: Final = {
    name: spec.run_kind
    for name, spec in CATALOGUE.items()
    if spec.transition == "running" and CONTINUES.get(name, "start") == "start"
}
"""Events that start a span, with the kind of run they start."""

ENDS: Final = {
    name: (spec.run_kind, spec.transition) for name, spec in CATALOGUE.items() if spec.transition in TERMINAL
} | {"triggerflow.execution_closed": ("workflow_execution", None)}
"""Events that end a span: kind of run and status. ``execution_closed`` tells its status in its payload."""

PLAIN: Final = frozenset(name for name in CATALOGUE if not name.startswith("tool."))
"""Types that need no second look: framework events that are nobody's twin."""

WAIT_EVENTS: Final = frozenset(
    {
        "triggerflow.interrupt_raised",
        "triggerflow.interrupt_answered",
        "triggerflow.interrupt_expired",
        "triggerflow.execution_resumed",
        "triggerflow.pending_interrupts_cancelled",
    }
)
"""Events that begin or end a wait."""

ENRICHES: Final = frozenset({"prompt.built", "model.requesting", "model.meta", "model.request_started"})
"""Events whose payload becomes attributes of their span."""

QUIET: Final = frozenset(
    {
        "triggerflow.definition_declared",
        "triggerflow.execution_sealed",
        "triggerflow.stream_closed",
        "triggerflow.stream_item_emitted",
        "triggerflow.execution_closed",
        "model.streaming",
        *ENRICHES,
    }
)
"""Events that are log records but no span events: they would say again what the span says, or come by the thousand."""


class Kind(NamedTuple):
    """How a kind of run becomes a span."""

    prefix: str
    """First word of the span's name."""
    operation: str | None
    """``gen_ai.operation.name``."""
    inference: str
    """``openinference.span.kind``."""
    client: bool = False
    """Span kind CLIENT instead of INTERNAL."""
    fixed: Mapping[str, Any] = MappingProxyType({})
    """The attributes every span of the kind has."""


def _kind(prefix: str, operation: str | None, inference: str, client: bool = False) -> Kind:
    fixed: dict[str, Any] = {names.SPAN_KIND: inference}
    if operation is not None:
        fixed[names.OPERATION] = operation

    return Kind(prefix, operation, inference, client, fixed)


KINDS: Final = {
    "workflow_execution": _kind("invoke_workflow", "invoke_workflow", "CHAIN"),
    "chunk_execution": _kind("step", None, "CHAIN"),
    "agent_turn": _kind("invoke_agent", "invoke_agent", "AGENT"),
    "request": _kind("request", None, "CHAIN"),
    "model_request": _kind("chat", "chat", "LLM", client=True),
    "action_loop": _kind("action_loop", None, "CHAIN"),
    "action": _kind("execute_tool", "execute_tool", "TOOL"),
}
"""By run kind; a run of any other kind becomes a span named after its kind, from its first to its last event."""


def canonical_type(event_type: str) -> str:
    """Return the name the tables know: ``workflow.x`` is ``triggerflow.x``, ``tool.x`` is ``action.x``."""
    family, dot, rest = event_type.partition(".")
    if family == "workflow" or family == "trigger_flow":
        return f"triggerflow.{rest}"

    return f"action.{rest}" if family == "tool" and dot else event_type
