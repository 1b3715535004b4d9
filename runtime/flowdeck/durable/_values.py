"""Values as JSON text, the form in which ``state.db`` keeps payloads, records and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["decode", "encode", "expiry_us", "full", "slim"]

_NULLS = (
    "resume_event",
    "resumed_at",
    "resume_value",
    "schema",
    "expires_at",
    "on_expire",
    "assignees",
    "payload",
    "continuation_event",
    "source_operator_id",
    "source_operator_name",
)
"""What an interrupt record has in any case, and often empty."""


def encode(value: Any) -> tuple[str, bool]:
    """Return ``value`` as JSON text, and whether all of it has a JSON form.

    A part without one becomes its ``repr``. Never raises: an observer may not refuse what the run accepted.
    """
    clean = True

    def fallback(part: Any) -> str:
        nonlocal clean
        clean = False
        return repr(part)

    try:
        return msgspec.json.encode(value, enc_hook=fallback).decode(), clean
    except Exception as error:
        # Not a matter of one part: a key that is no text, a cycle, a broken surrogate.
        return msgspec.json.encode(f"<{type(value).__name__} without a JSON form: {error}>").decode(), False


def decode(text: str) -> Any:
    """Return the value of JSON text.

    Raises:
        msgspec.DecodeError: it is not JSON.
    """
    return msgspec.json.decode(text)


def slim(execution_id: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an execution's interrupt record without what the row says anyway; :func:`full` undoes it."""
    if record.get("source_execution_id") != execution_id or "source_signal" not in record:
        return record  # not one of an execution's own making: kept as it is

    left_out = {"source_execution_id", "id"}
    return {k: v for k, v in record.items() if k not in left_out and (v is not None or k not in _NULLS)}


def full(execution_id: str, interrupt_id: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the whole record of an interrupt."""
    if "source_signal" not in record or "source_execution_id" in record:
        return record

    nulls = dict.fromkeys(_NULLS)
    return {"id": interrupt_id, **nulls, **record, "source_execution_id": execution_id}


def expiry_us(record: Mapping[str, Any]) -> int | None:
    """Return when an interrupt record expires: its ``expires_us``, or its ``expires_at`` given in seconds."""
    micros = record.get("expires_us")
    if micros is not None:
        return int(micros)

    seconds = record.get("expires_at")
    return None if seconds is None else int(float(seconds) * 1_000_000)
