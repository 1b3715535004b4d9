"""Synchronous twins of readers: an event loop of their own, which leaves no connection behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any, Final, TypeVar

from flowdeck.execution.sync import run_sync

__all__ = ["closing", "in_a_thread"]

T = TypeVar("T")
_END: Final = object()


async def closing(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine``, then close the connections of this event loop."""
    from flowdeck.models.pydantic_ai import close_models

    try:
        return await coroutine
    finally:
        await close_models()


def in_a_thread(make: Callable[[], AsyncIterator[Any]]) -> Iterator[Any]:
    """Iterate over what ``make()`` yields in a thread of its own; it goes on there when nobody iterates any more."""
    items: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    async def pump() -> None:
        problem: BaseException | None = None
        try:
            async for item in make():
                items.put((item, None))
        except BaseException as raised:
            problem = raised
        finally:
            items.put((_END, problem))

    context = copy_context()
    arguments = (run_sync, closing(pump()))
    threading.Thread(target=context.run, args=arguments, name="flowdeck-generator", daemon=True).start()
    return _drained(items)


def _drained(items: queue.SimpleQueue[tuple[Any, BaseException | None]]) -> Iterator[Any]:
    while True:
        item, problem = items.get()
        if problem is not None:
            raise problem

        if item is _END:
            return

        yield item
