"""What a run's span says: its name, its attributes, its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.trace import Status, StatusCode

from flowdeck_sinks.otlp import conventions as names
from flowdeck_sinks.otlp.content import Limits, clip
from flowdeck_sinks.otlp.kinds import Kind
from flowdeck_sinks.otlp.state import RunState

__all__ = ["Trouble", "identity", "outcome", "span_name"]

_UNSET: Final = Status(StatusCode.UNSET)
_OUTCOMES: Final = {"completed": "success", "failed": "failure", "cancelled": "cancelled", "waiting": "waiting"}
_TIMEOUTS: Final = ("Timeout", "TimeoutError", "TimedOut")
_MOST_KNOWN: Final = 4096
_known: Final[dict[tuple[Any, ...], dict[str, Any]]] = {}
_META: Final = (
    ("flow_name", names.FLOW_NAME),
    ("user_id", names.USER_ID),
    ("tenant_id", names.TENANT_ID),
    ("task_id", names.TASK_ID),
    ("trace_id", names.CORRELATION_ID),
)


class Trouble(NamedTuple):
    """Why no end of a run will come any more."""

    reason: str
    """``flow.span.incomplete_reason``."""


def span_name(run: RunState, kind: Kind | None) -> str:
    """Return the name of a run's span: what is done, and to what. Low cardinality."""
    if kind is None:
        return clip(run.kind, 128) or "run"

    name: Any
    match run.kind:
        case "workflow_execution":
            name = run.meta.get("flow_name")
        case "chunk_execution":
            name = run.meta.get("chunk_name")
        case "action":
            name = (run.extra or {}).get(names.TOOL_NAME) or run.meta.get("action_name")
        case "model_request":
            name = (run.extra or {}).get(names.REQUEST_MODEL)
        case _:
            name = (run.extra or {}).get(names.AGENT_NAME) or run.agent_name

    return f"{kind.prefix} {clip(str(name), 200)}" if name else kind.prefix


def identity(run: RunState, kind: Kind | None, limits: Limits) -> dict[str, Any]:
    """Return the attributes that say which run this is."""
    out = _shared(run, kind, limits.value).copy()
    out[names.RUN_ID] = run.run_id
    if run.execution_id is not None:
        out[names.EXECUTION_ID] = run.execution_id

    if run.session_id is not None:
        out[names.SESSION_ID] = run.session_id

    match run.kind:
        case "chunk_execution":
            if run.attempt:
                out[names.STEP_ATTEMPT] = run.attempt

            if run.scope is not None:
                out[names.STEP_SCOPE] = run.scope
        case "workflow_execution":
            if run.epoch > 1:
                out[names.EPOCH] = run.epoch

            if run.flow is not None and run.flow.segment > 1:
                out[names.SEGMENTS] = run.flow.segment
        case "model_request" | "agent_turn" | "request" | "action":
            _agent(run, out, limits.value)

    if run.extra:
        out.update(run.extra)

    if run.kind == "action" and names.TOOL_NAME in out:
        out[names.OI_TOOL_NAME] = out[names.TOOL_NAME]

    return out


def _shared(run: RunState, kind: Kind | None, limit: int) -> dict[str, Any]:
    """Return what all runs of one kind with one meta share: all attempts of a step, all executions of a flow."""
    meta = run.meta
    key = (run.kind, limit, *meta, *meta.values())
    try:
        found = _known.get(key)
    except TypeError:  # a value that is a list or a mapping
        return _from_meta(run, kind, limit)

    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()

        found = _known[key] = _from_meta(run, kind, limit)

    return found


def _from_meta(run: RunState, kind: Kind | None, limit: int) -> dict[str, Any]:
    out: dict[str, Any] = {names.SPAN_KIND: "CHAIN"} if kind is None else dict(kind.fixed)
    out[names.RUN_KIND] = run.kind
    meta = run.meta
    for key, name in _META:
        value = meta.get(key)
        if value is not None:
            out[name] = clip(value if isinstance(value, str) else str(value), limit)

    if run.kind == "chunk_execution":
        _step(meta, out, limit)
    elif run.kind == "workflow_execution" and names.FLOW_NAME in out:
        out[names.WORKFLOW_NAME] = out[names.FLOW_NAME]

    return out


def _step(meta: Mapping[str, Any], out: dict[str, Any], limit: int) -> None:
    for key, attributes in (
        ("chunk_id", (names.STEP_ID, names.NODE_ID)),
        ("chunk_name", (names.STEP_NAME, names.NODE_NAME)),
        ("operator_kind", (names.STEP_KIND,)),
    ):
        value = meta.get(key)
        if isinstance(value, str):
            out.update(dict.fromkeys(attributes, clip(value, limit)))


def _agent(run: RunState, out: dict[str, Any], limit: int) -> None:
    if run.agent_name is not None:
        out[names.AGENT_NAME] = clip(run.agent_name, limit)

    if run.kind == "agent_turn" and run.agent_id is not None:
        out[names.AGENT_ID] = run.agent_id

    if run.kind == "action":
        name = run.meta.get("action_name")
        if isinstance(name, str):
            out[names.TOOL_NAME] = clip(name, limit)

        out[names.TOOL_TYPE] = "function"
        return

    if run.response_id is not None:
        out[names.RESPONSE_ID] = run.response_id

    if run.session_id is not None and run.kind != "request":
        out[names.CONVERSATION_ID] = run.session_id

    if run.kind == "model_request":
        out[names.PROVIDER] = "unknown"


def outcome(run: RunState, out: dict[str, Any], trouble: Trouble | None) -> Status:
    """Add how it went; return the span's status. Success leaves it unset (specification of ``Status``)."""
    if run.duration_us >= 0:
        out[names.DURATION_US] = run.duration_us

    if trouble is not None and not run.end_us:
        out[names.INCOMPLETE] = True
        out[names.INCOMPLETE_REASON] = trouble.reason
        out[names.OUTCOME] = "incomplete"
        out[names.ERROR_TYPE] = trouble.reason
        return Status(StatusCode.ERROR, f"no end was seen: {trouble.reason}")

    if not run.outcome:
        return _UNSET

    out[names.OUTCOME] = _OUTCOMES.get(run.outcome, run.outcome)
    if run.outcome != "failed":
        return _UNSET

    out[names.ERROR_TYPE] = error_type = run.error_type or "_OTHER"
    if error_type.endswith(_TIMEOUTS):
        out[names.OUTCOME] = "timeout"

    message = run.error_message
    return Status(StatusCode.ERROR, None if message is None else clip(message, 1024))
