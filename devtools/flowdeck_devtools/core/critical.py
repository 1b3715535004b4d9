"""The critical path: the chain of steps that decided how long a run took. Making any other faster changes nothing."""

from __future__ import annotations

from typing import NamedTuple

from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.trace import Trace

__all__ = ["Share", "critical_path"]


class Share(NamedTuple):
    """A node on the path, and the time of the path that is its own and not a child's."""

    node: SpanNode
    own_us: int


def critical_path(trace: Trace, now_us: int) -> list[Share]:
    """The path from the start to the end, in order of time.

    Walked backwards: from the end of a node to the child that ended last before there, then from that child's start on.
    What no child covers is the node's own. The shares add up to the run's duration.
    """
    root = trace.root
    if root.started_us is None:
        return []
    own: dict[int, int] = {}
    order: list[SpanNode] = []
    stack: list[tuple[SpanNode, int, int]] = [(root, root.started_us, _end(root, now_us))]
    while stack:
        node, start, end = stack.pop()
        order.append(node)
        left = end - start
        at = end
        # Newest end first; each child covers what lies between its start and what is covered already.
        for child in sorted(node.children, key=lambda one: -_end(one, now_us)):
            if child.started_us is None or at <= start:
                continue
            last, first = min(_end(child, now_us), at), max(child.started_us, start)
            if last <= first:
                continue
            stack.append((child, first, last))
            left -= last - first
            at = first
        own[id(node)] = own.get(id(node), 0) + max(0, left)
    seen: set[int] = set()
    path = [node for node in order if not (id(node) in seen or seen.add(id(node)))]  # type: ignore[func-returns-value]
    path.sort(key=lambda one: (one.started_us or 0, one.depth))
    return [Share(node, own[id(node)]) for node in path]


def _end(node: SpanNode, now_us: int) -> int:
    if node.ended_us is not None:
        return node.ended_us
    return now_us if node.is_open else max(node.last_end_us, node.started_us or 0)
