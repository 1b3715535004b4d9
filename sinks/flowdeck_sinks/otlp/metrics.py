"""Measurements: durations and tokens, taken from final spans; open executions, read when a collector asks.

A span leaves the mapper once, sampled or not, so nothing is counted twice by a replay or missed by sampling. Run,
session and user ids are never attributes of a metric: their number has no bound.

The sums are kept here and handed over as the SDK's own data classes: an instrument of the SDK costs 7 us a record, as
much as encoding the whole span; this costs one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from time import time_ns
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from flowdeck_sinks.otlp import conventions as names

__all__ = ["BOUNDARIES", "Measurements"]

BOUNDARIES: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds: from a quick step to an hour."""
TOKEN_BOUNDARIES: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""Source: semantic conventions for GenAI metrics."""
CARDINALITY: Final = 2000
"""Attribute sets of one metric; what is beyond is summed under ``otel.metric.overflow``. Source: metrics SDK."""
_FLOWS: Final = "gen_ai.workflow.duration"
_BY_KIND: Final = {
    "workflow_execution": _FLOWS,
    "chunk_execution": "flow.step.duration",
    "action": "gen_ai.execute_tool.duration",
    "agent_turn": "gen_ai.invoke_agent.duration",
    "model_request": "gen_ai.client.operation.duration",
}
_WAIT: Final = "flow.wait.duration"
_TOKENS: Final = "gen_ai.client.token.usage"
_ACTIVE: Final = "flow.runs.active"
_OVERFLOW: Final = {"otel.metric.overflow": True}


class _Series:
    """The values of one metric under one set of attributes."""

    __slots__ = ("attributes", "buckets", "count", "high", "low", "total")

    def __init__(self, attributes: dict[str, Any], size: int) -> None:
        self.attributes = attributes
        self.count = 0
        self.total: float = 0
        self.low: float = 0
        self.high: float = 0
        self.buckets = [0] * (size + 1)


class Measurements:
    """The instruments of :data:`~flowdeck_sinks.otlp.conventions.INSTRUMENTS`. Any thread may call.

    Args:
        active: open executions by flow name; :meth:`SpanMapper.active <flowdeck_sinks.otlp.mapper.SpanMapper.active>`.
        delta: histograms begin anew with each :meth:`collect` instead of growing.
    """

    def __init__(self, active: Callable[[], Mapping[str, int]] | None = None, *, delta: bool = False) -> None:
        self.active = active
        self._delta = delta
        self._since_ns = time_ns()
        self._lock = threading.Lock()
        self._series: dict[str, dict[tuple[Any, ...], _Series]] = {
            item.name: {} for item in names.INSTRUMENTS.values() if item.kind == "histogram"
        }

    def record(self, span: ReadableSpan) -> None:
        """Take the measurements of one final span. Give it to a mapper as ``on_final``."""
        attributes: Mapping[str, Any] = span.attributes or {}
        if names.WAIT_RESOLUTION in attributes:
            metric = _WAIT
        elif names.SEGMENT in attributes:
            return
        else:
            metric = _BY_KIND.get(attributes.get(names.RUN_KIND, ""), "")
            if not metric or (metric == _FLOWS and attributes.get(names.OUTCOME) == "waiting"):
                return  # a kind that is not measured, or a flow that goes on in another trace

        measured = attributes.get(names.DURATION_US)
        if measured is None:
            measured = ((span.end_time or 0) - (span.start_time or 0)) / 1000

        with self._lock:
            self._add(metric, attributes, measured / 1e6, BOUNDARIES)
            if metric == "gen_ai.client.operation.duration":
                for kind, name in (("input", names.INPUT_TOKENS), ("output", names.OUTPUT_TOKENS)):
                    count = attributes.get(name)
                    if count is not None:
                        self._add(_TOKENS, {**attributes, names.TOKEN_TYPE: kind}, count, TOKEN_BOUNDARIES)

    def _add(self, metric: str, attributes: Mapping[str, Any], value: float, bounds: tuple[float, ...]) -> None:
        wanted = names.INSTRUMENTS[metric].attributes
        key = tuple([attributes.get(name) for name in wanted])
        known = self._series[metric]
        series = known.get(key)
        if series is None:
            shown = {name: value for name, value in zip(wanted, key, strict=True) if value is not None}
            if len(known) >= CARDINALITY:
                key, shown = (), _OVERFLOW

            series = known.get(key)
            if series is None:
                series = known[key] = _Series(shown, len(bounds))

        series.low = value if not series.count or value < series.low else series.low
        series.high = value if not series.count or value > series.high else series.high
        series.count += 1
        series.total += value
        series.buckets[bisect_left(bounds, value)] += 1

    def collect(self, resource: Resource, scope: InstrumentationScope) -> MetricsData | None:
        """Return what was measured, as the SDK's exporters take it; ``None`` when there is nothing."""
        now = time_ns()
        with self._lock:
            metrics = [
                self._histogram(name, series, now)
                for name, known in self._series.items()
                if (series := [*known.values()])
            ]
            if self._delta:
                self._since_ns = now
                for known in self._series.values():
                    known.clear()

        counts = {} if self.active is None else self.active()
        if counts:
            item = names.INSTRUMENTS[_ACTIVE]
            points = [NumberDataPoint({names.FLOW_NAME: flow}, 0, now, number) for flow, number in counts.items()]
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=False)
            metrics.append(Metric(item.name, item.summary, item.unit, data))

        if not metrics:
            return None

        url = scope.schema_url or ""
        return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, url)], resource.schema_url)])

    def _histogram(self, name: str, known: list[_Series], now: int) -> Metric:
        item = names.INSTRUMENTS[name]
        bounds = TOKEN_BOUNDARIES if name == _TOKENS else BOUNDARIES
        temporality = AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
        points = [
            HistogramDataPoint(
                series.attributes, self._since_ns, now, series.count, series.total, tuple(series.buckets), bounds,
                series.low, series.high,
            )
            for series in known
        ]  # fmt: skip
        return Metric(item.name, item.summary, item.unit, Histogram(points, temporality))
