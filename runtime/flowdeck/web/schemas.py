"""What the OpenAPI says of bodies and responses; a flow's contract becomes the schema of its input and its result."""

from __future__ import annotations

import copy
from typing import Any, Final

from flowdeck.triggerflow import TriggerFlow
from flowdeck.web.problems import CONTENT_TYPE
from flowdeck.web.views import RUN_SCHEMA

__all__ = [
    "ANSWERED",
    "EVENTS",
    "INTERRUPTS",
    "OUTCOMES",
    "RUN",
    "accepted",
    "answer_input",
    "cancel_input",
    "intervene_input",
    "problems",
    "start_input",
]

OUTCOMES: Final[dict[str, tuple[int, str]]] = {
    "applied": (200, ""),
    "duplicate": (200, ""),
    "accepted": (202, ""),
    "early": (202, ""),
    "conflict": (409, "Somebody was first"),
    "expired": (410, "Expired"),
    "rejected": (422, "The answer was refused"),
    "unknown": (404, "Not found"),
}
"""Status code, and title of the problem, by what became of a request."""

Responses = dict[int | str, dict[str, Any]]


def _json(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


RUN: Final[Responses] = {200: _json("The run, and its result once it has ended", RUN_SCHEMA)}
EVENTS: Final[Responses] = {
    200: {
        "description": "Server-Sent Events with `id: epoch:offset`. Items are unnamed events; named: `waiting`, "
        "`closed`, `failed`, `reset` (the epoch changed: so many items stand), `gap` (so many are not kept any more) "
        "and `dropped` (connect again).",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The run has ended, and the client has seen it"},
}
_INTERRUPT: Final = {
    "type": "object",
    "title": "Interrupt",
    "required": ["interrupt_id", "execution_id", "type"],
    "properties": {
        "interrupt_id": {"type": "string"},
        "execution_id": {"type": "string"},
        "type": {"type": ["string", "null"]},
        "payload": {},
        "schema": {"description": "JSON Schema of the answer"},
        "assignees": {"type": "array", "items": {"type": "string"}},
        "opened_at": {"type": ["number", "null"]},
        "expires_at": {"type": ["number", "null"]},
    },
}
INTERRUPTS: Final[Responses] = {200: _json("Open interrupts", {"type": "array", "items": _INTERRUPT})}
_OUTCOME: Final = {
    "type": "object",
    "required": ["outcome"],
    "properties": {"outcome": {"enum": list(OUTCOMES)}, "detail": {"type": ["string", "null"]}},
}
ANSWERED: Final[Responses] = {
    200: _json("Applied, or applied before with the same key", _OUTCOME),
    202: _json("Accepted, not applied yet", _OUTCOME),
}
_PROBLEM: Final = {
    "type": "object",
    "title": "Problem",
    "required": ["title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_TITLES: Final = {
    400: "The request could not be read",
    401: "The signature is not valid",
    403: "Not allowed",
    404: "There is none",
    408: "The body came too slowly",
    409: "Not possible now",
    410: "Expired",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "Something does not fit",
    500: "The run failed",
}


def accepted() -> Responses:
    """The run goes on, or waits for somebody."""
    return {202: _json("The run works on, or waits for somebody", RUN_SCHEMA)}


def problems(*codes: int) -> Responses:
    """Problem responses of these status codes."""
    content = {CONTENT_TYPE: {"schema": _PROBLEM}}
    return {code: {"description": _TITLES[code], "content": content} for code in codes}


def _body(schema: dict[str, Any], required: bool, parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
    if parameters:
        made["parameters"] = parameters

    return made


_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def start_input(flow: TriggerFlow) -> dict[str, Any]:
    """The body that starts a flow; ``input`` as its contract has it."""
    contract = flow.get_contract_metadata()
    given = contract.get("initial_input") if isinstance(contract, dict) else None
    schema = given.get("schema", given) if isinstance(given, dict) else None
    properties = {"input": _inlined(schema) or {}, "task_id": {"type": ["string", "null"]}}
    body: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if schema:
        body["required"] = ["input"]

    return _body(body, bool(schema), [_KEY])


def answer_input() -> dict[str, Any]:
    """The body of an answer."""
    return _body({"type": "object", "properties": {"value": {}}, "additionalProperties": False}, True, [_KEY])


def intervene_input() -> dict[str, Any]:
    """The body of an intervention."""
    text = {"type": ["string", "null"]}
    properties = {"payload": {}, "target": text, "note": text, "metadata": {"type": ["object", "null"]}}
    return _body(
        {"type": "object", "properties": properties, "required": ["payload"], "additionalProperties": False}, True
    )


def cancel_input() -> dict[str, Any]:
    """The body of a cancellation."""
    properties = {"reason": {"type": ["string", "null"]}}
    return _body({"type": "object", "properties": properties, "additionalProperties": False}, False)


def _inlined(schema: Any) -> Any:
    """Return a schema without ``$ref``: inside an OpenAPI document ``#/$defs`` would lead nowhere."""
    if not isinstance(schema, dict):
        return schema

    definitions = schema.get("$defs") or schema.get("definitions") or {}

    def inline(part: Any, depth: int) -> Any:
        if isinstance(part, list):
            return [inline(each, depth) for each in part]

        if not isinstance(part, dict):
            return part

        target = part.get("$ref")
        if isinstance(target, str):
            known = definitions.get(target.rpartition("/")[2])
            return inline(copy.deepcopy(known), depth + 1) if known is not None and depth < 16 else {}

        return {key: inline(each, depth) for key, each in part.items() if key not in ("$defs", "definitions")}

    return inline(schema, 0)
