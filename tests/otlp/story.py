"""Events of flow executions through a real Event Center, and waiting for what comes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowdeck.events import EventCenter, Fragment, RunContext
from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.sink import OTLPSink

TRACES_ONLY = {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_BSP_SCHEDULE_DELAY": "50"}
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRICS_EXPORTER": "none"}


def settings(endpoint: str | None = None, **environ: str) -> OtlpSettings:
    """Return settings for traces only; keywords are further variables."""
    return OtlpSettings.from_environment(endpoint, environ={**TRACES_ONLY, **environ})


class Teller:
    """Tells of executions; each has a root span and ``steps`` step spans."""

    def __init__(self, *sinks: Any) -> None:
        self.center = EventCenter()
        for sink in sinks:
            self.center.add_sink(sink)

        self.count = 0
        self.spans = 0

    def execution(self, steps: int = 3, flow: str = "audit", *, text: str = "", finish: bool = True) -> RunContext:
        """Emit one execution and return its run; ``text`` is what every step returns."""
        self.count += 1
        name = f"{flow}-{self.count}"
        run = RunContext.create(run_kind="workflow_execution", execution_id=name, meta={"flow_name": flow})
        told = {"run": run, "epoch": 1}
        self._emit("triggerflow.execution_started", {"initial_value": self.count}, seq=1, **told)
        static = Fragment({"flow_name": flow, "chunk_name": "step", "chunk_id": "op-step"})
        for number in range(steps):
            attempt = RunContext.attempt(run, "chunk_execution", static)
            where = {"run": attempt, "epoch": 1, "scope": f"step#{number}", "attempt": 1}
            self._emit("chunk.started", {"input": number}, seq=2 + 2 * number, **where)
            self._emit("chunk.completed", {"output": text}, seq=3 + 2 * number, duration_us=10, **where)
            self.spans += 1

        if finish:
            self._emit("triggerflow.execution_completed", {"result": 1}, seq=2 * steps + 2, duration_us=99, **told)
            self._emit("triggerflow.execution_closed", {"status": "completed"}, seq=2 * steps + 3, **told)
            self.spans += 1

        return run

    def _emit(self, name: str, payload: dict[str, Any], **fields: Any) -> None:
        self.center.type(name).emit(payload, **fields)


def stored(store: Path, executions: int, steps: int = 3, **options: Any) -> int:
    """Write executions into a store and return how many spans they are."""
    sink = JournalSink(store, publish=False, **options)
    teller = Teller(sink)
    for _ in range(executions):
        teller.execution(steps)

    sink.close(5.0)
    return teller.spans


def memory_sink(endpoint: str | None, **environ: str) -> OTLPSink:
    """Return a sink in memory mode, for traces only."""
    return OTLPSink(settings=settings(endpoint, FLOWDECK_OTLP_MODE="memory", **environ))
