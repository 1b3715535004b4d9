"""What failed first: the step whose exception ended the run, and the others it only passed through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flowdeck_devtools.core.attempt import Attempt
from flowdeck_devtools.core.model import error_line
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import decode

__all__ = ["Failure", "failures", "first_failure"]

MOST_HOPS = 64
"""Runs an error is followed through: sub flows in sub flows, agents in chunks."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that ended with an error nobody caught."""

    node: SpanNode
    attempt: Attempt
    propagated: bool
    """The error was raised in another step and only passed through this one."""

    @property
    def text(self) -> str:
        return error_line(self.attempt.error) or "failed without saying why"

    @property
    def traceback(self) -> str | None:
        """Where it was raised."""
        found = (self.attempt.error or {}).get("traceback")
        return found if isinstance(found, str) else None

    @property
    def line(self) -> bytes | None:
        """The event that reports it."""
        for line in reversed(self.node.lines):
            event = decode(line)
            if event.error and event.run is not None and event.run.run_id == self.attempt.run_id:
                return line
        return None


def first_failure(trace: Trace) -> Failure | None:
    """The failure that began it all; ``None`` when nothing failed.

    The events say where an error was raised (``origin_run_id``, ``propagated_from``); where they do not, it is the
    step that failed first without one below it that failed before.
    """
    named = _named(trace)
    if named is not None:
        return named
    own = [one for one in failures(trace) if not one.propagated]
    return min(own, key=lambda one: one.attempt.ended_us or 0, default=None)


def failures(trace: Trace) -> list[Failure]:
    """Every step that failed in the end, in order of appearance; the run itself is not among them."""
    origin = _named(trace)
    return [
        Failure(node, attempt, _passed_on(node, attempt, origin))
        for node, attempt in _failed(trace.root)
        if node is not trace.root
    ]


def _named(trace: Trace) -> Failure | None:
    """The failure the run's own error event leads to."""
    node, found = trace.root, None
    attempt = _last_error(trace.root)
    for _ in range(MOST_HOPS):
        origin = trace.node_of(attempt.origin) if attempt is not None else None
        if origin is None or origin is node:
            break
        following = next((one for one in origin.attempts if attempt and one.run_id == attempt.origin), None)
        if following is None or following.error is None:
            break
        node, attempt, found = origin, following, Failure(origin, following, False)
    return found


def _last_error(node: SpanNode) -> Attempt | None:
    return next((one for one in reversed(node.attempts) if one.error), None)


def _failed(root: SpanNode) -> Iterator[tuple[SpanNode, Attempt]]:
    """Nodes whose last attempt failed, depth first; branches in which nothing failed are not entered."""
    stack = [root]
    while stack:
        node = stack.pop()
        last = node.attempts[-1] if node.attempts else None
        if node.role == "span" and last is not None and last.status in ("failed", "propagated"):
            yield node, last
        if node.below("failed") or node.below("propagated"):
            stack.extend(reversed(node.children))


def _passed_on(node: SpanNode, attempt: Attempt, origin: Failure | None) -> bool:
    if origin is not None and origin.node is node:
        return False
    return attempt.propagated or node.status == "propagated" or attempt.origin not in (None, attempt.run_id)
