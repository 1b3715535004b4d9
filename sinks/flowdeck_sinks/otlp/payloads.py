"""Reading payloads: what of an event's payload becomes attributes. Tolerant of every shape.

Each reader decodes only the keys it names. A payload that is not what the catalogue says yields nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeGuard

import msgspec

from flowdeck_sinks.otlp import conventions as names
from flowdeck_sinks.otlp.content import Limits, blob_of, clip, json_text

__all__ = [
    "brief",
    "end_content",
    "end_facts",
    "enrich",
    "interrupts_of",
    "keep_content",
    "record_error",
    "start_attributes",
]

Payload = bytes | msgspec.Raw
"""JSON bytes as they stand in the event."""

WHOLE_LIMIT: Final = 1_000_000
"""Bytes of a payload above which only its named scalar parts are read."""
_NOTHING: Final = msgspec.Raw(b"null")


class _Started(msgspec.Struct, gc=False):
    input: msgspec.Raw = _NOTHING
    initial_value: msgspec.Raw = _NOTHING
    command: msgspec.Raw = _NOTHING
    action_name: Any = None
    action_type: Any = None
    agent_name: Any = None
    agent_id: Any = None
    attempt_index: Any = None


class _Trigger(msgspec.Struct, gc=False):
    """What of a chunk's start is always wanted."""

    trigger_event: Any = None


class _Ended(msgspec.Struct, gc=False):
    output: msgspec.Raw = _NOTHING
    result: msgspec.Raw = _NOTHING
    record: msgspec.Raw = _NOTHING
    raw_text: msgspec.Raw = _NOTHING
    status: Any = None
    will_retry: Any = None
    propagated_from: Any = None
    origin_run_id: Any = None


class _Facts(msgspec.Struct, gc=False):
    """What of an end is always wanted; inputs and outputs are skipped."""

    status: Any = None
    will_retry: Any = None
    propagated_from: Any = None
    origin_run_id: Any = None


_started: Final = msgspec.json.Decoder(_Started)
_trigger: Final = msgspec.json.Decoder(_Trigger)
_ended: Final = msgspec.json.Decoder(_Ended)
_facts: Final = msgspec.json.Decoder(_Facts)
_anything: Final = msgspec.json.Decoder()


def _texts(value: object) -> TypeGuard[str]:
    """Whether a value is a text that says something."""
    return isinstance(value, str) and bool(value)


def _given(raw: Payload) -> bool:
    """Whether a part of a payload was there and not null."""
    return bytes(memoryview(raw)[:5]) != b"null"


def _object(raw: Payload) -> Mapping[str, Any]:
    """Return a payload that is wanted whole; megabytes are not decoded for a few attributes."""
    if memoryview(raw).nbytes > WHOLE_LIMIT:
        return {}

    try:
        value = _anything.decode(raw)
    except ValueError:
        return {}

    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=4096)
def _upstream(trigger_event: str) -> str | None:
    """Return the operator whose own signal this is: ``Chunk[ask]-chunk-16…``, ``SubFlow-sub_flow-e9…-Result``."""
    if trigger_event.startswith("SubFlow-"):
        return trigger_event[8:].removesuffix("-Result") or None

    head, closing, operator = trigger_event.rpartition("]-")
    return operator if closing and "[" in head and operator else None


def start_attributes(kind: str, payload: Payload, limits: Limits, capture: bool) -> dict[str, Any]:
    """Return the attributes a start event brings."""
    if not capture and kind == "chunk_execution":
        return _upstream_of(payload)

    out: dict[str, Any] = {}
    try:
        found = _started.decode(payload)
    except ValueError:
        if capture:
            keep_content(out, payload, limits, "input")

        return out

    if kind == "chunk_execution":
        out |= _upstream_of(payload)
    elif kind == "action":
        if _texts(found.action_name):
            out[names.TOOL_NAME] = clip(found.action_name, limits.value)

        if _texts(found.action_type):
            out[names.ACTION_TYPE] = clip(found.action_type, limits.value)

        _call(out, found.command, limits, capture)

    if _texts(found.agent_name):
        out[names.AGENT_NAME] = clip(found.agent_name, limits.value)

    if _texts(found.agent_id):
        out[names.AGENT_ID] = clip(found.agent_id, limits.value)

    if isinstance(found.attempt_index, int):
        out[names.ATTEMPT_INDEX] = found.attempt_index

    if capture:
        given = next((raw for raw in (found.input, found.initial_value) if _given(raw)), None)
        if given is not None:
            keep_content(out, given, limits, "input")
        elif blob_of(payload) is not None:
            keep_content(out, payload, limits, "input")

    return out


def _upstream_of(payload: Payload) -> dict[str, Any]:
    try:
        trigger_event = _trigger.decode(payload).trigger_event
    except ValueError:
        return {}

    upstream = _upstream(trigger_event) if isinstance(trigger_event, str) else None
    return {} if upstream is None else {names.NODE_PARENT: upstream}


def _call(out: dict[str, Any], command: Payload, limits: Limits, capture: bool) -> None:
    """Add what a tool call says of itself."""
    call = _object(command)
    call_id = call.get("call_id") or call.get("tool_call_id") or call.get("id")
    if _texts(call_id):
        out[names.TOOL_CALL_ID] = clip(call_id, limits.value)

    if capture and call:
        arguments = next((call[key] for key in ("action_input", "arguments", "args", "kwargs") if key in call), call)
        text, _ = json_text(arguments, limits.value)
        out[names.TOOL_ARGUMENTS] = text
        keep_content(out, msgspec.json.encode(arguments), limits, "input")


def end_facts(payload: Payload) -> tuple[str | None, bool, bool]:
    """Return ``(status, another attempt follows, the error came from further in)``."""
    try:
        found = _facts.decode(payload)
    except ValueError:
        return None, False, False

    return (
        found.status if isinstance(found.status, str) else None,
        found.will_retry is True,
        _texts(found.propagated_from) or _texts(found.origin_run_id),
    )


def end_content(kind: str, payload: Payload, limits: Limits) -> dict[str, Any]:
    """Return what came out, when content is captured."""
    out: dict[str, Any] = {}
    try:
        found = _ended.decode(payload)
    except ValueError:
        keep_content(out, payload, limits, "output")
        return out

    fields: tuple[Payload, ...] = (found.output, found.result, found.raw_text)
    if kind == "action":
        record = _object(found.record)
        result = next((record[key] for key in ("result", "output", "data") if key in record), None)
        if result is not None:
            text, _ = json_text(result, limits.value)
            out[names.TOOL_RESULT] = text
            fields = (msgspec.json.encode(result),)

    given = next((raw for raw in fields if _given(raw)), None)
    if given is None:
        given = payload if blob_of(payload) is not None else None

    if given is not None:
        keep_content(out, given, limits, "output")
        if kind == "model_request":
            out[names.OUTPUT_MESSAGES] = out[names.OUTPUT_VALUE]

    return out


def record_error(payload: Payload) -> str | None:
    """Return the error text of an action's record: a failed action carries it there."""
    record = _object(payload).get("record")
    error = record.get("error") if isinstance(record, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error.get("type")

    return str(error) if error else None


def keep_content(out: dict[str, Any], raw: Payload, limits: Limits, side: str) -> None:
    """Add a value as ``input.value`` or ``output.value``; of a stored blob its preview and its name."""
    value, mime, cut, blob = (
        (names.INPUT_VALUE, names.INPUT_MIME, names.INPUT_CUT, names.INPUT_BLOB)
        if side == "input"
        else (names.OUTPUT_VALUE, names.OUTPUT_MIME, names.OUTPUT_CUT, names.OUTPUT_BLOB)
    )
    stored = blob_of(raw)
    text, shortened = json_text(raw if stored is None else stored[1], limits.value)
    out[value] = text
    out[mime] = "text/plain" if bytes(memoryview(raw)[:1]) == b'"' else "application/json"
    if stored is not None:
        out[blob] = stored[0]
        shortened = True

    if shortened:
        out[cut] = True


def enrich(event_type: str, payload: Payload, limits: Limits, capture: bool) -> dict[str, Any]:
    """Return what the events of a model call say of it: model, provider, usage, messages."""
    data = _object(payload)
    out: dict[str, Any] = {}
    request = data.get("request")
    request = request if isinstance(request, dict) else {}
    inner = request.get("data")
    model = data.get("model") or (inner.get("model") if isinstance(inner, dict) else None)
    if _texts(model):
        out[names.REQUEST_MODEL] = out[names.LLM_MODEL] = clip(model, limits.value)

    provider = data.get("provider") or request.get("provider")
    if _texts(provider):
        out[names.PROVIDER] = clip(provider, limits.value)

    if isinstance(data.get("attempt_index"), int):
        out[names.ATTEMPT_INDEX] = data["attempt_index"]

    if event_type == "model.meta" and isinstance(data.get("meta"), dict):
        _usage(out, data["meta"], limits)

    if capture:
        messages = data.get("prompt_messages") or data.get("prompt") or data.get("prompt_text")
        if messages:
            text, cut = json_text(messages, limits.value)
            out[names.INPUT_MESSAGES] = out[names.INPUT_VALUE] = text
            out[names.INPUT_MIME] = "text/plain" if isinstance(messages, str) else "application/json"
            if cut:
                out[names.INPUT_CUT] = True

    return out


def _usage(out: dict[str, Any], meta: Mapping[str, Any], limits: Limits) -> None:
    usage = meta.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    read = _count(usage, "input_tokens", "prompt_tokens", "request_tokens")
    written = _count(usage, "output_tokens", "completion_tokens", "response_tokens")
    if read is not None:
        out[names.INPUT_TOKENS] = out[names.LLM_PROMPT_TOKENS] = read

    if written is not None:
        out[names.OUTPUT_TOKENS] = out[names.LLM_COMPLETION_TOKENS] = written

    if read is not None or written is not None:
        out[names.LLM_TOTAL_TOKENS] = (read or 0) + (written or 0)

    reason = meta.get("finish_reason")
    if _texts(reason):
        out[names.FINISH_REASONS] = (clip(reason, limits.value),)

    model = meta.get("model")
    if _texts(model):
        out[names.RESPONSE_MODEL] = clip(model, limits.value)


def _count(usage: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = usage.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value

    return None


def interrupts_of(payload: Payload) -> list[Mapping[str, Any]]:
    """Return the interrupts a payload is about, as mappings with at least ``id``."""
    data = _object(payload)
    found: list[Any] = [data["interrupt"]] if isinstance(data.get("interrupt"), dict) else []
    many = data.get("interrupts")
    if isinstance(many, list):
        found += many

    if not found and _texts(data.get("interrupt_id")):
        paused = data.get("paused_at")
        found = [{"id": data["interrupt_id"], "actor": data.get("actor"), "created_at": paused}]

    return [item for item in found if isinstance(item, dict) and _texts(item.get("id"))]


_BRIEF: Final = (
    ("target", names.EVENT_TARGET),
    ("EVENT", names.EVENT_TARGET),
    ("key", names.EVENT_TARGET),
    ("chunk_name", names.EVENT_TARGET),
    ("kind", names.EVENT_KIND),
    ("TYPE", names.EVENT_KIND),
    ("type", names.EVENT_KIND),
    ("actor", names.EVENT_ACTOR),
    ("author", names.EVENT_ACTOR),
    ("status", names.EVENT_STATUS),
    ("outcome", names.EVENT_STATUS),
    ("reason", names.EVENT_STATUS),
    ("id", names.EVENT_OBJECT),
    ("SIGNAL_ID", names.EVENT_OBJECT),
    ("interrupt_id", names.EVENT_OBJECT),
)


def brief(payload: Payload, limits: Limits) -> dict[str, Any]:
    """Return the few facts of an event that are no content: who, what, which, what became of it."""
    data = _object(payload)
    for key in ("intervention", "interrupt"):
        inner = data.get(key)
        if isinstance(inner, dict):
            data = {**inner, **{k: v for k, v in data.items() if k != key}}

    out: dict[str, Any] = {}
    for key, name in _BRIEF:
        value = data.get(key)
        if _texts(value) and name not in out:
            out[name] = clip(value, min(limits.value, 256))

    return out
