"""What answers a request: pydantic-ai's models, or anything with the same one method.

Messages are plain data, so that a tape can hold a request and its digest::

    {"role": "system" | "user" | "assistant" | "tool", "content": text or parts,
     "tool_calls": [{"id", "name", "arguments"}], "tool_call_id", "name"}

What comes back is a stream of pieces, plain data, too::

    ("delta", text)  ("reasoning_delta", text)  ("tool_calls", [{"index", "id", "name", "arguments"}])
    ("meta", {"finish_reason", "usage", "model", "provider", "id"})        exactly one, the last
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypedDict, runtime_checkable

__all__ = ["Message", "ModelRequest", "ModelRequester", "Piece"]

Piece = tuple[str, Any]
"""A kind, ``delta``, ``reasoning_delta``, ``tool_calls`` or ``meta``, and what came of it."""
Message = dict[str, Any]


class ModelRequest(TypedDict, total=False):
    """One request, as a port call carries it."""

    model: str
    messages: list[Message]
    tools: list[dict[str, Any]]
    """``{"name", "description", "parameters"}`` each."""
    settings: dict[str, Any]
    """Of the model; never a key or a header."""


@runtime_checkable
class ModelRequester(Protocol):
    """Answers requests. Source: behaviour, Appendix D."""

    def stream(self, request: ModelRequest) -> AsyncIterator[Piece]:
        """Answer one request.

        Raises:
            ModelError: it cannot be answered; other exceptions are taken for a defect and not tried again.
        """
        ...
