"""Run one audit: create the execution, pass its product events on, answer by policy, return the result.

This is the seam an application copies: a web handler or a worker does the same with its own ``on_event``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .flow import flow
from .interaction import is_product_event

__all__ = ["Answer", "audit"]

Answer = Callable[[Any, Mapping[str, Any]], Awaitable[None]]
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
    listener = asyncio.create_task(_listen(execution, on_event, answer))
    try:
        snapshot = await execution.async_start({"paths": list(paths), "out": out})
    finally:
        # A failed or cancelled run is still open: closing it ends the stream and withdraws its questions.
        await execution.async_close(pending_interrupts="cancel")
        await listener

    return dict(snapshot["summary"])


async def _listen(execution: Any, on_event: Callable[[Mapping[str, Any]], None], answer: Answer | None) -> None:
    answers: list[asyncio.Task[None]] = []
    async for item in execution.get_async_runtime_stream(timeout=None):
        if is_product_event(item):
            on_event(item)
        elif answer is not None and item.get("type") == "interrupt" and item.get("action") == "pause":
            answers.append(asyncio.ensure_future(answer(execution, item["interrupt"])))  # type: ignore[arg-type]

    await asyncio.gather(*answers)
