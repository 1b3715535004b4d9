"""Request bodies: read within limits of size and time, and checked. What they look like stands in the OpenAPI too."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import msgspec
from fastapi import Request

from flowdeck.web.problems import Problem

__all__ = ["BODY_SECONDS", "AnswerBody", "CancelBody", "InterveneBody", "StartBody", "read_bytes", "read_json"]

BODY_SECONDS: Final = 10.0
"""How long a client may take to send its body."""

B = TypeVar("B")


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a run is started with."""

    input: Any = None
    task_id: str | None = None
    """The application's own task; it is in every event of the run."""


class AnswerBody(msgspec.Struct, forbid_unknown_fields=True):
    """An answer to an interrupt."""

    value: Any = None


class InterveneBody(msgspec.Struct, forbid_unknown_fields=True):
    """An intervention."""

    payload: Any
    target: str | None = None
    note: str | None = None
    metadata: dict[str, Any] | None = None


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why a run is ended."""

    reason: str | None = None


async def read_bytes(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        Problem: 413 beyond ``limit`` bytes, 408 when it does not come.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)

    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)

                parts.append(part)
    except TimeoutError:
        raise Problem(408, "Too slow", f"the body did not come within {BODY_SECONDS:g} s") from None

    return b"".join(parts)


async def read_json(request: Request, kind: type[B], limit: int) -> B:
    """Return the body as ``kind``; an empty one is an empty object.

    Raises:
        Problem: as :func:`read_bytes`; 415 for another content type; 422 when it does not fit.
    """
    body = await read_bytes(request, limit)
    given = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if body and given != "application/json" and not given.endswith("+json"):
        raise Problem(415, "Not JSON", f"Content-Type {given[:80]!r}: expected application/json")

    return parse(body or b"{}", kind)


def parse(body: bytes | str, kind: type[B]) -> B:
    """Read JSON as ``kind``.

    Raises:
        Problem: 422.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, "The body does not fit", str(error) or type(error).__name__) from None


def _too_large(limit: int) -> Problem:
    return Problem(
        413, "Too large", f"the body may have {limit} bytes; put big content into a workspace and send its name"
    )
