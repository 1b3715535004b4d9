"""What observers are told of a step: started, completed, failed, diverged.

An event nobody wants costs one look at its sinks. The sequence numbers are the core's, wanted or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowdeck.errors import HandlerDiverged
from flowdeck.events.lineage import RunContext
from flowdeck.execution.observation import SOURCE, FlowEvents
from flowdeck.execution.state import CANCELLING, Task

if TYPE_CHECKING:
    from flowdeck.definition.plan import PlanOp
    from flowdeck.execution.core import Core
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.services import Services

__all__ = ["StepEvents"]


class StepEvents:
    """The part of a driver that tells of its steps."""

    __slots__ = ()

    if TYPE_CHECKING:
        core: Core
        events: FlowEvents
        execution: TriggerFlowExecution
        services: Services

    def _emit_started(self, task: Task, op: PlanOp, run: RunContext) -> None:
        event = self.events.chunk_started
        if event.sinks:
            event.emit(
                {"signal_id": f"s{task.sig}", "status": "running", "input": task.value, "signal_source": task.source},
                op.fragment,
                run,
                self.execution._epoch,
                task.seq,
                0,
                self.core.scope(task),
                task.cause,
                task.attempt,
                None,
                None,
                None,
                None,
                SOURCE,
            )

    def _emit_completed(self, task: Task, op: PlanOp, run: RunContext, result: Any, begun: int) -> None:
        paused = task.interrupt is not None
        payload = {
            "signal_id": f"s{task.sig}",
            "status": "waiting" if paused else "completed",
            "output": None if paused else result,
            "returned_pause_signal": paused,
        }
        self.events.chunk_completed.emit(
            payload,
            op.fragment,
            run,
            self.execution._epoch,
            self.core.seq + 1,
            0,
            self.core.scope(task),
            task.seq,
            task.attempt,
            (self.services.clock.monotonic_ns() - begun) // 1000,
            None,
            None,
            None,
            SOURCE,
        )

    def _tell_diverged(self, task: Task, op: PlanOp, run: RunContext, exc: HandlerDiverged) -> None:
        payload = {"chunk_id": op.id, "chunk_name": op.name, "scope": self.core.scope(task)}
        self.execution._emit_event(self.events.handler_diverged, payload, run=run, message=str(exc), error=exc)

    def _emit_failed(
        self, task: Task, op: PlanOp, run: RunContext, exc: BaseException, begun: int, delay: float | None
    ) -> None:
        event = self.events.chunk_failed
        if not event.sinks:
            return

        propagated = getattr(exc, "_flowdeck_origin", None)
        if propagated is None:
            try:
                exc._flowdeck_origin = run.run_id  # type: ignore[attr-defined]
            except AttributeError:
                pass  # an exception with slots: its propagation cannot be told apart

        payload = {
            "signal_id": f"s{task.sig}",
            "status": "cancelled" if task.status == CANCELLING else "failed",
            "will_retry": delay is not None,
            "retry_delay_s": delay,
            "propagated_from": propagated,
        }
        event.emit(
            payload,
            op.fragment,
            run,
            self.execution._epoch,
            self.core.seq + 1,
            0,
            self.core.scope(task),
            task.seq,
            task.attempt,
            (self.services.clock.monotonic_ns() - begun) // 1000 if begun else None,
            f"chunk {op.name!r} failed: {type(exc).__name__}: {exc}"[:500],
            exc if propagated is None else _without_traceback(exc),
            None,
            SOURCE,
        )


def _without_traceback(exc: BaseException) -> dict[str, Any]:
    """Describe an error that came from a chunk further in: that chunk's event has the traceback.

    Each level adds frames, so through a thousand nested emits formatting them all would take minutes.
    """
    return {"type": type(exc).__name__, "message": str(exc), "module": type(exc).__module__}
