"""From remembered state to final ``ReadableSpan`` objects. Pure: what is built depends on the state alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from flowdeck_sinks.otlp import conventions as names
from flowdeck_sinks.otlp.attributes import Trouble, identity, outcome, span_name
from flowdeck_sinks.otlp.content import Limits, clip
from flowdeck_sinks.otlp.ids import part_span_id, span_id_of
from flowdeck_sinks.otlp.kinds import KINDS
from flowdeck_sinks.otlp.state import RunState, SpanNote, TraceState, WaitState, retry_key

__all__ = ["SpanBuilder", "Trouble", "error_key"]

STACK_LIMIT: Final = 16_384
"""Characters of a traceback, from its end."""
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
_UNSET: Final = Status(StatusCode.UNSET)
_LATER: Final = (
    names.SEGMENTS,
    names.EPOCH,
    names.OUTPUT_VALUE,
    names.OUTPUT_MIME,
    names.OUTPUT_CUT,
    names.OUTPUT_BLOB,
)
"""What an execution's earlier traces cannot know."""


def _library_version() -> str:
    try:
        return version("flowdeck")
    except PackageNotFoundError:
        return "0"


class SpanBuilder:
    """Builds spans under one resource; runs of other writers carry their writer as ``service.instance.id``."""

    def __init__(self, resource: Resource, limits: Limits, *, exceptions: bool = True) -> None:
        name = str(resource.attributes.get("service.name") or "")
        if not name or name.startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "flowdeck"}))

        self.resource = resource
        self.limits = limits
        self._exceptions = exceptions
        self.scope = InstrumentationScope(names.SCOPE_NAME, _library_version(), names.SCHEMA_URL)
        self._last_parent: SpanContext | None = None
        self.resource_of = lru_cache(maxsize=1024)(self._resource_of)

    def _resource_of(self, writer: str) -> Resource:
        return self.resource.merge(Resource({"service.instance.id": writer})) if writer else self.resource

    # -- runs --------------------------------------------------------------------------------------------------------

    def run_span(
        self,
        trace: TraceState,
        run: RunState,
        trouble: Trouble | None = None,
    ) -> ReadableSpan:
        """Return the span of a run: its start to its end, or to the last event seen of it."""
        kind = KINDS.get(run.kind)
        end_us = run.end_us or max(run.last_us, run.below_us)
        attributes = identity(run, kind, self.limits)
        start_us = run.start_us
        if not start_us:
            if run.end_us and run.duration_us >= 0:
                start_us = run.end_us - run.duration_us
            else:
                start_us = min(run.first_us or end_us, end_us)

            if kind is not None:
                attributes[names.START_MISSING] = True

        status = outcome(run, attributes, trouble if kind is not None or run.ghost else None)
        generation = 0
        if trace.breaks:
            generation = self.generation_of(trace, run, start_us)
            if run.run_id == trace.root_run_id and generation:
                start_us = trace.breaks[generation - 1][0]
                attributes[names.CONTINUATION] = generation

        trace_id = trace.trace_id(generation)
        flags = _UNSAMPLED if trace.sampled is False else _SAMPLED
        span_id, parent, links = self._place(trace, run, generation, trace_id, flags)
        return ReadableSpan(
            name=span_name(run, kind),
            context=SpanContext(trace_id, span_id, False, flags),
            parent=parent,
            resource=self.resource_of(run.writer),
            attributes=attributes,
            events=self._events(run, attributes),
            links=links,
            kind=SpanKind.CLIENT if kind is not None and kind.client else SpanKind.INTERNAL,
            status=status,
            start_time=start_us * 1000,
            end_time=max(start_us, end_us) * 1000,
            instrumentation_scope=self.scope,
        )

    def generation_of(self, trace: TraceState, run: RunState, start_us: int) -> int:
        """Return which trace of a very long run a span belongs to; the root's own last span ends the newest."""
        return len(trace.breaks) if run.run_id == trace.root_run_id else trace.generation(start_us)

    def context_of(self, trace: TraceState, run: RunState, generation: int = 0, sampled: bool = True) -> SpanContext:
        """Return the context of a run's span."""
        span_id = run.span_id
        if generation and run.run_id == trace.root_run_id:
            span_id = part_span_id(run.run_id, "trace", generation)

        return SpanContext(trace.trace_id(generation), span_id, False, _SAMPLED if sampled else _UNSAMPLED)

    def _place(
        self, trace: TraceState, run: RunState, generation: int, trace_id: int, flags: TraceFlags
    ) -> tuple[int, SpanContext | None, tuple[Link, ...]]:
        """Return span id, parent and links."""
        span_id = run.span_id
        links: list[Link] = []
        root_id = part_span_id(trace.root_run_id, "trace", generation) if generation else 0
        if run.run_id == trace.root_run_id:
            parent = None
            if generation:
                span_id = root_id
                links.append(self._previous_trace(trace, run, generation, flags))
            else:
                caller = trace.caller
                if caller is not None:
                    parent = SpanContext(caller.trace_id, caller.span_id, True, flags)
        else:
            parent_run = trace.runs.get(run.parent_run_id or "")
            parent_id = parent_run.span_id if parent_run is not None else span_id_of(run.parent_run_id or "")
            if generation:
                began = _start_of(trace, run.parent_run_id, parent_run)
                if began is None or trace.generation(began) != generation:  # the parent's span is in an earlier trace
                    if run.parent_run_id != trace.root_run_id:
                        earlier_id = trace.trace_id(0 if began is None else trace.generation(began))
                        links.append(_link(SpanContext(earlier_id, parent_id, False, flags), "parent_run"))

                    parent_id = root_id

            parent = self._parent(trace_id, parent_id, flags)
            if run.attempt > 1 and trace.retries:
                earlier = trace.retries.get(retry_key(run.execution_id, run.scope, run.attempt - 1))
                if earlier is not None:
                    links.append(_link(SpanContext(trace_id, earlier, False, flags), "retry_of"))

        return span_id, parent, tuple(links) if links else ()

    def _parent(self, trace_id: int, span_id: int, flags: TraceFlags) -> SpanContext:
        """Return a parent's context. Siblings come in a row, so the last one is kept."""
        context = self._last_parent
        if context is None or context[1] != span_id or context[0] != trace_id or context[3] is not flags:
            context = self._last_parent = SpanContext(trace_id, span_id, False, flags)

        return context

    def _previous_trace(self, trace: TraceState, run: RunState, generation: int, flags: TraceFlags) -> Link:
        before = generation - 1
        span_id = part_span_id(run.run_id, "trace", before) if before else run.span_id
        return _link(SpanContext(trace.trace_id(before), span_id, False, flags), "previous_trace")

    def _events(self, run: RunState, out: dict[str, Any]) -> tuple[SpanEvent, ...]:
        """Return the span events in order; the exception only where the error came from."""
        notes = run.notes
        if notes is None and run.outcome != "failed":
            return ()

        tells = (
            self._exceptions
            and run.outcome == "failed"
            and not run.propagated
            and (run.error_type or run.error_message) is not None
        )
        if tells and run.child_errors and error_key(run) in run.child_errors:
            tells = False

        if notes is None and not tells:
            return ()

        dropped = run.notes_dropped
        ordered: list[SpanNote] = [notes[key] for key in sorted(notes, key=lambda k: (notes[k][0], k))] if notes else []
        if tells:
            ordered.append((run.end_us or run.last_us, "exception", self._exception(run)))

        if dropped:
            out[names.EVENTS_DROPPED] = dropped

        return tuple(SpanEvent(name, attributes, time_us * 1000) for time_us, name, attributes in ordered)

    def _exception(self, run: RunState) -> dict[str, Any]:
        kind = run.error_type or "_OTHER"
        module = run.error_module
        out = {names.EXCEPTION_TYPE: kind if not module or module == "builtins" else f"{module}.{kind}"}
        if run.error_message is not None:
            out[names.EXCEPTION_MESSAGE] = clip(run.error_message, self.limits.value)

        if run.error_stack is not None:
            out[names.EXCEPTION_STACKTRACE] = clip(run.error_stack[-STACK_LIMIT:], STACK_LIMIT)

        return out

    # -- parts of an execution ---------------------------------------------------------------------------------------

    def segment_span(
        self,
        trace: TraceState,
        run: RunState,
        number: int,
        start_us: int,
        end_us: int,
        reason: str,
        writer: str,
    ) -> ReadableSpan:
        """Return the span of one active period of an execution."""
        attributes = {names.SEGMENT: number, names.SEGMENT_END: reason}
        links = []
        if number > 1:
            links.append((part_span_id(run.run_id, "segment", number - 1), "previous_segment"))

        if reason == "lost":
            attributes |= {names.INCOMPLETE: True, names.INCOMPLETE_REASON: "process_lost"}

        name = f"{self._flow(run)} segment {number}".strip()
        return self._part(trace, run, name, "segment", number, start_us, end_us, attributes, links, writer)

    def wait_span(
        self, trace: TraceState, run: RunState, wait: WaitState, incomplete: str | None = None
    ) -> ReadableSpan:
        """Return the span of a question: from its asking to its answer."""
        attributes: dict[str, Any] = {
            names.INTERRUPT_ID: clip(wait.interrupt_id, self.limits.value),
            names.WAIT_RESOLUTION: wait.resolution or ("incomplete" if incomplete else "answered"),
        }
        for name, value in (
            (names.WAIT_KIND, wait.kind),
            (names.STEP_NAME, wait.step),
            (names.WAIT_ACTOR, wait.actor),
        ):
            if value is not None:
                attributes[name] = clip(value, self.limits.value)

        end_us = wait.end_us or wait.start_us
        start_us = wait.start_us or end_us
        if not wait.start_us:
            attributes[names.START_MISSING] = True

        if incomplete is not None:
            attributes |= {names.INCOMPLETE: True, names.INCOMPLETE_REASON: incomplete}

        name = f"wait {clip(wait.kind, 128)}" if wait.kind else "wait"
        return self._part(
            trace, run, name, "wait", wait.interrupt_id, start_us, max(start_us, end_us), attributes, [], wait.writer
        )

    def earlier_root_span(
        self, trace: TraceState, run: RunState, generation: int, start_us: int, end_us: int
    ) -> ReadableSpan:
        """Return the root span of a trace that a very long wait ended."""
        flags = _UNSAMPLED if trace.sampled is False else _SAMPLED
        trace_id = trace.trace_id(generation)
        span_id, parent, links = self._place(trace, run, generation, trace_id, flags)
        attributes = identity(run, KINDS.get(run.kind), self.limits)
        for name in _LATER:
            attributes.pop(name, None)

        attributes |= {names.OUTCOME: "waiting", names.CONTINUATION: generation}
        return ReadableSpan(
            name=span_name(run, KINDS.get(run.kind)),
            context=SpanContext(trace_id, span_id, False, flags),
            parent=parent,
            resource=self.resource_of(trace.break_writers.get(trace.breaks[generation][0], run.writer)),
            attributes=attributes,
            links=links,
            status=_UNSET,
            start_time=start_us * 1000,
            end_time=max(start_us, end_us) * 1000,
            instrumentation_scope=self.scope,
        )

    def _part(
        self,
        trace: TraceState,
        run: RunState,
        name: str,
        kind: str,
        ordinal: int | str,
        start_us: int,
        end_us: int,
        attributes: Mapping[str, Any],
        links: list[tuple[int, str]],
        writer: str,
    ) -> ReadableSpan:
        """Return a child span of an execution's span that is no run of its own."""
        generation = trace.generation(start_us) if trace.breaks else 0
        trace_id = trace.trace_id(generation)
        flags = _UNSAMPLED if trace.sampled is False else _SAMPLED
        parent_id = run.span_id
        linked = trace_id
        if generation:
            if start_us == trace.breaks[generation - 1][0]:  # the first segment after the wait
                linked = trace.trace_id(generation - 1)

            same = run.run_id != trace.root_run_id and trace.generation(run.start_us or run.first_us) == generation
            parent_id = run.span_id if same else part_span_id(trace.root_run_id, "trace", generation)

        out: dict[str, Any] = {
            names.SPAN_KIND: "CHAIN",
            names.RUN_ID: run.run_id,
            names.RUN_KIND: run.kind,
            names.FLOW_NAME: self._flow(run),
            **attributes,
        }
        if run.execution_id is not None:
            out[names.EXECUTION_ID] = run.execution_id

        if run.session_id is not None:
            out[names.SESSION_ID] = run.session_id

        user = run.meta.get("user_id")
        if isinstance(user, str):
            out[names.USER_ID] = user

        return ReadableSpan(
            name=name,
            context=SpanContext(trace_id, part_span_id(run.run_id, kind, ordinal), False, flags),
            parent=SpanContext(trace_id, parent_id, False, flags),
            resource=self.resource_of(writer),
            attributes=out,
            links=tuple(_link(SpanContext(linked, span_id, False, flags), how) for span_id, how in links),
            status=_UNSET,
            start_time=start_us * 1000,
            end_time=max(start_us, end_us) * 1000,
            instrumentation_scope=self.scope,
        )

    def _flow(self, run: RunState) -> str:
        return clip(str(run.meta.get("flow_name") or ""), 200)


def error_key(run: RunState) -> str:
    """Return what tells one error from another on its way outwards."""
    return f"{run.error_type}\0{(run.error_message or '')[:200]}"


def _start_of(trace: TraceState, run_id: str | None, run: RunState | None) -> int | None:
    """Return when a parent began, ``None`` for the root, whose traces all have a root of their own, and if unknown."""
    if run_id is None or run_id == trace.root_run_id:
        return None

    return trace.starts.get(run_id) if run is None else run.start_us or run.first_us


def _link(context: SpanContext, kind: str) -> Link:
    return Link(context, {names.LINK_KIND: kind})
