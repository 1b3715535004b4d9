"""What has ended waits here for events that come late: the grace of runs, of their parts, and of whole traces."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from flowdeck_sinks.otlp.building import Trouble
from flowdeck_sinks.otlp.finishing import Finisher
from flowdeck_sinks.otlp.kinds import FLOW, KINDS
from flowdeck_sinks.otlp.runtable import RunTable
from flowdeck_sinks.otlp.state import RunState, TraceState, WaitState

__all__ = ["PERIODS", "Holding"]

log = logging.getLogger("flowdeck.otlp")

ORPHAN_GRACE: Final = 30.0
"""Seconds an end waits for its start."""
LINGER: Final = 60.0
"""Seconds runs below an ended root may still take."""
_DEEPEST: Final = 10_000
"""Lineage that is longer is a cycle."""
NEVER: Final = float("inf")
NOW: Final = float("-inf")
PERIODS: Final = "periods"
"""Held in place of a run: its segments."""


class _Held(msgspec.Struct, gc=False):
    """Something final that waits for what may come late: a run, one of its questions, or its periods."""

    due: float
    trace: TraceState
    state: RunState
    part: WaitState | str | None = None

    def is_open(self) -> bool:
        """Whether the run's span has not left."""
        return self.trace.runs.get(self.state.run_id) is self.state


class Holding:
    """Four queues in order of their time: runs and parts, executions (after their children), ends without a start,
    traces whose root has ended.

    Args:
        grace: seconds something is held after its end.
        most: items in their grace; above it the oldest leaves early.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, table: RunTable, count: Counter[str], grace: float, most: int, clock: Callable[[], float]
    ) -> None:
        self.finisher: Finisher
        """Set by the owner: the finisher itself calls :meth:`finished`."""
        self._table = table
        self._count = count
        self._grace = grace
        self._most = most
        self._clock = clock
        self.next_due = NEVER
        """When the first of what is held for the shortest grace leaves: looked at after every event."""
        self._held: deque[_Held] = deque()
        self._flows: deque[_Held] = deque()
        self._orphans: deque[_Held] = deque()
        self._closing: deque[tuple[float, TraceState]] = deque()

    def __len__(self) -> int:
        return len(self._held) + len(self._flows) + len(self._orphans)

    def hold(self, trace: TraceState, state: RunState, now: float, part: WaitState | str | None = None) -> None:
        """Keep a run, or a part of it, for its grace."""
        if part is None and state.kind == FLOW:
            self._flows.append(_Held(now + 1.5 * self._grace, trace, state))
            return

        held = self._held
        due = now + self._grace
        held.append(_Held(due, trace, state, part))
        if due < self.next_due:
            self.next_due = due
        elif len(held) > self._most:
            self.next_due = NOW

    def hold_again(self, trace: TraceState) -> None:
        """Keep what a restored trace had in its grace."""
        now = self._clock()
        trace.closing, trace.linger_until = False, now + LINGER
        for state in trace.runs.values():
            flow = state.flow
            if flow is not None:
                if flow.marks:
                    self.hold(trace, state, now, PERIODS)

                for wait in flow.waits.values():
                    if wait.ripe:
                        self.hold(trace, state, now, wait)

            if state.ripe:
                self.hold(trace, state, now)

        if trace.root_done:
            self._schedule_close(trace)

    def release(self, now: float) -> None:
        """Export what has been held long enough."""
        held = self._held
        while held and (held[0].due <= now or len(held) > self._most):
            item = held.popleft()
            if item.part is None and not item.state.start_us:
                if item.is_open():
                    item.due = now + ORPHAN_GRACE
                    self._orphans.append(item)
            else:
                self._export(item)

        self.next_due = held[0].due if held else NEVER
        for queue in (self._flows, self._orphans):
            while queue and queue[0].due <= now:
                self._export(queue.popleft())

        closing = self._closing
        while closing and closing[0][0] <= now:
            _, trace = closing.popleft()
            self._close(trace, now)

    def release_all(self) -> None:
        """Export everything that has ended."""
        # Executions come last, the inner before the outer: what they say depends on what ran in them.
        items = sorted((*self._held, *self._orphans), key=lambda item: item.part is not None)
        flows = sorted(self._flows, key=lambda item: -_depth(item.trace, item.state))
        for queue in (self._held, self._orphans, self._flows):
            queue.clear()

        self.next_due = NEVER
        for item in (*items, *flows):
            self._export(item)

        closing = [trace for _, trace in self._closing]
        self._closing.clear()
        for trace in closing:
            self._close(trace, float("-inf"))

    def give_up(self, trace: TraceState, states: Iterable[RunState], reason: str) -> None:
        """Export runs that will not end any more, each after what ran in it."""
        for state in sorted(states, key=lambda state: -_depth(trace, state)):
            if trace.runs.get(state.run_id) is state:
                self._finish(trace, state, Trouble("events_missing" if state.ghost else reason))

    def finished(self, trace: TraceState, state: RunState) -> None:
        """A run's span has left."""
        self._table.forget(trace, state)
        if state.run_id == trace.root_run_id:
            trace.root_done = True
            trace.linger_until = self._clock() + LINGER
            self._schedule_close(trace)
        elif trace.root_done and not trace.runs:
            self._schedule_close(trace)

    def forget_empty(self) -> None:
        """Forget traces of which nothing is open."""
        for trace in list(self._table.traces.values()):
            if trace.root_done and not trace.runs:
                self._table.forget_trace(trace)

        traces = self._table.traces
        self._closing = deque(item for item in self._closing if traces.get(item[1].root_run_id) is item[1])

    def _export(self, item: _Held) -> None:
        if not item.is_open():
            return

        if item.part is None:
            self._finish(item.trace, item.state)
            return

        try:
            if isinstance(item.part, WaitState):
                self.finisher.wait(item.trace, item.state, item.part)
            else:
                self.finisher.periods(item.trace, item.state)
        except Exception as problem:
            self._failed(item.state, problem)

    def _finish(self, trace: TraceState, state: RunState, trouble: Trouble | None = None) -> None:
        try:
            self.finisher.run(trace, state, trouble)
        except Exception as problem:  # one span that cannot be built costs no other
            self._failed(state, problem)
            self.finished(trace, state)

    def _failed(self, state: RunState, problem: Exception) -> None:
        self._count["bad_events"] += 1
        log.debug("run %r could not be exported", state.run_id, exc_info=problem)

    def _schedule_close(self, trace: TraceState) -> None:
        if not trace.closing:
            trace.closing = True
            self._closing.append((self._clock() + 2 * self._grace, trace))

    def _close(self, trace: TraceState, now: float) -> None:
        """The root has ended: forget the trace, once what it left behind has ended or had its time."""
        trace.closing = False
        running = any(r.start_us and not r.end_us and r.kind in KINDS for r in trace.runs.values())
        if running and now < trace.linger_until:
            self._schedule_close(trace)
            return

        trace.closing = True  # what follows is the close
        self.give_up(trace, list(trace.runs.values()), "end_missing")
        self._table.forget_trace(trace)


def _depth(trace: TraceState, state: RunState) -> int:
    """Return how many open runs are above one."""
    depth = 0
    above = trace.runs.get(state.parent_run_id or "")
    while above is not None and depth < _DEEPEST:
        depth += 1
        above = trace.runs.get(above.parent_run_id or "")

    return depth
