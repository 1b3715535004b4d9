"""The current OpenTelemetry span inside a flow: what a handler calls nests under the step that called it.

One :class:`FlowSpan` is put into the OpenTelemetry context of an execution's branches, once per execution. It knows no
ids: asked for its span context it looks at the run that is current then, whose ids are hashes of its identity. So a
step costs nothing, and an HTTP client's instrumentation, ``propagate.inject`` or a tracer of the application's own all
see the step they are called from, whose span is exported when the step has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from flowdeck.events.lineage import RunContext, current_run
from flowdeck_sinks.otlp.ids import parse_traceparent, span_id_of, trace_id_of
from flowdeck_sinks.otlp.sampling import Sampler

__all__ = ["FlowSpan", "run_entry"]

log = logging.getLogger("flowdeck.sinks.otlp")


class FlowSpan(NonRecordingSpan):
    """Stands for the span of whichever run is current; of ``run`` where none is (in a plain thread, say)."""

    def __init__(self, run: RunContext, sampler: Sampler | None) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self._run = run
        self._sampler = sampler
        self._last: tuple[RunContext | None, SpanContext] = (None, INVALID_SPAN_CONTEXT)

    def get_span_context(self) -> SpanContext:
        """Return the context of the current run's span. Never raises."""
        run = current_run.get() or self._run
        known, context = self._last
        if known is not run:
            try:
                context = _span_context(run, self._sampler)
            except Exception:
                log.exception("flowdeck otlp: the span context of %r could not be made", run)
                return INVALID_SPAN_CONTEXT

            self._last = (run, context)

        return context

    def __repr__(self) -> str:
        return f"FlowSpan({self.get_span_context()!r})"


def run_entry(sampler: Sampler | None) -> Callable[[RunContext], None]:
    """Return what an execution calls in the context its branches will inherit."""

    def enter(run: RunContext) -> None:
        otel_context.attach(set_span_in_context(FlowSpan(run, sampler)))

    return enter


def _span_context(run: RunContext, sampler: Sampler | None) -> SpanContext:
    given: Any = run.meta.get("traceparent")
    caller = parse_traceparent(given) if isinstance(given, str) else None
    trace_id = trace_id_of(run.root_run_id) if caller is None else caller.trace_id
    sampled = sampler is None or sampler(trace_id, caller)
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, span_id_of(run.run_id), is_remote=False, trace_flags=flags)
