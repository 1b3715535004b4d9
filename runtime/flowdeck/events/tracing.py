"""W3C trace context at the border: the traced call that starts a run, without depending on OpenTelemetry."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["TRACEPARENT", "current_traceparent"]

TRACEPARENT: Final = "traceparent"
"""Key in a run's meta, inherited by every child and saved with the execution."""


def current_traceparent() -> str | None:
    """Return the ``traceparent`` of the current OpenTelemetry span, ``None`` without one.

    OpenTelemetry is looked up and never imported: where nobody has loaded it, there is no current span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None

    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None

        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"
    except Exception:  # half imported, or a span of somebody else's making
        return None
