"""Segments: the active periods of an execution between its pauses, derived from its changes in order."""

from __future__ import annotations

from typing import NamedTuple

from flowdeck_sinks.otlp.state import FlowState, RunState

__all__ = ["Segment", "consume"]


class Segment(NamedTuple):
    """One active period that is over."""

    number: int
    start_us: int
    end_us: int
    reason: str
    writer: str
    """Who wrote its end."""


def consume(run: RunState, flow: FlowState, outcome: str = "") -> list[Segment]:
    """Apply the changes that have come, in order, and return the segments they end.

    The first segment is exported when it turns out that there is more than one: an execution that never paused has
    none. A recovery ends a segment that nobody saw end, at the last event of the epochs before.

    Args:
        outcome: how the execution ended; reason of a segment that its end closes.
    """
    ended: list[Segment] = []
    for epoch, seq, kind, time_us, writer in sorted(flow.marks):
        flow.done = (epoch, seq)
        if kind == "start":
            if flow.segment == 0:
                flow.segment, flow.since_us, flow.since_writer = 1, time_us, writer

        elif kind == "wait":
            if flow.segment == 0:
                flow.segment, flow.since_us = 1, run.first_us or time_us

            if flow.since_us:
                ended.append(Segment(flow.segment, flow.since_us, time_us, "waiting", writer))
                flow.since_us = 0

        elif kind == "resume":
            if not flow.since_us:
                flow.segment = max(flow.segment, 1) + 1
                flow.since_us, flow.since_writer = time_us, writer

        elif kind == "recover":
            if flow.since_us:
                before = max((last for e, last in flow.last_us.items() if e < epoch), default=flow.since_us)
                ended.append(
                    Segment(flow.segment, flow.since_us, max(before, flow.since_us), "lost", flow.since_writer)
                )
                flow.segment += 1
                flow.since_us, flow.since_writer = time_us, writer
            elif flow.segment == 0:
                flow.segment = 1

            flow.last_us = {e: last for e, last in flow.last_us.items() if e >= epoch}

        elif kind == "end" and flow.since_us:
            if flow.segment > 1:
                ended.append(Segment(flow.segment, flow.since_us, time_us, outcome or "completed", writer))

            flow.since_us = 0

    flow.marks.clear()
    return ended
