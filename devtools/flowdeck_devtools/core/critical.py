"""The critical path: the chain of steps that decided how long a run took. Making any other faster changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.trace import Trace

__all__ = ["PathSearch", "Share", "critical_path"]

TELL_EVERY = 2_000


class Share(NamedTuple):
    """A node on the path, and the time of the path that is its own and not a child's."""

    node: SpanNode
    own_us: int


def critical_path(trace: Trace, now_us: int, tell: Callable[[int], None] | None = None) -> list[Share]:
    """The path from the start to the end, in order of time.

    Walked backwards: from the end of a node to the child that ended last before there, then from that child's start on.
    What no child covers is the node's own. The shares add up to the run's duration. ``tell`` is told now and then how
    many nodes were looked at.
    """
    root = trace.root
    if root.started_us is None:
        return []
    own: dict[int, int] = {}
    order: list[SpanNode] = []
    stack: list[tuple[SpanNode, int, int]] = [(root, root.started_us, _end(root, now_us))]
    looked = 0
    while stack:
        node, start, end = stack.pop()
        order.append(node)
        looked += len(node.children) + 1
        if tell is not None and len(order) % TELL_EVERY == 0:
            tell(looked)
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


class PathSearch:
    """The critical path looked for in a thread of its own: of 100,000 steps it takes most of a second.

    ``nodes`` is what was found last, by identity; ``looked`` rises while another search goes on.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.nodes: set[int] = set()
        self.found = False
        self.looked = 0
        self.busy = False

    def begin(self, now_us: int) -> None:
        """Look for it, unless it is being looked for."""
        if not self.busy:
            self.busy, self.looked = True, 0
            threading.Thread(target=self._run, args=(now_us,), name="flowdeck-critical-path", daemon=True).start()

    def _run(self, now_us: int) -> None:
        try:
            self.nodes = {id(share.node) for share in critical_path(self.trace, now_us, self._tell)}
            self.found = True
        except RuntimeError:
            pass  # the run grew under our hands: the next search finds it
        finally:
            self.busy = False

    def _tell(self, looked: int) -> None:
        self.looked = looked
