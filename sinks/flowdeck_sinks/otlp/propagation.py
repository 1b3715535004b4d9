"""The current OpenTelemetry span inside a flow: what a handler calls nests under the step that called it.

One :class:`FlowSpan` is put into the OpenTelemetry context of an execution's branches, once per execution. It knows no
ids: asked for its span context it looks at the run that is current then, whose ids are hashes of its identity. So a
step costs nothing, and an HTTP client's instrumentation, ``propagate.inject`` or a tracer of the application's own all
see the step they are called from, whose span is exported when the step has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from flowdeck.events.lineage import RunContext, current_run
from flowdeck.events.record import EventRecord
from flowdeck_sinks.otlp.ids import LONGEST_WAIT_HOURS, parse_traceparent, span_id_of, trace_id_of
from flowdeck_sinks.otlp.sampling import Sampler

__all__ = ["FlowSpan", "LongWaits", "run_entry"]

log = logging.getLogger("flowdeck.sinks.otlp")


RESUMED: Final = "triggerflow.execution_resumed"
_MOST_ROOTS: Final = 10_000
_LONGEST_US: Final = LONGEST_WAIT_HOURS * 3_600_000_000


class LongWaits:
    """Counts the answers this process saw that came so late that the mapper begins a new trace with them.

    A sink of one event type: nothing but an answer ever reaches it. What an earlier process saw is not known here:
    after a restart without another long wait calls go to the trace the run began in.
    """

    name = "otlp-waits"

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, root_run_id: str) -> int:
        """Return how many traces of a root run are over."""
        return self._known.get(root_run_id, 0)

    def accept(self, record: EventRecord) -> None:
        """Take an answer. Never raises."""
        run = record.run
        if run is None or run.run_id != run.root_run_id:
            return

        try:
            asked_us = _asked_us(record.payload)
        except Exception:
            log.exception("flowdeck otlp: an answer could not be read")
            return

        if asked_us and record.time_us - asked_us > _LONGEST_US:
            known = self._known
            if len(known) >= _MOST_ROOTS:
                known.pop(next(iter(known)), None)

            known[run.root_run_id] = known.get(run.root_run_id, 0) + 1

    def flush(self, timeout: float) -> bool:
        """Nothing is held."""
        return True

    def close(self, timeout: float) -> None:
        """Nothing is held."""

    def statistics(self) -> dict[str, int | float | str]:
        """Return the number of runs that go on in another trace."""
        return {"accepted": len(self._known), "dropped": 0}


class FlowSpan(NonRecordingSpan):
    """Stands for the span of whichever run is current; of ``run`` where none is (in a plain thread, say)."""

    def __init__(self, run: RunContext, sampler: Sampler | None, waits: LongWaits) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self._run = run
        self._sampler = sampler
        self._waits = waits
        self._last: tuple[RunContext | None, SpanContext] = (None, INVALID_SPAN_CONTEXT)

    def get_span_context(self) -> SpanContext:
        """Return the context of the current run's span. Never raises."""
        run = current_run.get() or self._run
        known, context = self._last
        if known is not run:
            try:
                context = _span_context(run, self._sampler, self._waits(run.root_run_id))
            except Exception:
                log.exception("flowdeck otlp: the span context of %r could not be made", run)
                return INVALID_SPAN_CONTEXT

            self._last = (run, context)

        return context

    def __repr__(self) -> str:
        return f"FlowSpan({self.get_span_context()!r})"


def run_entry(sampler: Sampler | None, waits: LongWaits) -> Callable[[RunContext], None]:
    """Return what an execution calls in the context its branches will inherit."""

    def enter(run: RunContext) -> None:
        otel_context.attach(set_span_in_context(FlowSpan(run, sampler, waits)))

    return enter


def _asked_us(payload: Any) -> float:
    """Return when the question was asked that an answer is for, 0 when it does not say."""
    times = [payload.get("paused_at"), *(record.get("created_at") for record in payload.get("interrupts") or ())]
    return min((time * 1e6 for time in times if isinstance(time, int | float) and time > 0), default=0.0)


def _span_context(run: RunContext, sampler: Sampler | None, generation: int) -> SpanContext:
    given: Any = run.meta.get("traceparent")
    caller = parse_traceparent(given) if isinstance(given, str) else None
    trace_id = trace_id_of(run.root_run_id) if caller is None else caller.trace_id
    sampled = sampler is None or sampler(trace_id, caller)
    if generation:  # after the mapper's: what is sampled is decided by the first trace
        trace_id = trace_id_of(run.root_run_id, generation)

    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, span_id_of(run.run_id), is_remote=False, trace_flags=flags)
