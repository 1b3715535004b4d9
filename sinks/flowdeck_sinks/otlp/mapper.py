"""SpanMapper: events in, final spans out.

::

    mapper = SpanMapper(resource=resource)
    for line in lines:                                        # a journal's lines, or event_of(record) for live records
        spans = mapper.feed(decode_event(line), writer="w1")  # mostly an empty list
    spans = mapper.due()              # about once a second while no event comes: spans whose grace has passed
    spans = mapper.flush()            # a clean stop: all that has ended, without waiting for its grace
    spans = mapper.flush_incomplete(writers={"w1"}, resumable={"execution-id"})   # writers known to be dead
    saved = mapper.snapshot()         # beside the cursor; mapper.restore(saved) goes on where it was
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

import msgspec
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from flowdeck.events.catalogue import CATALOGUE
from flowdeck_sinks.otlp import folding
from flowdeck_sinks.otlp.building import SpanBuilder, Trouble, error_key
from flowdeck_sinks.otlp.content import Capture, Limits
from flowdeck_sinks.otlp.finishing import Finisher
from flowdeck_sinks.otlp.holding import PERIODS, Holding
from flowdeck_sinks.otlp.ids import LONGEST_WAIT_HOURS, parse_traceparent, span_id_of
from flowdeck_sinks.otlp.kinds import CONTINUES, ENDS, ENRICHES, FLOW, PLAIN, STARTS, WAIT_EVENTS, canonical_type
from flowdeck_sinks.otlp.outlet import Outlet
from flowdeck_sinks.otlp.reading import Event
from flowdeck_sinks.otlp.runtable import RunTable, flow_name, root_of
from flowdeck_sinks.otlp.sampling import Sampler
from flowdeck_sinks.otlp.state import RunState, TraceState

__all__ = ["SpanMapper"]

log = logging.getLogger("flowdeck.otlp")

GRACE: Final = 1.0
MAX_TIME_US: Final = 9_000_000_000_000_000
"""The year 2255: later times do not fit nanoseconds in 64 bits."""
_CHILD_ERRORS: Final = 64
_SAVED_KEYS: Final = 8_192
_VERSION: Final = 1
_COUNTERS: Final = (
    "incomplete",
    "unsampled",
    "late_events",
    "alias_suppressed",
    "unknown_types",
    "negative_durations",
    "bad_times",
    "bad_events",
    "evicted",
)


class SpanMapper:
    """Folds events into runs and gives each run's span once, when it is final.

    Order of calls: :meth:`feed` per event; :meth:`due` while it is quiet; :meth:`flush_incomplete` for writers that
    died; :meth:`flush` at a clean stop. Not thread-safe: one thread calls everything but :meth:`active`. Nothing
    raises on an event, blocks or does I/O.

    A span is held for ``grace_s`` after its end, so that events which come late or out of order still count; within
    that time neither order nor repetition changes what is exported. Whatever is lost, a trace has one root and no
    dangling parent: a parent nobody saw is exported as ``flow.span.incomplete``.

    Memory is held for open runs only, at most ``max_open`` (the oldest is then exported as incomplete and counted),
    and for the ids of the last 65,536 spans.

    Args:
        resource: of every span; ``service.name`` is set to ``flowdeck`` when it has none.
        capture: where content may go; from the environment by default.
        limits: bounds of a span; from the environment by default.
        sampler: decides once per root run; ``None`` records everything.
        on_final: called with every span, also of traces that are not sampled: what metrics are made from.
        grace_s: seconds, see above.
        max_open: open runs.
        max_held: ended runs in their grace; above it the oldest is exported early.
        partial: what earlier processes wrote is not fed (a sink of live events): the parent of a run that was begun by
            another process is taken as exported by it, and not exported as incomplete.
        max_trace_hours: an answer after a longer wait begins a new trace, linked to the one before.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        *,
        resource: Resource | None = None,
        capture: Capture | None = None,
        limits: Limits | None = None,
        sampler: Sampler | None = None,
        on_final: Callable[[ReadableSpan], None] | None = None,
        grace_s: float = GRACE,
        max_open: int = 100_000,
        max_held: int = 16_384,
        partial: bool = False,
        max_trace_hours: float = LONGEST_WAIT_HOURS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capture = Capture.from_environment() if capture is None else capture
        self.limits = Limits.from_environment() if limits is None else limits
        self._longest_us = round(max_trace_hours * 3_600_000_000)
        self._partial = partial
        self._clock = clock
        self._events = 0
        self._count: Counter[str] = Counter()
        self._outlet = Outlet(self._count, sampler, on_final)
        self._build = SpanBuilder(
            Resource.create() if resource is None else resource, self.limits, exceptions=self.capture.span_exceptions
        )
        self._table = RunTable(self._outlet, max_open, self._evict)
        self._holding = Holding(self._table, self._count, grace_s, max_held, clock)
        self._finish = Finisher(self._build, self._outlet, self._count, self._holding.finished)
        self._holding.finisher = self._finish

    # -- events ------------------------------------------------------------------------------------------------------

    def feed(self, event: Event, writer: str = "") -> list[ReadableSpan]:
        """Take one event; return the spans that have become final, oldest first.

        ``writer`` names who wrote a stored event: it becomes ``service.instance.id`` of its spans.
        """
        now = self._clock()
        event.writer = writer
        try:
            self._take(event, now)
        except Exception as problem:  # observation never stops anybody: counted, and shown by `flowdeck doctor`
            self._count["bad_events"] += 1
            log.debug("event %r could not be mapped", event.event_id, exc_info=problem)

        holding = self._holding
        if holding.next_due <= now:
            holding.release(now)

        return self._outlet.take() if self._outlet.out else []

    def due(self) -> list[ReadableSpan]:
        """Return the spans whose grace has passed."""
        self._holding.release(self._clock())
        return self._outlet.take()

    def _take(self, event: Event, now: float) -> None:
        self._events += 1
        run = event.run
        if run is None:
            return

        event_type = event.event_type
        meta = event.meta
        count = self._count
        if event_type not in PLAIN:
            if meta is not None and meta.compat_event_alias:
                count["alias_suppressed"] += 1
                return

            event_type = canonical_type(event_type)
            if event_type not in CATALOGUE:
                count["unknown_types"] += 1

        time_us = event.timestamp * 1000 + (0 if meta is None else meta.us)
        if not 0 < time_us < MAX_TIME_US:
            count["bad_times"] += 1
            time_us = min(max(time_us, 1), MAX_TIME_US)

        adopted = self._partial and event_type == "triggerflow.execution_recovered"
        found = self._table.find(run, event.writer, time_us, adopted)
        if found is None:
            count["late_events"] += 1
            return

        trace, state = found
        writer = event.writer
        if time_us >= state.last_us:
            if time_us > state.last_us or writer > state.writer:
                state.writer = writer

            state.last_us = time_us

        if time_us < state.first_us or not state.first_us:
            state.first_us = time_us

        if meta is not None and meta.epoch > state.epoch:
            state.epoch = meta.epoch

        if trace.traceparent is None and "traceparent" in run.meta:
            given = run.meta["traceparent"]
            if isinstance(given, str) and parse_traceparent(given) is not None:
                trace.traceparent = given

        self._fold(trace, state, event, event_type, time_us, now)

    def _fold(
        self, trace: TraceState, state: RunState, event: Event, event_type: str, time_us: int, now: float
    ) -> None:
        kind = state.kind
        if STARTS.get(event_type) == kind:
            if kind == FLOW:
                if not state.start_us:
                    self._table.active[flow_name(state)] += 1

                folding.fold_flow(trace, state, event, event_type, time_us, self._longest_us)

            folding.fold_start(state, event, time_us, self.limits, self.capture.spans)
            return

        end = ENDS.get(event_type)
        if end is not None and end[0] == kind:
            self._ended(trace, state, event, end[1], time_us, now)
            return

        if kind == FLOW and event_type in CONTINUES:
            new = folding.fold_flow(trace, state, event, event_type, time_us, self._longest_us)
            if new:
                self._holding.hold(trace, state, now, PERIODS)

        if event_type in WAIT_EVENTS:
            self._waits(trace, state, event, event_type, time_us, now)

        if event_type in ENRICHES:
            folding.fold_enriching(state, event, event_type, self.limits, self.capture.spans)
        else:
            folding.fold_note(state, event, event_type, time_us, self.limits)

    def _ended(
        self, trace: TraceState, state: RunState, event: Event, status: str | None, time_us: int, now: float
    ) -> None:
        if folding.fold_end(trace, state, event, status, time_us, self.limits, self.capture.spans):
            self._count["negative_durations"] += 1

        if state.outcome == "failed":
            parent = trace.runs.get(state.parent_run_id or "")
            if parent is not None:
                errors = parent.child_errors
                if errors is None:
                    errors = parent.child_errors = []

                key = error_key(state)
                if key not in errors:
                    errors.append(key)
                    del errors[:-_CHILD_ERRORS]

        if not state.ripe:
            state.ripe = True
            self._holding.hold(trace, state, now)

    def _waits(
        self, trace: TraceState, state: RunState, event: Event, event_type: str, time_us: int, now: float
    ) -> None:
        """Questions belong to the execution, whoever asked: its span is open while they wait, the asker's is not."""
        owner = state
        while owner.kind != FLOW and owner.parent_run_id is not None:
            above = trace.runs.get(owner.parent_run_id)
            if above is None:
                break

            owner = above

        for wait in folding.fold_waits(owner, event, event_type, time_us):
            wait.ripe = True
            self._holding.hold(trace, owner, now, wait)

    def _evict(self, trace: TraceState, state: RunState) -> None:
        """Too many runs are open."""
        self._count["evicted"] += 1
        self._finish.run(trace, state, Trouble("evicted"))

    # -- the end -----------------------------------------------------------------------------------------------------

    def flush(self) -> list[ReadableSpan]:
        """Return every span that has ended, without waiting for its grace. Open runs stay open."""
        self._holding.release_all()
        return self._outlet.take()

    def flush_incomplete(
        self,
        *,
        writers: Collection[str] | None = None,
        executions: Collection[str] | None = None,
        resumable: Collection[str] = (),
        reason: str = "process_lost",
    ) -> list[ReadableSpan]:
        """Give up the open runs of processes that are gone; return their spans and all that has ended.

        A run that is given up ends with the last event seen of it, with status ERROR and ``flow.span.incomplete``.

        Args:
            writers: whose runs; ``None`` means everybody's.
            executions: only runs of these executions.
            resumable: executions that can go on later. Their own spans and questions stay open; their steps do not.
            reason: ``flow.span.incomplete_reason``.
        """
        out = self.flush()
        for trace in list(self._table.traces.values()):
            root = trace.runs.get(trace.root_run_id)
            kept = root is not None and root.execution_id in resumable
            lost = [
                state
                for state in trace.runs.values()
                if (writers is None or state.writer in writers or (state.ghost and not state.writer))
                and (executions is None or state.execution_id in executions)
                and not ((kept or state.execution_id in resumable) and (state.kind == FLOW or state.ghost))
            ]
            self._holding.give_up(trace, lost, reason)

        self._holding.forget_empty()
        return out + self._outlet.take()

    # -- reading -----------------------------------------------------------------------------------------------------

    def context_of(self, event: Event) -> SpanContext | None:
        """Return the context of the span an event belongs to, ``None`` for an event without a run."""
        run = event.run
        if run is None:
            return None

        root_id = root_of(run)
        trace = self._table.traces.get(root_id)
        if trace is None:
            given = run.meta.get("traceparent")
            trace = TraceState(root_id, given if isinstance(given, str) else None)

        state = trace.runs.get(run.run_id)
        if state is None:
            state = RunState(run.run_id, run.run_kind, span_id_of(run.run_id))

        generation = trace.generation(event.time_us) if trace.breaks else 0
        return self._build.context_of(trace, state, generation, self._outlet.sampled(trace))

    @property
    def scope(self) -> InstrumentationScope:
        """The instrumentation scope of everything made here."""
        return self._build.scope

    def resource_of(self, writer: str) -> Resource:
        """Return the resource of what a writer wrote."""
        return self._build.resource_of(writer)

    def active(self) -> dict[str, int]:
        """Return the number of open executions by flow name. Any thread may call."""
        return {name: number for name, number in self._table.active.copy().items() if number > 0}

    def open_writers(self) -> set[str]:
        """Return the writers that have open runs: those whose death would leave spans incomplete."""
        return {state.writer for state in self._table if not state.ghost}

    def statistics(self) -> dict[str, int]:
        """Return counters: events and spans, what is open and held, and everything that was not as it should be."""
        return {
            "events": self._events,
            "spans": self._outlet.spans,
            **{name: self._count[name] for name in _COUNTERS},
            "open_runs": self._table.open,
            "open_traces": len(self._table.traces),
            "held": len(self._holding),
        }

    # -- saving ------------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return everything that is open, as bytes for :meth:`restore`. Save it in one step with the cursor."""
        saved = _Saved(list(self._table.traces.values()), self._outlet.remembered(_SAVED_KEYS))
        return msgspec.msgpack.encode(saved)

    def restore(self, saved: bytes) -> bool:
        """Go on from a snapshot; return whether it could be read. One of another version changes nothing."""
        try:
            found = msgspec.msgpack.decode(saved, type=_Saved)
        except (msgspec.DecodeError, ValueError):
            return False

        if found.version != _VERSION:
            return False

        self._outlet.remember(found.exported)
        for trace in found.traces:
            self._table.adopt(trace)
            self._holding.hold_again(trace)

        return True


class _Saved(msgspec.Struct):
    traces: list[TraceState]
    exported: list[int]
    version: int = _VERSION
