"""The end of a run: which spans it leads to, in which order, and what is told to its parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from flowdeck_sinks.otlp.building import SpanBuilder, Trouble
from flowdeck_sinks.otlp.ids import part_span_id
from flowdeck_sinks.otlp.kinds import FLOW, KINDS
from flowdeck_sinks.otlp.outlet import Outlet
from flowdeck_sinks.otlp.periods import consume
from flowdeck_sinks.otlp.state import FlowState, RunState, TraceState, WaitState, retry_key

__all__ = ["Finisher"]

_MOST_STARTS: Final = 16_384
_LAST_EPOCH: Final = 1 << 60


class Finisher:
    """Exports runs, waits and segments through an outlet.

    Args:
        finished: called when a run's span has left and the run can be forgotten.
    """

    def __init__(
        self,
        build: SpanBuilder,
        outlet: Outlet,
        count: Counter[str],
        finished: Callable[[TraceState, RunState], None],
    ) -> None:
        self._build = build
        self._outlet = outlet
        self._count = count
        self._finished = finished

    def run(self, trace: TraceState, state: RunState, trouble: Trouble | None = None) -> None:
        """Export a run's span, and before it what only an execution has. ``trouble``: no end will come."""
        flow = state.flow
        if flow is not None:
            self._rest_of_flow(trace, state, flow, trouble)

        self._earlier_roots(trace, state)
        if not state.end_us and (state.ghost or state.kind in KINDS):
            trouble = trouble or Trouble("end_missing")
            self._count["incomplete"] += 1
        elif state.end_us and state.start_us > state.end_us:
            self._count["negative_durations"] += 1

        outlet = self._outlet
        if outlet.admit(trace, state.span_id):
            outlet.put(trace, self._build.run_span(trace, state, trouble))

        if state.parent_run_id is not None:
            _tell_parent(trace, state)

        self._finished(trace, state)

    def periods(self, trace: TraceState, state: RunState, outcome: str = "") -> None:
        """Export the segments that have ended; after a recovery also what the dead process left open."""
        flow = state.flow
        if flow is None or not flow.marks:
            return

        recovered = max((epoch for epoch, _, kind, _, _ in flow.marks if kind == "recover"), default=0)
        if recovered:
            self._epochs_before(trace, state, recovered)

        for segment in consume(state, flow, outcome):
            if self._outlet.admit(trace, part_span_id(state.run_id, "segment", segment.number)):
                self._outlet.put(trace, self._build.segment_span(trace, state, *segment))

        self._earlier_roots(trace, state)

    def wait(self, trace: TraceState, state: RunState, wait: WaitState, incomplete: str | None = None) -> None:
        """Export a question. One that a sub flow asked shows there alone."""
        if state.flow is not None:
            state.flow.waits.pop(wait.interrupt_id, None)

        if not wait.hidden and self._outlet.admit(trace, part_span_id(state.run_id, "wait", wait.interrupt_id)):
            self._outlet.put(trace, self._build.wait_span(trace, state, wait, incomplete))

    def _rest_of_flow(self, trace: TraceState, state: RunState, flow: FlowState, trouble: Trouble | None) -> None:
        """What an ending execution still holds: its last segment, and questions nobody answered."""
        end_us = state.end_us or max(state.last_us, state.below_us)
        if state.end_us or flow.since_us or flow.marks:
            flow.marks.append((_LAST_EPOCH, 0, "end", end_us, state.writer))

        self.periods(trace, state, state.outcome if state.end_us else "lost")
        for wait in list(flow.waits.values()):
            unanswered = not wait.end_us
            if unanswered:
                wait.end_us = max(end_us, wait.start_us)
                wait.writer = state.writer
                if state.end_us:
                    wait.resolution = "cancelled"

            self.wait(trace, state, wait, trouble.reason if trouble is not None and unanswered else None)

    def _epochs_before(self, trace: TraceState, flow_run: RunState, epoch: int) -> None:
        """The execution was loaded again: what ran before and has no end was cut off."""
        for state in [r for r in trace.runs.values() if r.execution_id == flow_run.execution_id and r is not flow_run]:
            if state.kind != FLOW and not state.end_us and 0 < state.epoch < epoch:
                self.run(trace, state, Trouble("process_lost"))

    def _earlier_roots(self, trace: TraceState, state: RunState) -> None:
        """The roots of the traces that very long waits ended."""
        if state.run_id != trace.root_run_id or trace.breaks_done == len(trace.breaks):
            return

        starts = [state.start_us or state.first_us, *(resumed for resumed, _ in trace.breaks)]
        for generation in range(trace.breaks_done, len(trace.breaks)):
            # A key of its own: the newest root has the run's.
            if self._outlet.admit(trace, part_span_id(state.run_id, "root", generation)):
                paused_us = trace.breaks[generation][1]
                self._outlet.put(
                    trace, self._build.earlier_root_span(trace, state, generation, starts[generation], paused_us)
                )

        trace.breaks_done = len(trace.breaks)


def _tell_parent(trace: TraceState, state: RunState) -> None:
    """What a run leaves behind: when it was last seen, for a parent that may never end; its start, for its children."""
    if state.attempt > 1 and trace.retries:
        trace.retries.pop(retry_key(state.execution_id, state.scope, state.attempt - 1), None)

    if trace.breaks and len(trace.starts) < _MOST_STARTS:
        trace.starts[state.run_id] = state.start_us or state.first_us

    parent = trace.runs.get(state.parent_run_id or "")
    if parent is None:
        return

    last_us = max(state.last_us, state.end_us, state.below_us)
    if parent.ghost:
        parent.first_us = min(parent.first_us, state.start_us or state.first_us)
        parent.last_us = max(parent.last_us, last_us)

    if parent.flow is not None:
        epochs = parent.flow.last_us
        if last_us > epochs.get(state.epoch, 0):
            epochs[state.epoch] = last_us

    if last_us > parent.below_us:
        parent.below_us = last_us
