"""The record of one call: what happened, in one dict that can be stored, sent and shown to a model.

A call never raises; its ``status`` tells. What the action returned is read by the compatible API's conventions
(behaviour §7.2): a text that begins with ``Error:``, ``{"ok": False}``, ``{"error": "…"}``, ``{"need_approval":
True}``, or a dict with one of the statuses, which is taken as the record itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowdeck.actions.artifacts import ArtifactStore
from flowdeck.actions.spec import ActionSpec
from flowdeck.errors import (
    ActionError,
    ExecutionEnvironmentApprovalDenied,
    ExecutionEnvironmentApprovalRequired,
    ExecutionEnvironmentError,
    UnencodableValue,
)
from flowdeck.execution.values import copy_value, encode

__all__ = [
    "STATUSES",
    "answered",
    "call_id",
    "is_record",
    "new_record",
    "placed",
    "read_failure",
    "read_outcome",
    "slim",
    "with_artifact",
]

STATUSES: Final = ("success", "error", "approval_required", "blocked", "skipped")
PREVIEW: Final = 2_000
"""Characters of a large result that stay in the record, for the model and the reader."""
MAX_ERROR: Final = 4_000
"""Characters of an error that stay in the record."""
_json: Final = msgspec.json.Encoder(enc_hook=str).encode


def call_id(key: str) -> str:
    """Return the id of a call; the same key gives the same id, so a repeated call keeps it."""
    return "act_call_" + hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def new_record(
    action_id: str,
    kwargs: Mapping[str, Any],
    spec: ActionSpec | None,
    *,
    key: str,
    purpose: str = "",
    todo_suggestion: str = "",
    next_value: str = "",
    source_protocol: str = "direct",
) -> dict[str, Any]:
    """Return the record of a call that is about to be made."""
    arguments, problem = storable(dict(kwargs), "kwargs")
    return {
        "action_call_id": call_id(key),
        "ok": False,
        "status": "skipped",
        "purpose": purpose,
        "action_id": action_id,
        "tool_name": action_id,
        "kwargs": arguments,
        "todo_suggestion": todo_suggestion,
        "next": next_value,
        "success": False,
        "result": None,
        "data": None,
        "artifact_refs": [],
        "artifacts": [],
        "diagnostics": [problem] if problem else [],
        "approval": {},
        "timing": {},
        "meta": {"source_protocol": source_protocol, "idempotency_key": key},
        "redaction_report": {},
        "error": "",
        "expose_to_model": spec.expose_to_model if spec is not None else False,
        "side_effect_level": spec.side_effect_level if spec is not None else "read",
        "executor_type": spec.executor.executor_type if spec is not None else "",
    }


def settle(record: dict[str, Any], status: str, data: Any = None, error: str = "") -> dict[str, Any]:
    """Give ``record`` its outcome and return it."""
    record["status"] = status
    record["ok"] = record["success"] = status == "success"
    record["result"] = record["data"] = data
    record["error"] = error if len(error) <= MAX_ERROR else f"{error[:MAX_ERROR]}… ({len(error)} characters in all)"
    return record


def diagnose(record: dict[str, Any], code: str, message: str, **more: Any) -> None:
    """Add a diagnostic to ``record``."""
    record["diagnostics"].append({"code": code, "message": message, **more})


def is_record(value: Any) -> bool:
    """Whether ``value`` is the record of a call."""
    return isinstance(value, dict) and "action_call_id" in value and value.get("status") in STATUSES


def storable(value: Any, name: str) -> tuple[Any, dict[str, Any] | None]:
    """Return ``value`` as it can be stored, and a diagnostic when it had to be altered for that.

    What the runtime's state can hold stays as it is; anything else is replaced, part by part, by its description.
    """
    try:
        copied = copy_value(value, name)
        encode(copied, name)  # a dataclass of a local class, say, can be copied but not stored
    except (UnencodableValue, RecursionError) as problem:
        text = f"{name} held something that cannot be stored and was replaced by its description: {problem}"
        return _described(value, 0), {"code": "not_storable", "message": text[:500]}

    return copied, None


def _described(value: Any, depth: int) -> Any:
    if depth > 32:
        return "…"

    if isinstance(value, Mapping):
        return {str(key): _described(each, depth + 1) for key, each in value.items()}

    if isinstance(value, list | tuple | set | frozenset):
        return [_described(each, depth + 1) for each in value]

    try:
        encode(value)
    except Exception:
        kind = type(value)
        return {"__type__": f"{kind.__module__}.{kind.__qualname__}", "__repr__": _repr(value)}

    return value


def _repr(value: Any) -> str:
    try:
        return repr(value)[:PREVIEW]
    except Exception as problem:
        return f"<repr failed: {type(problem).__name__}>"


def read_outcome(record: dict[str, Any], outcome: Any) -> dict[str, Any]:
    """Read what an action returned into ``record`` and return it."""
    value, problem = storable(outcome, "result")
    if problem:
        record["diagnostics"].append(problem)

    if isinstance(value, str) and value.startswith("Error:"):
        return settle(record, "error", value, value.removeprefix("Error:").strip())

    if not isinstance(value, dict):
        return settle(record, "success", value)

    status = value.get("status")
    if isinstance(status, str) and status in STATUSES:
        return _taken_over(record, status, value)

    if value.get("need_approval") is True:
        record["approval"] = _wanted(value)
        return settle(record, "approval_required", value, record["approval"]["reason"])

    if value.get("ok") is False:
        return settle(
            record, "error", value, _text(value, "reason", "error", "stderr") or "the action reported ok=False"
        )

    if isinstance(value.get("error"), str) and value["error"]:
        return settle(record, "error", value, value["error"])

    return settle(record, "success", value)


def read_failure(record: dict[str, Any], problem: Exception) -> None:
    """Read what was raised into the record."""
    text = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
    if isinstance(problem, ExecutionEnvironmentApprovalRequired):
        record["approval"] = {"required": True, "reason": str(problem), **problem.payload}
        settle(record, "approval_required", error=str(problem))
    elif isinstance(problem, ExecutionEnvironmentApprovalDenied):
        settle(record, "blocked", error=str(problem))
    else:
        plain = isinstance(problem, TimeoutError | ActionError | ExecutionEnvironmentError)
        settle(record, "error", error=str(problem) if plain and str(problem) else text)

    code = problem.code if isinstance(problem, ExecutionEnvironmentError) else "raised"
    diagnose(record, code, text[:2_000], error_type=type(problem).__name__)


def _wanted(value: Mapping[str, Any]) -> dict[str, Any]:
    given = value.get("approval")
    reason = _text(value, "reason", "message") or "the action asks for approval"
    return {"required": True, "reason": reason, **(given if isinstance(given, Mapping) else {})}


def _taken_over(record: dict[str, Any], status: str, value: dict[str, Any]) -> dict[str, Any]:
    """The action returned a record of its own: its outcome counts, the identity stays that of this call."""
    data = value.get("data", value.get("result"))
    settle(record, status, data, _text(value, "error", "reason") if status != "success" else "")
    for key in ("diagnostics", "artifacts", "artifact_refs"):
        if isinstance(value.get(key), list):
            record[key] = [*record[key], *value[key]]

    for key in ("approval", "meta", "redaction_report"):
        if isinstance(value.get(key), Mapping):
            record[key] = {**record[key], **value[key]}

    if isinstance(value.get("model_digest"), str):
        record["model_digest"] = value["model_digest"]

    if status == "approval_required":
        record["approval"] = _wanted(value)

    return record


def _text(value: Mapping[str, Any], *keys: str) -> str:
    return next((str(value[key]).strip() for key in keys if value.get(key)), "")


def finish(record: dict[str, Any], began_us: int, began_ns: int) -> None:
    """Note when the call ran and how long it took (``duration_ms`` of a monotonic clock)."""
    took = (time.perf_counter_ns() - began_ns) / 1e6
    record["timing"] = {"started_at": began_us / 1e6, "duration_ms": round(took, 3)}


def with_artifact(record: dict[str, Any], store: ArtifactStore, limit: int) -> dict[str, Any]:
    """Keep a result over ``limit`` bytes as an artifact; the record gets its reference and a digest for the model."""
    data = record["data"]
    if data is None or isinstance(data, bool | int | float):
        return record

    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else _json(data)
    if len(content) <= limit:
        return record

    text = data if isinstance(data, str) else content.decode("utf-8", "replace")
    media = "text/plain" if isinstance(data, str) else "application/json"
    try:
        ref = store.put(content)
    except OSError as problem:  # a full or read-only disk: the call has happened all the same
        diagnose(record, "artifact_not_kept", f"the result of {len(content)} bytes could not be kept: {problem}")
        record["model_digest"] = _digest(text, len(content), None)
        return record

    entry = {"ref": ref, "media_type": media, "size": len(content), "preview": text[:PREVIEW]}
    record["artifact_refs"] = [*record["artifact_refs"], ref]
    record["artifacts"] = [*record["artifacts"], entry]
    record["model_digest"] = _digest(text, len(content), ref)
    return record


def _digest(text: str, size: int, ref: str | None) -> str:
    shown = text[:PREVIEW]
    offset = len(shown.encode("utf-8", "surrogatepass"))
    how = f'; read on with read_action_artifact(ref="{ref}", offset={offset})' if ref else ""
    return f"{shown}\n[{size} bytes in all{how}]"


def slim(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record as flows and events carry it: a result that is an artifact stands as its digest alone."""
    if "model_digest" not in record:
        return record

    return {**record, "result": record["model_digest"], "data": record["model_digest"]}


def placed(record: dict[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its place in the loop."""
    place = {"round_index": call["round_index"], "command_index": call["command_index"]}
    return {**record, "meta": {**record["meta"], **place}}


def answered(call: Mapping[str, Any], value: Any, key: str) -> dict[str, Any]:
    """A call that a person answered instead of having it made again, or a handler's bare result."""
    arguments = call["action_input"] if isinstance(call["action_input"], Mapping) else {}
    record = new_record(call["action_id"], arguments, None, key=key, purpose=str(call.get("purpose", "")))
    record["meta"]["answered"] = True
    return settle(record, "success", value)
