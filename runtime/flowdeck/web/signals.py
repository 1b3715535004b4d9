"""Hearing of Ctrl-C and SIGTERM before the server that handles them acts on them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["on_stop_signals"]


@contextmanager
def on_stop_signals(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> Iterator[None]:
    """Call on ``loop`` when the process is told to stop, then do what would have been done without us.

    Outside the main thread nothing is heard: who runs a server there stops it, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}

    def told(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        theirs = before[signal.Signals(number)]
        if callable(theirs):
            theirs(number, frame)

    heard = [sig for sig, handler in before.items() if callable(handler)]  # the default action needs no help
    for sig in heard:
        signal.signal(sig, told)

    try:
        yield
    finally:
        for sig in heard:
            if signal.getsignal(sig) is told:
                signal.signal(sig, before[sig])
