"""Spans as runs: each span becomes the events a run of the framework has, by what the span is about.

=================  ====================================================================
a model's call     ``model.request_started  prompt.built  model.meta  model.completed``
a tool's           ``action.started  action.completed``
an agent's         ``agent_turn.started  agent_turn.completed``
any other span     ``chunk.started  chunk.completed``
=================  ====================================================================

A trace is an execution. Its own start and end are those of the span that has no parent; where that span is another
party's (its parent is remote and never sent to us), those of the span that was called from there: it tells of them in
epoch 1 and a span without a parent in epoch 2, so whichever comes first the latter counts.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from flowdeck_sinks.collect import genai
from flowdeck_sinks.collect.lines import Line, ids_of, line, run_bytes, shortened, time_us_of, whole_id
from flowdeck_sinks.collect.values import attributes_of, clip, text_of, without_secrets

__all__ = ["Origin", "Refused", "error_of", "identity_of", "span_lines"]

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_ERROR: Final = 2
_CALLED: Final = (2, 5)
"""The kinds SERVER and CONSUMER: their parent is somebody else's, where flags do not say."""
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_DETAILS: Final = "gen_ai.client.inference.operation.details"
_NAMES: Final = {
    genai.MODEL: ("model.request_started", "model.completed", "model.request_failed"),
    genai.TOOL: ("action.started", "action.completed", "action.failed"),
    genai.AGENT: ("agent_turn.started", "agent_turn.completed", "agent_turn.failed"),
    genai.STEP: ("chunk.started", "chunk.completed", "chunk.failed"),
}
_USERS: Final = ("user.id", "enduser.id")
_SESSIONS: Final = ("session.id", "gen_ai.conversation.id")


class Refused(ValueError):
    """A span or a log record that cannot be taken; the message says why."""


class Origin(NamedTuple):
    """Who sent it: a resource and a scope."""

    service: str
    """``service.name``, fit to be a name."""
    resource: dict[str, Any]
    scope: dict[str, Any]


def identity_of(
    trace: str, origin: Origin, attributes: dict[str, Any]
) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """Return session and identity meta of a run."""
    meta = [("flow_name", origin.service), ("trace_id", trace)]
    user = text_of(attributes, *_USERS) or text_of(origin.resource, *_USERS)
    if user is not None:
        meta.append(("user_id", user))

    return text_of(attributes, *_SESSIONS), tuple(meta)


def error_of(attributes: dict[str, Any], message: str | None = None) -> dict[str, Any]:
    """Return the ``error`` of an event from the attributes of an exception."""
    kind = text_of(attributes, "exception.type", "error.type") or "Error"
    module, _, name = kind.rpartition(".")
    said = attributes.get("exception.message") or message
    stack = attributes.get("exception.stacktrace")
    return {
        "type": name or kind,
        "message": shortened(said) if isinstance(said, str) else None,
        "module": module or None,
        "traceback": stack[-32_768:] if isinstance(stack, str) else None,
    }


def span_lines(span: Any, origin: Origin, received_us: int) -> list[Line]:
    """Return the events of one span.

    Args:
        span: A ``Span`` of OTLP.
        origin: Where it comes from.
        received_us: When it came: its time, where it has none that can be told.

    Raises:
        Refused: Its ids are not ids.
    """
    if not whole_id(span.trace_id, 16):
        raise Refused(f"trace_id is not 16 bytes, or all zero: {span.trace_id[:32].hex() or 'empty'}")

    if not whole_id(span.span_id, 8):
        raise Refused(f"span_id is not 8 bytes, or all zero: {span.span_id[:32].hex() or 'empty'}")

    above = bytes(span.parent_span_id)
    if above and len(above) != 8:
        raise Refused(f"parent_span_id is not 8 bytes: {above[:32].hex()}")

    has_parent = any(above) and above != span.span_id
    trace, run_id = ids_of(span.trace_id, span.span_id)
    parent = ids_of(span.trace_id, above)[1] if has_parent else trace
    attributes = attributes_of(span.attributes)
    name = clip(span.name) or "span"
    started, ended = _times(span, received_us)
    told = _Told(span, run_id, ended)
    attributes = {**told.details, **attributes}

    kind = genai.kind_of(attributes)
    session, meta = identity_of(trace, origin, attributes)
    agent = genai.agent_of(attributes)
    tool = (text_of(attributes, "gen_ai.tool.name", "tool.name") or name) if kind == genai.TOOL else None
    own = ("action_name", tool) if tool is not None else ("chunk_name", name)
    run = run_bytes(run_id, kind, trace, parent, agent, session, (*meta, own))

    failed = span.status.code == _ERROR
    error = None
    if failed:
        said = without_secrets(span.status.message) or None
        error = error_of(told.exceptions[-1] if told.exceptions else attributes, said)

    given = genai.input_of(kind, attributes, told.messages)
    result = genai.output_of(kind, attributes, told.messages)
    start_type, end_type, failed_type = _NAMES[kind]
    out = [
        line(
            f"{run_id}.start", start_type, "INFO", started, run, message=name,
            payload=_start_payload(kind, name, tool, agent, attributes, given),
        )
    ]  # fmt: skip
    if kind == genai.MODEL:
        if given is not None:
            payload = {"prompt_messages": given}
            out.append(line(f"{run_id}.prompt", "prompt.built", "INFO", started, run, payload=payload))

        facts = genai.model_facts(attributes)
        if facts:
            out.append(line(f"{run_id}.model", "model.meta", "INFO", ended, run, payload={"meta": facts}))

    out += told.lines(run)
    payload = _end_payload(kind, name, tool, agent, result, error)
    payload["otel"] = _described(span, attributes, origin)
    level = ("WARNING" if kind == genai.TOOL else "ERROR") if failed else "INFO"
    out.append(
        line(
            f"{run_id}.end", failed_type if failed else end_type, level, ended, run,
            message=name, payload=payload, error=error, duration_us=ended - started,
        )
    )  # fmt: skip
    if not has_parent or _called(span):
        out += _trace_lines(trace, run_id, name, session, meta, started, ended, error, 1 if has_parent else 2)

    return out


class _Told:
    """What a span tells as its events: exceptions, messages of a model, and all others."""

    def __init__(self, span: Any, run_id: str, ended_us: int) -> None:
        self.exceptions: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.details: dict[str, Any] = {}
        self._others: list[tuple[str, str, int, dict[str, Any]]] = []
        failed = span.status.code == _ERROR
        for number, event in enumerate(span.events):
            attributes = attributes_of(event.attributes)
            message = genai.message_of(event.name, attributes)
            if message is not None:
                self.messages.append(message)
            elif event.name == _DETAILS:
                self.details.update(attributes)
            elif event.name == "exception" and failed:
                self.exceptions.append(attributes)
            else:
                name = clip(event.name, 200) or "event"
                at = time_us_of(event.time_unix_nano, ended_us * 1000)
                self._others.append((f"{run_id}.event-{number}", name, at, attributes))

    def lines(self, run: bytes) -> list[Line]:
        """Return the events that are nothing else."""
        return [
            line(
                event_id, f"otel.{name}", "WARNING" if name == "exception" else "INFO", at, run, payload=attributes,
                error=error_of(attributes) if name == "exception" else None,
            )
            for event_id, name, at, attributes in self._others
        ]  # fmt: skip


def _times(span: Any, received_us: int) -> tuple[int, int]:
    """Return start and end in microseconds; what is no time, or ends before it began, takes the other's."""
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    started = time_us_of(start, end) or received_us
    return started, max(started, time_us_of(end) or started)


def _called(span: Any) -> bool:
    """Whether the span's parent is in another process."""
    flags = span.flags
    return bool(flags & _IS_REMOTE) if flags & _HAS_IS_REMOTE else span.kind in _CALLED


def _start_payload(
    kind: str, name: str, tool: str | None, agent: str | None, attributes: dict[str, Any], given: Any
) -> dict[str, Any]:
    if kind == genai.STEP:
        return {"chunk_name": name} if given is None else {"chunk_name": name, "input": given}

    out: dict[str, Any] = {} if agent is None else {"agent_name": agent}
    if kind == genai.TOOL:
        command = {"action_name": tool}
        if given is not None:
            command["arguments"] = given

        call = text_of(attributes, "gen_ai.tool.call.id", "tool_call.id", "tool.id")
        if call is not None:
            command["call_id"] = call

        out |= {"action_name": tool, "action_type": text_of(attributes, "gen_ai.tool.type") or "tool"}
        out["command"] = command
    elif kind == genai.MODEL:
        facts = genai.model_facts(attributes)
        out |= {key: facts[key] for key in ("model", "provider") if key in facts}
    elif kind == genai.AGENT and given is not None:
        out["input"] = given

    return out


def _end_payload(
    kind: str, name: str, tool: str | None, agent: str | None, result: Any, error: dict[str, Any] | None
) -> dict[str, Any]:
    if kind == genai.STEP:
        return {"chunk_name": name} if result is None else {"chunk_name": name, "output": result}

    out: dict[str, Any] = {} if agent is None else {"agent_name": agent}
    if kind == genai.TOOL:
        record: dict[str, Any] = {} if result is None else {"result": result}
        if error is not None:
            record["error"] = error["message"] or error["type"]

        out |= {"action_name": tool, "record": record}
    elif result is not None:
        out["result"] = result

    return out


def _described(span: Any, attributes: dict[str, Any], origin: Origin) -> dict[str, Any]:
    """Return all that the sender said of the span, as it said it."""
    out: dict[str, Any] = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "kind": _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else int(span.kind),
        "attributes": attributes,
        "scope": origin.scope,
        "resource": origin.resource,
    }
    if span.trace_state:
        out["trace_state"] = span.trace_state

    if span.status.code:
        out["status"] = "error" if span.status.code == _ERROR else "ok"

    if span.links:
        out["links"] = [_link(one) for one in span.links]

    for key in ("dropped_attributes_count", "dropped_events_count", "dropped_links_count"):
        if getattr(span, key):
            out[key] = getattr(span, key)

    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if not time_us_of(start) or not time_us_of(end) or end < start:
        out["times"] = {"start_time_unix_nano": start, "end_time_unix_nano": end}

    return out


def _link(link: Any) -> dict[str, Any]:
    out = {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}
    if whole_id(link.trace_id, 16) and whole_id(link.span_id, 8):
        out["run_id"] = ids_of(link.trace_id, link.span_id)[1]

    if link.trace_state:
        out["trace_state"] = link.trace_state

    return {**out, "attributes": attributes_of(link.attributes)} if link.attributes else out


def _trace_lines(
    trace: str,
    run_id: str,
    name: str,
    session: str | None,
    meta: tuple[tuple[str, str], ...],
    started: int,
    ended: int,
    error: dict[str, Any] | None,
    epoch: int,
) -> list[Line]:
    """Return the start and the end of a trace as an execution."""
    run = run_bytes(trace, "workflow_execution", trace, None, None, session, meta)
    kind, level = ("failed", "ERROR") if error is not None else ("completed", "INFO")
    end_payload = {"origin_chunk": name} if error is None else {"origin_run_id": run_id}
    return [
        line(
            f"{run_id}.trace-start", "triggerflow.execution_started", "INFO", started, run,
            message=name, payload={"entrypoint": name}, epoch=epoch,
        ),
        line(
            f"{run_id}.trace-end", f"triggerflow.execution_{kind}", level, ended, run,
            message=name, payload=end_payload, error=error, epoch=epoch, duration_us=ended - started,
        ),
    ]  # fmt: skip
