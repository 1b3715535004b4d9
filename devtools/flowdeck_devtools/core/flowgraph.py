"""A flow's graph laid over a run: which operators ran, how often, how they ended, and which were never reached."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowdeck_devtools.core.drawing import Box
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.status import glyph
from flowdeck_devtools.core.text import clean, duration
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import decode

if TYPE_CHECKING:
    from flowdeck.definition.diagram import Graph, Node

__all__ = [
    "GraphRow",
    "called",
    "definition_of",
    "graph_boxes",
    "graph_rows",
    "operator_steps",
    "operators",
    "worse",
]

_WORST_FIRST = ("failed", "propagated", "running", "waiting", "lost", "cancelled", "completed")
_DEFAULT_NAMES = ("for_each", "batch", "match", "if")
_CHUNK_ID = re.compile(rb'"chunk_id":"([^"\\\\]+)"')


def worse(one: str, other: str) -> str:
    """The status of two that asks more for a person's eye."""
    return min(one, other, key=lambda status: _WORST_FIRST.index(status) if status in _WORST_FIRST else 0)


@dataclass(slots=True)
class Steps:
    """What a run has done at one operator."""

    status: str
    times: int
    us: int
    node: SpanNode
    """The place whose status counts: the worst."""


@dataclass(frozen=True, slots=True)
class GraphRow:
    """One operator of the flow, in the order signals reach them."""

    depth: int
    name: str
    kind: str
    after: str
    """What leads to it."""
    runs: bool
    """It runs code, so that it can be reached or not; blocks and gates are only passed."""
    steps: Steps | None
    inside: bool = False
    """It belongs to a sub flow, whose own run has its statuses."""


def operator_steps(trace: Trace, now_us: int) -> dict[str, Steps]:
    """What happened at each operator, by its id."""
    found: dict[str, Steps] = {}
    for node in list(trace.nodes.values()):  # a copy: it may grow while another thread reads it
        line = node.first_line if node.kind == "chunk_execution" else None
        if line is None:
            continue
        match = _CHUNK_ID.search(line)
        if match is None:
            continue
        operator, lasted = match[1].decode("utf-8", "replace"), node.duration_us(now_us) or 0
        known = found.get(operator)
        if known is None:
            found[operator] = Steps(node.status, 1, lasted, node)
            continue
        status = worse(known.status, node.status)
        if status != known.status:
            known.status, known.node = status, node
        known.times += 1
        known.us += lasted
    return found


def definition_of(trace: Trace) -> tuple[Mapping[str, Any] | None, str | None]:
    """The definition declared within the run itself, and the fingerprint by which another run may have declared it."""
    fingerprint: str | None = None
    for line in trace.root.lines[:50]:
        if b'"definition"' not in line:
            continue
        payload = decode(line).payload_map()
        definition = payload.get("definition")
        if isinstance(definition, dict) and isinstance(definition.get("operators"), list):
            return definition, None
        if isinstance(definition, str):
            fingerprint = definition
    return None, fingerprint


def graph_rows(definition: Mapping[str, Any], steps: Mapping[str, Steps]) -> list[GraphRow]:
    """The operators of a flow with what a run did at each.

    Raises:
        DefinitionError: the definition is none.
    """
    from flowdeck.definition.diagram import graph_of

    rows: list[GraphRow] = []
    _add(graph_of(definition), steps, 0, False, rows)
    return rows


def graph_boxes(
    definition: Mapping[str, Any], steps: Mapping[str, Steps]
) -> tuple[list[Box], list[tuple[str, str]], dict[str, SpanNode]]:
    """The operators of a flow as boxes, the edges between them, and the step of each that ran.

    Raises:
        DefinitionError: the definition is none.
    """
    from flowdeck.definition.diagram import RUNNING_KINDS, graph_of

    drawn = graph_of(definition)
    boxes: list[Box] = []
    nodes: dict[str, SpanNode] = {}
    for node in _in_order(drawn):
        if node.kind == "signal":
            continue
        done, name = steps.get(node.id), clean(called(node), limit=60)
        if done is not None:
            times = f" {done.times}×" if done.times > 1 else ""
            text = f"{glyph(done.status)} {name}{times}  {duration(done.us)}"
            boxes.append(Box(node.id, text, _BOX_ROLES.get(done.status, "text")))
            nodes[node.id] = done.node
        elif node.kind in RUNNING_KINDS:
            boxes.append(Box(node.id, f"· {name}", "faint", hit=False))
        else:
            boxes.append(Box(node.id, name, "dim"))
    return boxes, [(edge.source, edge.target) for edge in drawn.edges], nodes


_BOX_ROLES = {"failed": "failed", "propagated": "failed", "waiting": "waiting", "running": "running", "completed": "ok"}


def _add(drawn: Graph, steps: Mapping[str, Steps], depth: int, inside: bool, rows: list[GraphRow]) -> None:
    from flowdeck.definition.diagram import RUNNING_KINDS

    for node, level, after in operators(drawn):
        at = depth + level
        runs = node.kind in RUNNING_KINDS
        rows.append(GraphRow(at, called(node), node.kind, after, runs, steps.get(node.id), inside))
        if node.child is not None:
            _add(node.child, {}, at + 1, True, rows)


def operators(drawn: Graph) -> Iterator[tuple[Node, int, str]]:
    """Yield the operators in order, each with its nesting and the names of what leads to it."""
    before: dict[str, list[str]] = {}
    for edge in drawn.edges:
        before.setdefault(edge.target, []).append(called(drawn.nodes[edge.source]))

    for node in _in_order(drawn):
        if node.kind != "signal":
            yield node, _nesting(drawn, node), ", ".join(dict.fromkeys(before.get(node.id, ())))


def called(node: Node) -> str:
    """What a person calls a node."""
    if node.kind in ("chunk", "signal", "sub_flow"):
        return node.name

    label = " ".join(filter(None, node.label))
    return f"{label} {node.name}" if node.id == node.group and node.name not in _DEFAULT_NAMES else label


def _nesting(drawn: Graph, node: Node) -> int:
    """Return how many blocks a node stands in; what opens and closes a block stands outside it."""
    count, group = 0, node.group
    seen: set[str] = set()
    while group is not None and group in drawn.groups and group not in seen:
        seen.add(group)
        count += 1
        group = drawn.groups[group][1]

    return max(0, count - (node.id == node.group or node.kind.endswith("_collect")))


def _in_order(drawn: Graph) -> list[Node]:
    """Return the nodes as signals reach them: each after one that leads to it, chains kept together."""
    after: dict[str, list[str]] = {}
    for edge in drawn.edges:
        after.setdefault(edge.source, []).append(edge.target)

    left = dict.fromkeys(drawn.nodes, 0)
    for edge in drawn.edges:
        left[edge.target] += 1

    stack = [node.id for node in drawn.nodes.values() if node.kind == "signal"][::-1]
    waiting = list(drawn.nodes)[::-1]
    placed: dict[str, Node] = {}
    while stack or waiting:
        if not stack:
            stack.append(waiting.pop())  # nothing leads here, or only a cycle does

        key = stack.pop()
        if key in placed:
            continue

        placed[key] = drawn.nodes[key]
        for target in reversed(after.get(key, ())):
            left[target] -= 1
            if left[target] == 0:
                stack.append(target)

    return list(placed.values())
