"""What keeps a tree of 200,000 spans small: what many of them have in common, and where each stands below another.

A span of its own strings and numbers took 470 bytes; most of it was the same in thousands of others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from flowdeck_devtools.core.scope import steps_of
from flowdeck_devtools.core.spool import LineSpool

if TYPE_CHECKING:
    from flowdeck_devtools.core.attempt import Wait
    from flowdeck_devtools.core.span import SpanNode

__all__ = [
    "COUNTED",
    "GOING_ON",
    "MASK",
    "SHIFTS",
    "Children",
    "Form",
    "Rare",
    "Role",
    "Tail",
    "exact",
    "one_of",
    "steps",
    "tail_of",
    "text_of",
]

Role = Literal["span", "group", "item"]
Tail = str | int
"""What a scope has more than that of the row above: ``/work``, ``[beta]``, and of a list's item its number."""

COUNTED = ("completed", "running", "failed", "waiting", "unknown", "created", "retried", "propagated", "cancelled")
_BITS = 20
SHIFTS = {status: place * _BITS for place, status in enumerate(COUNTED)}
_OTHERS = len(COUNTED) * _BITS
MASK = (1 << _BITS) - 1
"""Statuses are counted in one whole number, 20 bits each: more than a trace has nodes. A counter object per node took
300 bytes; the number of a step whose one child is done is 1, which costs nothing."""

GOING_ON = sum(MASK << SHIFTS[status] for status in ("running", "waiting", "retried", "created", "unknown"))
"""The part of the counts that says whether anything of a subtree goes on."""

LOOKED_THROUGH = 8
"""Children that are looked through one by one; more of them have a directory."""


def one_of(status: str) -> int:
    """A status as a count of one, to be added to ``SpanNode.counts``."""
    return 1 << SHIFTS.get(status, _OTHERS)


class Form:
    """What a span shares with all others of its trace that are alike; one that changes takes another form."""

    __slots__ = ("_all", "_next", "counted", "height", "is_keyed", "kind", "role", "spool")

    def __init__(
        self,
        spool: LineSpool | None,
        role: Role = "span",
        kind: str = "",
        *,
        is_keyed: bool = True,
        counted: str = "",
        height: int = 0,
        among: dict[tuple[Any, ...], Form] | None = None,
    ) -> None:
        self.spool = spool
        self.role: Role = role
        self.is_keyed = is_keyed
        """It is known by an id of its own and not by its place in the scope."""
        self.kind = kind
        self.counted = counted
        self.height = height
        self._all: dict[tuple[Any, ...], Form] = {} if among is None else among
        """All forms of the trace, by what they are."""
        self._next: tuple[dict[str, Form], dict[str, Form], dict[int, Form]] = ({}, {}, {})
        """Those that differ in kind, in status, in height alone."""

    def like(self, role: Role, kind: str = "", *, is_keyed: bool) -> Form:
        """The form of a new span of the same trace."""
        return self._form(role, is_keyed, kind, "", 0)

    def of_kind(self, kind: str) -> Form:
        form = self._next[0].get(kind)
        if form is None:
            form = self._next[0][kind] = self._form(self.role, self.is_keyed, kind, self.counted, self.height)
        return form

    def counted_as(self, status: str) -> Form:
        form = self._next[1].get(status)
        if form is None:
            form = self._next[1][status] = self._form(self.role, self.is_keyed, self.kind, status, self.height)
        return form

    def as_high(self, height: int) -> Form:
        form = self._next[2].get(height)
        if form is None:
            form = self._next[2][height] = self._form(self.role, self.is_keyed, self.kind, self.counted, height)
        return form

    def _form(self, role: Role, is_keyed: bool, kind: str, counted: str, height: int) -> Form:
        place = (role, is_keyed, kind, counted, height)
        form = self._all.get(place)
        if form is None:
            form = self._all[place] = Form(
                self.spool, role, kind, is_keyed=is_keyed, counted=counted, height=height, among=self._all
            )
        return form


class Rare:
    """What few spans have."""

    __slots__ = ("first", "last_end_us", "lines_dropped", "name", "scope", "subject", "title", "waits")

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.title = self.name = ""
        self.scope: str | None = None
        self.subject: str | None = None
        self.first: int | None = None
        """The number of its first own line, -1 while others alone told of it; ``None``: that its chain begins with."""
        self.lines_dropped = self.last_end_us = 0


class Children(list["SpanNode"]):
    """Children in order of appearance. Those with a place in the scope are found by it."""

    __slots__ = ("_places",)

    def __init__(self, *nodes: SpanNode) -> None:
        super().__init__(nodes)
        self._places: dict[Role, dict[Tail, SpanNode]] | None = None

    def add(self, node: SpanNode) -> None:
        self.append(node)
        if self._places is not None and not node.form.is_keyed:
            self._places.setdefault(node.form.role, {})[node.tail] = node

    def drop(self, node: SpanNode) -> None:
        self.remove(node)
        self._places = None

    def at(self, role: Role, tail: Tail) -> SpanNode | None:
        """The child at a place of the scope."""
        if len(self) <= LOOKED_THROUGH:
            return next((one for one in self if one.is_at(role, tail)), None)
        if self._places is None:
            self._places = {}
            for one in self:
                if not one.form.is_keyed:
                    self._places.setdefault(one.form.role, {})[one.tail] = one
        return self._places.get(role, {}).get(tail)


def steps(scope: str, last: Role = "span") -> Iterator[tuple[Role, str]]:
    """The rows a scope runs through from the outside in, each with the scope up to there."""
    for path, group in steps_of(scope):
        at_end = len(path) == len(scope)
        if at_end and last == "group":
            yield last, path
            return
        if group is not None:
            yield "group", group
        if at_end:
            yield last, path
            return
        yield "group" if group is None else "item", path


def tail_of(above: str, path: str) -> Tail:
    """What a scope has more than the one above it."""
    tail = path[len(above) :]
    if tail[:1] != "[":
        return sys.intern(tail)
    number = tail[1:-1]
    is_number = number.isdecimal() and number.isascii() and (number[0] != "0" or number == "0") and len(number) < 10
    return int(number) if is_number and tail[-1] == "]" else tail


def text_of(tail: Tail) -> str:
    """A tail as it stands in the scope."""
    return tail if isinstance(tail, str) else f"[{tail}]"


def exact(number: int) -> int:
    """The same number in as few bytes as it needs: a sum keeps room for a carry, 48 bytes for a time instead of 32."""
    return -(-number)  # noqa: B002  # twice, because negating copies no more than there is
