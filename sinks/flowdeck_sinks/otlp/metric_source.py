"""Metrics of an export: measured from final spans, read when they are due and encoded by the official encoder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowdeck.layout import library_version
from flowdeck_sinks.otlp.conventions import SCHEMA_URL, SCOPE_NAME
from flowdeck_sinks.otlp.metrics import Measurements

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["MetricSource"]

_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


class MetricSource:
    """The metrics of one export; the application's own providers are left alone."""

    def __init__(self, resource: Resource) -> None:
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._resource = resource
        self._scope = InstrumentationScope(SCOPE_NAME, library_version(), SCHEMA_URL)
        # "lowmemory" means delta for what we have: histograms.
        delta = os.environ.get(_TEMPORALITY, "").strip().lower() in ("delta", "lowmemory")
        self.measurements = Measurements(delta=delta)
        """Takes final spans; its ``active`` is set once the mapper exists."""

    def request(self) -> tuple[bytes, int] | None:
        """Return the metrics as an encoded request and its number of points; ``None`` when there are none."""
        from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

        data = self.measurements.collect(self._resource, self._scope)
        if data is None:
            return None

        points = sum(
            len(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
        return encode_metrics(data).SerializeToString(), points
