"""What goes wrong behind HTTP, and how it is told: problem details (RFC 9457), one status code for one kind."""

from __future__ import annotations

from typing import Any

import msgspec

from flowdeck.errors import (
    ContractError,
    ExecutionBusy,
    ExecutionNotFound,
    FlowdeckError,
    InterruptError,
    InterruptExpired,
    InterruptNotFound,
    InterventionError,
    UnencodableValue,
)
from flowdeck.layout import StoreError

__all__ = ["CONTENT_TYPE", "Problem", "problem_of"]

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer other than success.

    Args:
        status: the HTTP status code.
        title: what kind of problem, the same for all of its kind.
        detail: this one, for a person, with what to do.
        more: further members, such as ``execution_id``.
    """

    def __init__(self, status: int, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.more = more

    def body(self) -> dict[str, Any]:
        """The problem as JSON data."""
        return {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail, **self.more}

    def encoded(self) -> bytes:
        """The problem as JSON bytes."""
        return msgspec.json.encode(self.body())


def problem_of(error: BaseException) -> Problem | None:
    """Return how a known error is told; ``None`` for one that is nobody's request's fault."""
    if isinstance(error, Problem):
        return error

    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    for kinds, status, title in _KNOWN:
        if isinstance(error, kinds):
            return Problem(status, title, text)

    return None


_KNOWN: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int, str], ...] = (
    ((InterruptNotFound, ExecutionNotFound), 404, "Not found"),
    (InterruptExpired, 410, "Expired"),
    (ContractError, 422, "The input does not fit"),
    (UnencodableValue, 422, "The value cannot be stored"),
    (ExecutionBusy, 409, "Run elsewhere"),
    (InterventionError, 409, "The intervention was refused"),
    (InterruptError, 409, "The answer was refused"),
    (StoreError, 503, "The store cannot be used"),
    (FlowdeckError, 409, "Not possible now"),
)
