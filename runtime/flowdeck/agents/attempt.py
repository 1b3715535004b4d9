"""One attempt of a request: one call of a model, and everything that came of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowdeck.models.output import ReadAnswer

if TYPE_CHECKING:
    from flowdeck.events.lineage import RunContext
    from flowdeck.models.requester import Piece

__all__ = ["Attempt"]

_LONE: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True, eq=False)
class Attempt:
    """What one call of a model has said so far; :attr:`pieces` only grows, so that any number of readers share it."""

    index: int
    """From 1."""
    response_id: str
    run: RunContext
    pieces: list[Piece] = field(default_factory=list)
    ended: bool = False
    error: BaseException | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    answer: ReadAnswer = field(default_factory=ReadAnswer)
    began_ns: int = field(default_factory=time.perf_counter_ns)
    first_ns: int = 0
    """When the first delta came."""
    _text: str | None = None

    def take(self, piece: Piece) -> None:
        """Add what has come."""
        kind, said = piece
        if not self.first_ns and kind != "meta":
            self.first_ns = time.perf_counter_ns()

        if type(said) is str and not said.isascii():
            said = _LONE.sub("\N{REPLACEMENT CHARACTER}", said)  # half a surrogate pair cannot be written anywhere

        self.pieces.append((kind, said))

    @property
    def duration_us(self) -> int:
        """Microseconds since it began."""
        return (time.perf_counter_ns() - self.began_ns) // 1000

    @property
    def first_token_us(self) -> int | None:
        """Microseconds until the first delta; ``None`` before it."""
        return (self.first_ns - self.began_ns) // 1000 if self.first_ns else None

    @property
    def text(self) -> str:
        """The answer's text."""
        if self._text is not None:
            return self._text

        text = "".join([data for kind, data in self.pieces if kind == "delta"])
        if self.ended:
            self._text = text

        return text

    @property
    def reasoning(self) -> str:
        """What the model thought aloud before it answered."""
        return "".join([data for kind, data in self.pieces if kind == "reasoning_delta"])

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The native tool calls, ``{"id", "name", "arguments"}`` each, put together from their deltas."""
        calls: dict[int, dict[str, Any]] = {}
        for kind, data in self.pieces:
            if kind != "tool_calls":
                continue

            for delta in data:
                call = calls.setdefault(delta["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] = delta["id"] or call["id"]
                call["name"] += delta["name"]
                more = delta["arguments"]
                call["arguments"] = call["arguments"] + more if isinstance(more, str) else more

        return [calls[index] for index in sorted(calls)]
