"""One row of a run's tree: a step with its attempts and waits, or a group the scope implies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from flowdeck_devtools.core.model import chunk_name
from flowdeck_devtools.core.status import StatusTracker
from flowdeck_devtools.core.text import clean
from flowdeck_devtools.core.wire import decode

__all__ = ["Attempt", "SpanNode", "Wait"]

MAX_LINES_PER_SPAN = 2_000
Role = Literal["span", "group", "item"]


@dataclass(slots=True)
class Wait:
    """A stretch of waiting for an answer. ``end_us`` is ``None`` while it lasts."""

    interrupt_id: str
    start_us: int
    end_us: int | None = None


@dataclass(slots=True)
class Attempt:
    """One run of a step: its own run id, start, end and outcome."""

    run_id: str
    number: int = 1
    started_us: int | None = None
    ended_us: int | None = None
    tracker: StatusTracker = field(default_factory=StatusTracker)
    will_retry: bool = False
    cancelled: bool = False
    """It ended because something beside it failed."""
    propagated: bool = False
    """Its error was raised elsewhere and passed through."""
    origin: str | None = None
    """The run its error was raised in, where the event says so."""
    error: Mapping[str, Any] | None = None

    @property
    def status(self) -> str:
        status = self.tracker.status
        if status == "failed":
            if self.will_retry:
                return "retried"
            if self.cancelled:
                return "cancelled"
            if self.propagated:
                return "propagated"
        return status


NOTHING: list[Any] = []
"""The list of all that have none: four empty lists of its own would be a third of a node. Never changed."""
NOTHING_BELOW: Counter[str] = Counter()
"""What every leaf shares: most nodes are leaves, and a counter of their own would double their size. Never changed."""


@dataclass(slots=True, eq=False)
class SpanNode:
    """A row of the waterfall. Children are in order of appearance; ``below`` counts statuses in the subtree."""

    key: str
    role: Role = "span"
    kind: str = ""
    title: str = ""
    """A fixed name; empty where the name is in the first line and read when the row is first shown."""
    member: str | None = None
    """What stands in brackets in the scope: the item of a for_each, the member of a batch."""
    scope: str | None = None
    parent: SpanNode | None = None
    children: list[SpanNode] = field(default_factory=lambda: NOTHING)
    attempts: list[Attempt] = field(default_factory=lambda: NOTHING)
    waits: list[Wait] = field(default_factory=lambda: NOTHING)
    lines: list[bytes] = field(default_factory=lambda: NOTHING)
    lines_dropped: int = 0
    first_line: bytes | None = None
    started_us: int | None = None
    ended_us: int | None = None
    last_end_us: int = 0
    """For a group: the latest end among its members, from which its own follows once none is open."""
    height: int = 0
    """Levels below it."""
    below: Counter[str] = field(default_factory=lambda: NOTHING_BELOW)
    """How many nodes of the subtree have which status; its own counter from the first child on."""
    counted: str = ""
    """The status this node has been counted under in its ancestors."""
    _name: str = ""
    _subject: str | None = None

    @property
    def depth(self) -> int:
        depth, node = 0, self.parent
        while node is not None:
            depth, node = depth + 1, node.parent
        return depth

    def ancestors(self) -> Iterator[SpanNode]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    @property
    def own_status(self) -> str:
        """The status of the step itself: that of its last attempt, or waiting while an answer is missing."""
        if any(wait.end_us is None for wait in self.waits):
            return "waiting"
        return self.attempts[-1].status if self.attempts else "unknown"

    @property
    def status(self) -> str:
        """What the row shows. A group is what its members are; a failed run whose child failed passed it on."""
        own = self.own_status
        if self.role != "span" or own == "unknown":
            return self._from_below()
        if own == "failed" and self.below["failed"]:
            return "propagated"
        return own

    def _from_below(self) -> str:
        for status in ("running", "waiting", "failed", "propagated", "cancelled"):
            if self.below[status]:
                return status
        return "completed" if self.below["completed"] else "unknown"

    @property
    def is_open(self) -> bool:
        return self.status in ("running", "waiting", "created", "unknown", "retried") and self.ended_us is None

    @property
    def attempt_count(self) -> int:
        return max((attempt.number for attempt in self.attempts), default=0)

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The error of the last attempt that has one."""
        return next((attempt.error for attempt in reversed(self.attempts) if attempt.error), None)

    @property
    def progress(self) -> tuple[int, int] | None:
        """Members ended and members seen, for a group."""
        if self.role != "group" or not self.children:
            return None
        return sum(1 for child in self.children if child.ended_us is not None), len(self.children)

    def duration_us(self, now_us: int) -> int | None:
        if self.started_us is None:
            return None
        end = self.ended_us if self.ended_us is not None else now_us
        return max(0, end - self.started_us)

    def keep(self, line: bytes) -> None:
        """Remember an event of this node; only the newest are kept once there are very many."""
        if self.lines is NOTHING:
            self.lines = [line]
            return
        if len(self.lines) >= MAX_LINES_PER_SPAN:
            cut = MAX_LINES_PER_SPAN // 4
            del self.lines[:cut]
            self.lines_dropped += cut
        self.lines.append(line)

    @property
    def name(self) -> str:
        """What the row is called. Read from the first line once, when asked for."""
        if self.title:
            return self.title
        if not self._name and self.first_line is not None:
            self._name = clean(chunk_name(decode(self.first_line)), limit=200)
        return self._name or self.kind or "span"

    @property
    def subject(self) -> str:
        """What an item is about, in a word, taken from the input of its first step; empty when it cannot be told."""
        if self._subject is None:
            self._subject = self._find_subject()
        return self._subject

    def _find_subject(self) -> str:
        node: SpanNode | None = self
        while node is not None and node.first_line is None:
            node = node.children[0] if node.children else None
        if node is None or node.first_line is None:
            return ""

        value = decode(node.first_line).payload_map().get("input")
        if isinstance(value, dict):
            value = next((value[key] for key in _NAMING if isinstance(value.get(key), str | int)), None)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return ""
        return clean(str(value), limit=60)


_NAMING = ("name", "title", "label", "key", "id", "path", "file", "url", "topic", "question")
"""Keys that commonly say which thing a record is."""


def short_json(value: Any, limit: int = 200) -> str:
    """A value as compact JSON, at most ``limit`` characters."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
