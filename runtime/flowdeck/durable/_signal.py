"""A flag that one thread waits for and anybody may set, also from inside setting it."""

from __future__ import annotations

import threading

__all__ = ["Signal"]


class Signal:
    """What ``threading.Event`` is to one waiting thread, in two calls of C; waiting takes the flag down again.

    An event holds a lock of its own while Python code sets it. The garbage collector may run right there, and with it
    the end of an abandoned run, which says so to the same control plane: setting the same event, in the same thread, it
    would wait for itself for ever. Here the flag *is* the lock.
    """

    __slots__ = ("_down",)

    def __init__(self) -> None:
        self._down = threading.Lock()
        self._down.acquire()

    def set(self) -> None:
        """Raise the flag. Never waits; from any thread, a signal handler or a finaliser."""
        if self._down.locked():
            try:
                self._down.release()
            except RuntimeError:
                pass  # somebody else was quicker

    def is_set(self) -> bool:
        """Tell whether the flag is up."""
        return not self._down.locked()

    def clear(self) -> None:
        """Take the flag down."""
        self._down.acquire(blocking=False)

    def wait(self, timeout: float = -1) -> bool:
        """Wait until the flag is up, at most ``timeout`` seconds if that is given, and take it down. Tell whether it
        was."""
        return self._down.acquire(timeout=timeout)
