"""The open runs, by trace; runs nobody has told of yet; and the bound on their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from flowdeck_sinks.otlp.folding import fold_identity
from flowdeck_sinks.otlp.ids import span_id_of
from flowdeck_sinks.otlp.kinds import FLOW
from flowdeck_sinks.otlp.outlet import Outlet
from flowdeck_sinks.otlp.reading import Run
from flowdeck_sinks.otlp.state import RunState, TraceState

__all__ = ["RunTable", "root_of"]


def root_of(run: Run) -> str:
    """Return the id of the root run; of lineage that lacks it, the topmost id it has."""
    return run.root_run_id or run.parent_run_id or run.run_id


class RunTable:
    """Every run that is open.

    Args:
        outlet: knows which spans have left.
        most: open runs; one more and the oldest is handed to ``evict``.
    """

    def __init__(self, outlet: Outlet, most: int, evict: Callable[[TraceState, RunState], None]) -> None:
        self.traces: dict[str, TraceState] = {}
        self.open = 0
        self.active: Counter[str] = Counter()
        """Started executions by flow name."""
        self._outlet = outlet
        self._most = most
        self._evict = evict

    def find(self, run: Run, writer: str, time_us: int, adopted: bool = False) -> tuple[TraceState, RunState] | None:
        """Return the state of a run, new if need be; ``None`` when its span has left already.

        ``adopted``: another process began the run, and gave out the span of its parent.
        """
        root_id = root_of(run)
        trace = self.traces.get(root_id)
        if trace is not None:
            state = trace.runs.get(run.run_id)
            if state is not None:
                if state.ghost or (state.kind == "run" and run.run_kind != "run"):  # known by a log record only
                    fold_identity(state, run, writer)
                    self._place(trace, state, run, time_us)

                return trace, state

        span_id = span_id_of(run.run_id)
        if self._outlet.exported(span_id):
            return None

        if trace is None:
            trace = self.traces[root_id] = TraceState(root_id)
            trace.root_done = self._outlet.exported(span_id_of(root_id))

        return trace, self._new(trace, run, span_id, writer, time_us, adopted)

    def forget(self, trace: TraceState, state: RunState) -> None:
        """The run's span has left."""
        if trace.runs.pop(state.run_id, None) is not None:
            self.open -= 1
            if state.kind == FLOW and state.start_us:
                self.active[flow_name(state)] -= 1

    def forget_trace(self, trace: TraceState) -> None:
        """Nothing of the trace is open."""
        if self.traces.get(trace.root_run_id) is trace:
            del self.traces[trace.root_run_id]

    def adopt(self, trace: TraceState) -> None:
        """Take over a trace of a snapshot."""
        self.traces[trace.root_run_id] = trace
        self.open += len(trace.runs)
        for state in trace.runs.values():
            if state.kind == FLOW and state.start_us:
                self.active[flow_name(state)] += 1

    def __iter__(self) -> Iterator[RunState]:
        return (state for trace in self.traces.values() for state in trace.runs.values())

    def _new(self, trace: TraceState, run: Run, span_id: int, writer: str, time_us: int, adopted: bool) -> RunState:
        state = RunState(run.run_id, run.run_kind, span_id)
        fold_identity(state, run, writer)
        self._add(trace, state)
        self._place(trace, state, run, time_us, adopted)
        return state

    def _place(self, trace: TraceState, state: RunState, run: Run, time_us: int, adopted: bool = False) -> None:
        """Say whose child a run is; the root is nobody's, and who names no parent is the root's."""
        parent_id = run.parent_run_id
        if run.run_id == trace.root_run_id:
            parent_id = None
        elif parent_id is None or parent_id == run.run_id:
            parent_id = trace.root_run_id

        state.parent_run_id = parent_id
        if parent_id is None:
            return

        parent = trace.runs.get(parent_id)
        if parent is None:
            if not adopted:
                self._new_ghost(trace, parent_id, run, time_us)
        elif parent.ghost and parent.kind != FLOW:
            _guess(parent, run)

    def _new_ghost(self, trace: TraceState, run_id: str, child: Run, time_us: int) -> None:
        """Remember a run that is known by a child only, so that the child's parent never dangles."""
        span_id = span_id_of(run_id)
        if self._outlet.exported(span_id):
            return

        is_root = run_id == trace.root_run_id
        ghost = RunState(run_id, "run", span_id, None if is_root else trace.root_run_id, ghost=True)
        _guess(ghost, child)
        ghost.session_id = child.session_id
        ghost.first_us = ghost.last_us = time_us
        self._add(trace, ghost)
        if not is_root and trace.root_run_id not in trace.runs:
            self._new_ghost(trace, trace.root_run_id, Run(run_id, "run", session_id=child.session_id), time_us)

    def _add(self, trace: TraceState, state: RunState) -> None:
        trace.runs[state.run_id] = state
        self.open += 1
        if self.open > self._most:
            self._evict(*self._oldest(state))

    def _oldest(self, newest: RunState) -> tuple[TraceState, RunState]:
        """The oldest run of the oldest trace that has one; a root only when it is alone."""
        for trace in self.traces.values():
            few = [state for state in islice(trace.runs.values(), 3) if state is not newest]
            if few:
                return trace, next((state for state in few if state.run_id != trace.root_run_id), few[0])

        raise LookupError("no run is open")  # not reached: there are more than the most


def _guess(ghost: RunState, child: Run) -> None:
    """A chunk's parent is an execution: that much is known without an event of its own."""
    if child.run_kind == "chunk_execution":
        ghost.kind = FLOW
        ghost.execution_id = child.execution_id
        ghost.meta = {key: child.meta[key] for key in ("flow_name",) if key in child.meta}


def flow_name(state: RunState) -> str:
    """Return the name under which an execution is counted as active."""
    return str(state.meta.get("flow_name") or "")
