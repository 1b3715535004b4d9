"""Run one audit: create the execution, pass its product events on, answer by policy, return the result.

This is the seam an application copies: a web handler or a worker does the same with its own ``on_event``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .flow import flow
from .interaction import is_product_event

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["Answer", "audit"]

Answer = Callable[[Any, Mapping[str, Any]], Coroutine[Any, Any, None]]
"""``answer(execution, interrupt)`` gives one interrupt its answer."""


async def audit(
    paths: Sequence[str] = (),
    out: str = "licence-audit",
    *,
    task_id: str | None = None,
    on_event: Callable[[Mapping[str, Any]], None] = lambda event: None,
    answer: Answer | None = None,
) -> dict[str, Any]:
    """Audit ``paths`` and return the summary that :func:`report.write` made.

    Without ``answer`` the run waits for people, who use DevTools or ``flowdeck interrupts answer``.

    Raises:
        AuditError: a path cannot be searched or the report cannot be written.
        asyncio.CancelledError: the caller gave up; the run is then closed as cancelled.
    """
    execution = flow.create_execution(auto_close_timeout=0.0, task_id=task_id, runtime_resources={"task_id": task_id})
    run = asyncio.gather(
        execution.async_start({"paths": list(paths), "out": out}),
        _listen(execution, on_event, answer),
    )
    try:
        snapshot, _ = await asyncio.shield(run)
    finally:
        # Harmless when it is done. Otherwise it stops what works, withdraws what people were asked, and is recorded.
        await execution.async_cancel(reason="the audit was stopped")
        await asyncio.wait([run])

    return dict(snapshot["summary"])


async def _listen(
    execution: TriggerFlowExecution, on_event: Callable[[Mapping[str, Any]], None], answer: Answer | None
) -> None:
    """Read the runtime stream to its end; it ends with the run, and raises what failed the run."""
    try:
        async with asyncio.TaskGroup() as answers:
            async for item in execution.get_async_runtime_stream(timeout=None):
                if is_product_event(item):
                    on_event(item)
                elif answer is not None and item.get("type") == "interrupt" and item.get("action") == "pause":
                    answers.create_task(answer(execution, item["interrupt"]))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # what failed the run, or an answer that could not be given
