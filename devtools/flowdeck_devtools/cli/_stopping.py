"""Ending work on Ctrl-C, SIGTERM or a closed terminal: cancelled and recorded, never torn off."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from flowdeck_devtools.cli._errors import Stopped

__all__ = ["run_stoppable"]

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in an event loop of its own; a signal cancels it and lets it clean up first.

    A second signal cancels the cleaning up, too.

    Raises:
        Stopped: a signal came; ``code`` is 128 plus its number.
    """
    return asyncio.run(_watched(work))


async def _watched(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has asked to outlive the terminal
            loop.add_signal_handler(number, stop, number)

    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Stopped(code=128 + received[0]) from None

        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
