"""What a local model answers: its text, how it is cut into pieces, and what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ModelReply", "ToolCall", "chunks_of", "whole_of"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A native tool call; ``arguments`` is what the model writes, so a text may be broken JSON."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = ""

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One scripted answer.

    Attributes:
        text: what the model says; anything that is no text is sent as JSON.
        reasoning: what it thinks before, in ``reasoning_content`` deltas.
        tool_calls: native tool calls after the text.
        piece: characters of one delta.
        delay: seconds before each delta.
        finish_reason: ``None`` leaves it out, as a server that dies does.
        usage: ``None`` leaves it out; by default words are counted.
        status: another status than 200 makes it an error; ``error`` is its message, ``retry_after`` its header.
        cut_after: the connection is lost after this many bytes of the event stream: in the middle of a token.
        stall_after: nothing more comes after this many deltas; the connection stays open until the client leaves.
        end_early: the stream ends in order after this many deltas, without a finish reason and without ``[DONE]``.
        raw: lines to send instead of the event stream, as they are.
    """

    text: Any = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] | list[ToolCall] = ()
    piece: int = 16
    delay: float = 0.0
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None = "stop"
    usage: Mapping[str, int] | None = field(default_factory=lambda: {"auto": 1})
    status: int = 200
    error: str = ""
    retry_after: float | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    end_early: int | None = None
    raw: str | None = None

    @staticmethod
    def of(given: Any) -> ModelReply:
        """Return ``given`` as a reply: a text is said, anything else is said as JSON."""
        return given if isinstance(given, ModelReply) else ModelReply(given)

    @property
    def said(self) -> str:
        """The text as it is sent."""
        return self.text if isinstance(self.text, str) else json.dumps(self.text, ensure_ascii=False)

    @property
    def reason(self) -> str | None:
        """The finish reason as it is sent."""
        return "tool_calls" if self.tool_calls and self.finish_reason == "stop" else self.finish_reason

    def counted(self, request: Mapping[str, Any]) -> dict[str, int] | None:
        """Return the usage as it is sent."""
        if self.usage is None or "auto" not in self.usage:
            return None if self.usage is None else dict(self.usage)

        read = sum(len(str(message.get("content") or "").split()) for message in request.get("messages", ()))
        written = (
            len(self.said.split()) + len(self.reasoning.split()) + sum(len(c.text.split()) for c in self.tool_calls)
        )
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def chunks_of(reply: ModelReply, request: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Return the chunks of a streamed answer, in the shape of the chat completions API."""
    base = {"id": f"chatcmpl-local-{number}", "object": "chat.completion.chunk", "created": 1_700_000_000}
    base["model"] = str(request.get("model", "local"))

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    yield chunk({"role": "assistant", "content": ""})
    for at in range(0, len(reply.reasoning), reply.piece):
        yield chunk({"reasoning_content": reply.reasoning[at : at + reply.piece]})

    said = reply.said
    for at in range(0, len(said), reply.piece):
        yield chunk({"content": said[at : at + reply.piece]})

    for index, call in enumerate(reply.tool_calls):
        head = {"index": index, "id": _id_of(call, number, index), "type": "function"}
        yield chunk({"tool_calls": [{**head, "function": {"name": call.name, "arguments": ""}}]})
        for at in range(0, len(call.text), reply.piece):
            part = {"arguments": call.text[at : at + reply.piece]}
            yield chunk({"tool_calls": [{"index": index, "function": part}]})

    if reply.reason is not None:
        yield chunk({}, reply.reason)

    usage = reply.counted(request)
    if usage is not None:
        yield {**base, "choices": [], "usage": usage}


def whole_of(reply: ModelReply, request: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.said}
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": _id_of(call, number, index),
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for index, call in enumerate(reply.tool_calls)
        ]

    return {
        "id": f"chatcmpl-local-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": str(request.get("model", "local")),
        "choices": [{"index": 0, "message": message, "finish_reason": reply.reason or "stop"}],
        "usage": reply.counted(request),
    }


def _id_of(call: ToolCall, number: int, index: int) -> str:
    return call.id or f"call_{number}_{index}"
