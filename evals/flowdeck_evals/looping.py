"""An event loop that ends even when a target does not."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, TypeVar

__all__ = ["run_loop"]

T = TypeVar("T")
LEAVE_SECONDS: Final = 0.5


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in a loop of its own, like :func:`asyncio.run`; what ignores its cancellation is left behind.

    ``asyncio.run`` waits for every task without end, so one deaf target would keep a finished session from its exit.
    """
    import asyncio  # a third of what `evals list` would cost

    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()

            if left:
                _, deaf = loop.run_until_complete(asyncio.wait(left, timeout=LEAVE_SECONDS))
                for task in deaf:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # said already, as the round's state

            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
