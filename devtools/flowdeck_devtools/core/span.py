"""One row of a run's tree: a step with its attempts and waits, or a group the scope implies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from flowdeck_devtools.core.attempt import Attempt, Wait
from flowdeck_devtools.core.model import chunk_name
from flowdeck_devtools.core.scope import Segment, parse_scope
from flowdeck_devtools.core.spanform import (
    COUNTED,
    GOING_ON,
    MASK,
    SHIFTS,
    Children,
    Form,
    Rare,
    Role,
    Tail,
    one_of,
    text_of,
)
from flowdeck_devtools.core.spool import NO_LINES, Lines
from flowdeck_devtools.core.text import clean
from flowdeck_devtools.core.wire import decode

__all__ = ["COUNTED", "GOING_ON", "Role", "SpanNode", "one_of", "short_json"]

MAX_LINES_PER_SPAN = 2_000
LONG = 32
"""Lines of a span from which on the number of its first is remembered; a shorter chain is walked back."""


class SpanNode:
    """A row of the waterfall. Children are in order of appearance.

    A run has up to 200,000 of them, most with one attempt, one child or none and two lines: one stands for itself
    where others have a list, lines are in the trace's spool, and what many have in common is in their form.

    Args:
        form: What it has in common with others.
        tail: Its key where its form is keyed, else what its scope has more than that of its parent.
    """

    __slots__ = (
        "_attempts", "_children", "_last", "_rare", "counts", "ended_us", "form", "line_count", "parent", "started_us",
        "tail",
    )  # fmt: skip

    def __init__(self, form: Form, tail: Tail) -> None:
        self.form = form
        self.tail = tail
        self.parent: SpanNode | None = None
        self.started_us: int | None = None
        self.ended_us: int | None = None
        self.counts = 0
        """How many nodes of the subtree have which status, packed; ask ``below``."""
        self.line_count = 0
        self._children: SpanNode | Children | None = None
        self._attempts: Attempt | list[Attempt] | None = None
        self._last = -1
        self._rare: Rare | None = None

    @property
    def role(self) -> Role:
        return self.form.role

    @property
    def kind(self) -> str:
        """What kind of run it is, empty for what is none."""
        return self.form.kind

    @kind.setter
    def kind(self, kind: str) -> None:
        self.form = self.form.of_kind(kind)

    @property
    def height(self) -> int:
        """Levels below it."""
        return self.form.height

    @height.setter
    def height(self, height: int) -> None:
        self.form = self.form.as_high(height)

    @property
    def counted(self) -> str:
        """The status this node has been counted under in its ancestors."""
        return self.form.counted

    @counted.setter
    def counted(self, status: str) -> None:
        self.form = self.form.counted_as(status)

    # -- where it stands ---------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Names it within its trace: the id of its run, or that of the run above it and its place in there."""
        if self.form.is_keyed:
            return str(self.tail)
        owner, path = self._stands()
        return f"{owner.key}\0{self.form.role[0]}{path}"

    def _stands(self) -> tuple[SpanNode, str]:
        """The run its scope begins in, and its scope there."""
        tails = [text_of(self.tail)]
        above = self.parent
        assert above is not None  # only the root has no parent, and that has a key
        while above.form.role != "span" and not above.form.is_keyed and above.parent is not None:
            tails.append(text_of(above.tail))
            above = above.parent
        return above, "".join(reversed(tails))

    def is_at(self, role: Role, tail: Tail) -> bool:
        """It is what stands below its parent with this role and this tail of its scope."""
        return self.tail == tail and self.form.role == role and not self.form.is_keyed

    @property
    def children(self) -> Sequence[SpanNode]:
        held = self._children
        if type(held) is Children:
            return held
        return (held,) if held is not None else ()  # type: ignore[return-value]  # a node then

    def child_at(self, role: Role, tail: Tail) -> SpanNode | None:
        """The child that stands at a place of the scope."""
        held = self._children
        if type(held) is Children:
            return held.at(role, tail)
        return held if held is not None and held.is_at(role, tail) else None  # type: ignore[union-attr,return-value]

    def add_child(self, node: SpanNode) -> None:
        held = self._children
        if held is None:
            self._children = node
        elif type(held) is Children:
            held.add(node)
        else:
            self._children = Children(held, node)  # type: ignore[arg-type]  # a node then

    def remove_child(self, node: SpanNode) -> None:
        if self._children is node:
            self._children = None
        elif type(self._children) is Children:
            self._children.drop(node)

    @property
    def scope(self) -> str | None:
        """Where in the flow it stands, which is the end of its key; ``None`` for what has no place there."""
        place = self._place()
        return place if place is not None or self._rare is None else self._rare.scope

    @scope.setter
    def scope(self, scope: str) -> None:
        self._more().scope = scope  # an agent or a model call in a step: its key is its run's id

    def _place(self) -> str | None:
        if not self.form.is_keyed:
            return self._stands()[1]
        _, parted, place = str(self.tail).rpartition("\0")
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

    def _more(self) -> Rare:
        if self._rare is None:
            self._rare = Rare()
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
        return self.counts >> SHIFTS[status] & MASK

    # -- lines -------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> Sequence[bytes]:
        """The newest events of this node, read when looked at."""
        spool = self.form.spool
        if spool is None or self._last < 0:
            return NO_LINES
        return Lines(spool, spool.chain(self._last, MAX_LINES_PER_SPAN))

    @property
    def last_number(self) -> int:
        """The number of its newest line in the spool, -1 without any."""
        return self._last

    @property
    def first_line(self) -> bytes | None:
        spool, first = self.form.spool, self.first_number
        return spool.get(first) if spool is not None and first >= 0 else None

    @property
    def first_number(self) -> int:
        """The number of its first own line in the spool, -1 without any."""
        first = self._rare.first if self._rare is not None else None
        if first is not None or self._last < 0 or self.form.spool is None:
            return -1 if first is None else first
        return self.form.spool.first(self._last)

    @property
    def has_begun(self) -> bool:
        """It has a line of its own: it is no placeholder for what only its children told of, and no group."""
        return self._last >= 0 and (self._rare is None or self._rare.first != -1)

    @property
    def lines_dropped(self) -> int:
        """Older events that are not shown with it."""
        dropped = self._rare.lines_dropped if self._rare is not None else 0
        return dropped + max(0, self.line_count - MAX_LINES_PER_SPAN)

    def keep(self, number: int, *, asked: bool = False) -> None:
        """Remember an event of this node by its number in the spool; ``asked`` for one that another node told."""
        rare = self._rare
        if asked and self._last < 0:
            self._more().first = -1
        elif rare is not None and rare.first == -1 and not asked:
            rare.first = number
        elif self.line_count == LONG and (rare is None or rare.first is None):
            self._more().first = self.first_number
        self._last = number
        self.line_count += 1

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
