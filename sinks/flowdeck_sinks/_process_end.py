"""How a process ends without losing what its sinks hold: at exit, at SIGTERM, in forked children."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, Protocol

__all__ = ["CLOSE_SECONDS", "close_sender_with_process", "close_with_process", "close_with_worker_process"]

CLOSE_SECONDS: Final = 5.0
"""Longest time the end of a process waits for all its sinks together."""
SEND_SECONDS: Final = 2.0
"""The part of it that may be waited for somebody else's server."""
LAST_WORDS_SECONDS: Final = 0.5
"""The part of it that is kept for the files to take what the senders had to give up, and to be closed."""
TERMINATE_SECONDS: Final = 2.0
"""The same at SIGTERM: whoever sends it soon sends SIGKILL."""


class Closable(Protocol):
    """What is asked of a sink here."""

    def close(self, timeout: float) -> None:
        """Write and let go, within ``timeout`` seconds. Closing twice does nothing."""

    def _after_fork(self) -> None:
        """Begin anew in a forked child."""


class Writer(Closable, Protocol):
    """What is asked of one that writes files, besides."""

    def _write_out(self, timeout: float) -> None:
        """Write what is there and go on, within ``timeout`` seconds; whoever waits for room waits no more."""


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_senders: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_sender_with_process(sink: Closable) -> None:
    """Close ``sink``, which sends what it holds, when the process ends.

    Between the files' last but one and last write: a server that does not answer must not take the time of a file, and
    what it did not take is still an event for the files.
    """
    _senders.add(sink)
    _at_sigterm()


def close_with_process(sink: Writer) -> None:
    """Close ``sink``, which writes files, when the process ends, by any way that lets it act.

    That includes SIGTERM when nobody handles it: its default action would end the process without ``atexit``. Python
    runs such a handler in the main thread only, and only that thread may set it; a sink made elsewhere does without.
    """
    _writers.add(sink)
    _at_sigterm()


def _at_sigterm() -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with suppress(ValueError):  # a sub-interpreter
            signal.signal(signal.SIGTERM, _terminate)


def close_with_worker_process(sink: object, close_all: Callable[[], None] | None = None) -> None:
    """Close with a multiprocessing child too: it ends without running atexit.

    Args:
        close_all: closes the sinks of that kind; by default those of :func:`close_with_process`.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(sink, close_all or _close_all, exitpriority=0)


def _close_all(seconds: float = CLOSE_SECONDS) -> None:
    end = time.monotonic() + seconds
    reserved = end - LAST_WORDS_SECONDS
    for writer in list(_writers):
        writer._write_out(_left(reserved))

    send_until = min(reserved, time.monotonic() + SEND_SECONDS)
    for sender in list(_senders):
        sender.close(_left(send_until))

    for writer in list(_writers):
        writer.close(_left(end))


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _terminate(number: int, frame: FrameType | None) -> None:
    """Close the sinks, then die of the signal as if nobody had handled it."""
    # In a thread: this one may have been interrupted while it held a sink's lock.
    closing = threading.Thread(target=_close_all, args=(TERMINATE_SECONDS,), daemon=True)
    with suppress(RuntimeError):  # the interpreter is ending, and closes them itself
        closing.start()
        closing.join(TERMINATE_SECONDS)
    if signal.getsignal(number) is _terminate:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _reset_all() -> None:
    for sink in (*_writers, *_senders):
        sink._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_reset_all)
