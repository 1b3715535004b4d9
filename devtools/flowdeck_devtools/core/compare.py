"""Two runs side by side: which places they went to, what came out there, how long it took, and where they ended.

Places are scopes, which are the same in every run of a flow whatever the order of events; so two runs line up although
every id in them differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from flowdeck_devtools.core.model import error_line
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import decode

__all__ = ["Change", "Comparison", "PlaceDiff", "changes", "compare", "final_state", "initial_value"]

Difference = Literal["same", "only in a", "only in b", "status", "error", "output", "attempts"]
MOST_CHANGES = 500
NOTHING = object()
"""What is not there at all, as opposed to ``None``."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value that differs: its path (``a.b[2]``), and what it is on either side (``NOTHING`` where it is missing)."""

    path: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class PlaceDiff:
    """One place of the flow in both runs."""

    place: str
    depth: int
    difference: Difference
    a: SpanNode | None
    b: SpanNode | None
    output_a: Any = None
    output_b: Any = None

    def times(self, now_us: int) -> tuple[int | None, int | None]:
        """Microseconds on either side."""
        return (
            self.a.duration_us(now_us) if self.a is not None else None,
            self.b.duration_us(now_us) if self.b is not None else None,
        )

    def as_data(self, now_us: int) -> dict[str, Any]:
        a_us, b_us = self.times(now_us)
        slower = None if a_us is None or b_us is None else (b_us - a_us) / 1000
        return {
            "place": self.place,
            "difference": self.difference,
            "a": _side(self.a, self.output_a, a_us),
            "b": _side(self.b, self.output_b, b_us),
            "slower_ms": slower,
        }


def _side(node: SpanNode | None, output: Any, us: int | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "status": node.status,
        "attempts": node.attempt_count,
        "duration_ms": us / 1000 if us is not None else None,
        "error": error_line(node.error),
        "output": None if output is NOTHING else output,
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result: places in the order of the first run, and how the final states differ."""

    places: list[PlaceDiff] = field(default_factory=list)
    state: list[Change] = field(default_factory=list)
    input: list[Change] = field(default_factory=list)

    @property
    def differing(self) -> list[PlaceDiff]:
        return [one for one in self.places if one.difference != "same"]

    @property
    def first(self) -> PlaceDiff | None:
        """Where the runs part: of what differs, what came first by time in the run that has it."""

        def began(one: PlaceDiff) -> int:
            node = one.a or one.b
            return (node.started_us or 0) - self._start(one) if node is not None else 0

        return min(self.differing, key=began, default=None)

    @staticmethod
    def _start(one: PlaceDiff) -> int:
        node = one.a or one.b
        while node is not None and node.parent is not None:
            node = node.parent
        return node.started_us or 0 if node is not None else 0


def compare(a: Trace, b: Trace) -> Comparison:
    """Two runs, place by place, in the order of the first."""
    left, right = dict(_places(a)), dict(_places(b))
    order = list(left)
    anchor = ""
    positions: dict[str, list[str]] = {}
    for place in right:
        if place in left:
            anchor = place
        else:
            positions.setdefault(anchor, []).append(place)
    merged = [*positions.get("", ())]
    for place in order:
        merged += [place, *positions.get(place, ())]
    places = [_place_diff(place, left.get(place), right.get(place)) for place in merged]
    return Comparison(places, changes(final_state(a), final_state(b)), changes(initial_value(a), initial_value(b)))


def _places(trace: Trace) -> Iterator[tuple[str, SpanNode]]:
    """Every step by where it stands; what has no scope (a request, an action) by its name and number there."""
    stack: list[tuple[SpanNode, str]] = [(trace.root, "")]
    while stack:
        node, place = stack.pop()
        if node is not trace.root and node.role == "span":
            yield place, node
        numbers: dict[str, int] = {}
        below = []
        for child in node.children:
            base = _base(node, place)
            name = child.scope if child.scope is not None else child.name
            if child.scope is None:
                numbers[name] = numbers.get(name, 0) + 1
                name = f"{name}#{numbers[name] - 1}" if numbers[name] > 1 else name
            below.append((child, f"{base} › {name}" if base else name))
        stack.extend(reversed(below))


def _base(node: SpanNode, place: str) -> str:
    """What the places below a node begin with: groups and items are in their members' scopes already."""
    while node.role != "span" and node.parent is not None:
        node, place = node.parent, place.rpartition(" › ")[0]
    return place


def _place_diff(place: str, a: SpanNode | None, b: SpanNode | None) -> PlaceDiff:
    output_a, output_b = _output(a), _output(b)
    difference: Difference = "same"
    if a is None or b is None:
        difference = "only in b" if a is None else "only in a"
    elif a.status != b.status:
        difference = "status"
    elif error_line(a.error) != error_line(b.error):
        difference = "error"
    elif output_a != output_b:
        difference = "output"
    elif a.attempt_count != b.attempt_count:
        difference = "attempts"
    return PlaceDiff(place, place.count(" › "), difference, a, b, output_a, output_b)


def _output(node: SpanNode | None) -> Any:
    if node is None:
        return NOTHING
    for line in reversed(node.lines):
        if b'"output"' in line:
            return decode(line).payload_map().get("output", NOTHING)
    return NOTHING


def initial_value(trace: Trace) -> Any:
    """What the run was started with; ``NOTHING`` when that is not known."""
    for line in trace.root.lines:
        if b'"initial_value"' in line:
            return decode(line).payload_map().get("initial_value", NOTHING)
    return NOTHING


def final_state(trace: Trace) -> Any:
    """What the run ended with: its result, which is the state unless one was set; ``NOTHING`` while it is open."""
    for line in reversed(trace.root.lines):
        if b'"result"' in line:
            found = decode(line).payload_map().get("result", NOTHING)
            if found is not NOTHING:
                return found
    return NOTHING


def changes(a: Any, b: Any, path: str = "", *, limit: int = MOST_CHANGES) -> list[Change]:
    """Where two JSON values differ, deepest differing values only, at most ``limit``."""
    found: list[Change] = []
    stack: list[tuple[str, Any, Any]] = [(path, a, b)]
    while stack and len(found) < limit:
        at, left, right = stack.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            keys = [*left, *(key for key in right if key not in left)]
            inner = [
                (f"{at}.{key}" if at else str(key), left.get(key, NOTHING), right.get(key, NOTHING)) for key in keys
            ]
            stack.extend(reversed(inner))
        elif isinstance(left, list) and isinstance(right, list):
            most = max(len(left), len(right))
            items = [
                (f"{at}[{i}]", left[i] if i < len(left) else NOTHING, right[i] if i < len(right) else NOTHING)
                for i in range(most)
            ]
            stack.extend(reversed(items))
        elif left is not right and (type(left) is not type(right) or left != right):
            found.append(Change(at or "value", left, right))
    return found
