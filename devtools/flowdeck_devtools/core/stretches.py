"""The working and waiting times of a row, as :func:`~flowdeck_devtools.core.bars.draw` takes them."""

from __future__ import annotations

from flowdeck_devtools.core.bars import Kind, Stretch
from flowdeck_devtools.core.span import SpanNode

__all__ = ["BAR_ROLES", "stretches"]

MAX_STRETCHES = 64
"""Attempts and waits drawn of one row: more than that fall into the same cells."""

BAR_ROLES = {
    "running": "bar-run",
    "completed": "bar-done",
    "failed": "failed",
    "propagated": "failed",
    "retried": "waiting",
    "waiting": "waiting",
    "cancelled": "bar-group",
    "lost": "violet",
    "group": "bar-group",
}
"""The style of a bar by the status it shows."""


def _bar_of(status: str, own: str) -> str:
    """What an attempt's bar shows: its own status, unless the row as a whole is passed on or lost."""
    if status == "propagated" or (status == "lost" and own == "running"):
        return status
    return own


def stretches(node: SpanNode, status: str, now_us: int) -> list[Stretch]:
    """The working and waiting times of a row, in order."""
    if node.role != "span" or (not node.attempts and node.started_us is not None):
        if node.started_us is None:
            return []
        end = node.ended_us if node.ended_us is not None else now_us
        role = BAR_ROLES["failed"] if status == "failed" else BAR_ROLES["group"]
        return [Stretch("line", node.started_us, end, role)]

    # A run that holds others is a thin line, so that the work itself stands out.
    kind: Kind = "line" if node.children else "bar"
    found = [
        Stretch(
            kind,
            attempt.started_us,
            attempt.ended_us if attempt.ended_us is not None else now_us,
            BAR_ROLES.get(_bar_of(status, attempt.status), "bar-group"),
        )
        for attempt in node.attempts[-MAX_STRETCHES:]
        if attempt.started_us is not None
    ]
    waits = node.waits[-MAX_STRETCHES:]
    for wait in waits:
        end = wait.end_us if wait.end_us is not None else now_us
        worked = max((one.end_us for one in found if one.start_us <= wait.start_us), default=wait.start_us)
        if end > worked:
            found.append(Stretch("wait", max(wait.start_us, min(worked, end)), end, "waiting"))
    found.sort(key=lambda one: one.start_us)
    return found
