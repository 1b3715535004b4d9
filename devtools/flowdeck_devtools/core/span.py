"""One row of a run's tree: a step with its attempts and waits, or a group the scope implies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from flowdeck_devtools.core.attempt import Attempt, Wait
from flowdeck_devtools.core.model import chunk_name
from flowdeck_devtools.core.scope import Segment, parse_scope
from flowdeck_devtools.core.spool import NO_LINES, Lines, LineSpool
from flowdeck_devtools.core.text import clean
from flowdeck_devtools.core.wire import decode

__all__ = ["COUNTED", "GOING_ON", "Role", "SpanNode", "one_of", "short_json"]

MAX_LINES_PER_SPAN = 2_000
Role = Literal["span", "group", "item"]

COUNTED = ("completed", "running", "failed", "waiting", "unknown", "created", "retried", "propagated", "cancelled")
_BITS = 20
_SHIFTS = {status: place * _BITS for place, status in enumerate(COUNTED)}
_OTHERS = len(COUNTED) * _BITS
_MASK = (1 << _BITS) - 1
"""Statuses are counted in one whole number, 20 bits each: more than a trace has nodes. A counter object per node took
300 bytes; the number of a step whose one child is done is 1, which costs nothing."""

GOING_ON = sum(_MASK << _SHIFTS[status] for status in ("running", "waiting", "retried", "created", "unknown"))
"""The part of the counts that says whether anything of a subtree goes on."""


def one_of(status: str) -> int:
    """A status as a count of one, to be added to ``SpanNode.counts``."""
    return 1 << _SHIFTS.get(status, _OTHERS)


class _Rare:
    """What few nodes have."""

    __slots__ = ("last_end_us", "lines_dropped", "name", "scope", "subject", "title", "waits")

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.title = self.name = ""
        self.scope: str | None = None
        self.subject: str | None = None
        self.lines_dropped = self.last_end_us = 0


class SpanNode:
    """A row of the waterfall. Children are in order of appearance.

    A run has up to 200,000 of them, most with one attempt, one child or none and two lines: one stands for itself
    where others have a list, and lines are in the trace's spool.
    """

    __slots__ = (
        "_attempts", "_children", "_first", "_last", "_rare", "_spool", "counted", "counts", "ended_us", "height",
        "key", "kind", "line_count", "parent", "role", "started_us",
    )  # fmt: skip

    def __init__(self, key: str, spool: LineSpool | None = None, role: Role = "span", kind: str = "") -> None:
        self.key = key
        self.role: Role = role
        self.kind = kind
        self.parent: SpanNode | None = None
        self.started_us: int | None = None
        self.ended_us: int | None = None
        self.height = 0
        """Levels below it."""
        self.counts = 0
        """How many nodes of the subtree have which status, packed; ask ``below``."""
        self.counted = ""
        """The status this node has been counted under in its ancestors."""
        self.line_count = 0
        self._children: SpanNode | list[SpanNode] | None = None
        self._attempts: Attempt | list[Attempt] | None = None
        self._spool = spool
        self._first = self._last = -1
        self._rare: _Rare | None = None

    # -- where it stands ---------------------------------------------------------------------------------------

    @property
    def children(self) -> Sequence[SpanNode]:
        held = self._children
        if type(held) is list:
            return held
        return (held,) if held is not None else ()  # type: ignore[return-value]  # a node then

    def add_child(self, node: SpanNode) -> None:
        held = self._children
        if held is None:
            self._children = node
        elif type(held) is list:
            held.append(node)
        else:
            self._children = [held, node]  # type: ignore[list-item]  # a node then

    def remove_child(self, node: SpanNode) -> None:
        if self._children is node:
            self._children = None
        elif type(self._children) is list:
            self._children.remove(node)

    @property
    def scope(self) -> str | None:
        """Where in the flow it stands, which is the end of its key; ``None`` for what has no place there."""
        place = self._place()
        return place if place is not None or self._rare is None else self._rare.scope

    @scope.setter
    def scope(self, scope: str) -> None:
        self._more().scope = scope  # an agent or a model call in a step: its key is its run's id

    def _place(self) -> str | None:
        _, parted, place = self.key.rpartition("\0")
        return place[1:] if parted else None

    def _segment(self) -> Segment | None:
        place = self._place()
        return parse_scope(place)[-1] if place else None

    @property
    def member(self) -> str | None:
        """What stands in brackets in the scope: the item of a for_each, the member of a batch."""
        segment = self._segment() if self.role != "group" else None
        return segment.member if segment is not None else None

    @property
    def title(self) -> str:
        """A fixed name; empty where the name is in the first line and read when the row is first shown."""
        if self._rare is not None and self._rare.title:
            return self._rare.title
        segment = self._segment() if self.role != "span" else None
        if segment is None:
            return ""
        return segment.name if self.role == "group" else f"[{segment.member}]"

    @title.setter
    def title(self, words: str) -> None:
        self._more().title = words

    def _more(self) -> _Rare:
        if self._rare is None:
            self._rare = _Rare()
        return self._rare

    # -- attempts and waits ------------------------------------------------------------------------------------

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Its runs, in the order of their numbers."""
        held = self._attempts
        if type(held) is list:
            return held
        return (held,) if held is not None else ()  # type: ignore[return-value]  # an attempt then

    def add_attempt(self, attempt: Attempt) -> None:
        held = self._attempts
        if held is None:
            self._attempts = attempt
        else:
            self._attempts = sorted((*self.attempts, attempt), key=lambda one: one.number)

    @property
    def waits(self) -> Sequence[Wait]:
        return self._rare.waits if self._rare is not None else ()

    def add_wait(self, wait: Wait) -> None:
        self._more().waits.append(wait)

    @property
    def last_end_us(self) -> int:
        """For a group: the latest end among its members, from which its own follows once none is open."""
        return self._rare.last_end_us if self._rare is not None else 0

    @last_end_us.setter
    def last_end_us(self, time_us: int) -> None:
        self._more().last_end_us = time_us

    def below(self, status: str) -> int:
        """How many nodes of the subtree have a status."""
        return self.counts >> _SHIFTS[status] & _MASK

    # -- lines -------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> Sequence[bytes]:
        """The newest events of this node, read when looked at."""
        if self._spool is None or self._last < 0:
            return NO_LINES
        return Lines(self._spool, self._spool.chain(self._last, MAX_LINES_PER_SPAN))

    @property
    def last_number(self) -> int:
        """The number of its newest line in the spool, -1 without any."""
        return self._last

    @property
    def first_line(self) -> bytes | None:
        return self._spool.get(self._first) if self._spool is not None and self._first >= 0 else None

    @property
    def has_begun(self) -> bool:
        """It has a line of its own: it is no placeholder for what only its children told of, and no group."""
        return self._first >= 0

    @property
    def lines_dropped(self) -> int:
        """Older events that are not shown with it."""
        dropped = self._rare.lines_dropped if self._rare is not None else 0
        return dropped + max(0, self.line_count - MAX_LINES_PER_SPAN)

    def keep(self, number: int, *, asked: bool = False) -> None:
        """Remember an event of this node by its number in the spool; ``asked`` for one that another node told."""
        self._last = number
        self.line_count += 1
        if self._first < 0 and not asked:
            self._first = self._last

    def drop_line(self) -> None:
        """Count an event that is not kept."""
        self._more().lines_dropped += 1

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
        if self._rare is not None and any(wait.end_us is None for wait in self._rare.waits):
            return "waiting"
        held = self._attempts
        if held is None:
            return "unknown"
        return (held[-1] if type(held) is list else held).status  # type: ignore[union-attr]  # an attempt then

    @property
    def status(self) -> str:
        """What the row shows. A group is what its members are; a failed run whose child failed passed it on."""
        own = self.own_status
        if self.role != "span" or own == "unknown":
            return self._from_below()
        if own == "failed" and self.below("failed"):
            return "propagated"
        return own

    def _from_below(self) -> str:
        for status in ("running", "waiting", "failed", "propagated", "cancelled"):
            if self.below(status):
                return status
        return "completed" if self.below("completed") else "unknown"

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

    @property
    def name(self) -> str:
        """What the row is called. Read from the first line once, when asked for."""
        title = self.title
        if title:
            return title
        known = self._rare.name if self._rare is not None else ""
        line = None if known else self.first_line
        if line is not None:
            known = self._more().name = clean(chunk_name(decode(line)), limit=200)
        return known or self.kind or "span"

    @property
    def subject(self) -> str:
        """What an item is about, in a word, taken from the input of its first step; empty when it cannot be told."""
        more = self._more()
        if more.subject is None:
            more.subject = self._find_subject()
        return more.subject

    def _find_subject(self) -> str:
        node: SpanNode | None = self
        while node is not None and not node.has_begun:
            node = node.children[0] if node.children else None
        line = node.first_line if node is not None else None
        if line is None:
            return ""

        value = decode(line).payload_map().get("input")
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
