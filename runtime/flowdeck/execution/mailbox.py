"""Completions of commits on their way from the store's thread to event loops."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["Mailbox", "mailbox", "together"]

_log = logging.getLogger("flowdeck.durable")


class Mailbox:
    """Calls on their way to one event loop: one wake-up for all of a transaction."""

    __slots__ = ("_loop", "_posted", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # the table of mailboxes must not keep loops that have ended
        self._posted = False
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Let the loop make a call. From any thread."""
        self._waiting.append((call, arguments))
        held: dict[Mailbox, None] | None = getattr(_holding, "boxes", None)
        if held is not None:
            held[self] = None
        else:
            self._wake()

    def _wake(self) -> None:
        if not self._posted:
            self._posted = True
            loop = self._loop()
            try:
                if loop is None:
                    self._drain()
                else:
                    loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                self._drain()

    def _drain(self) -> None:
        self._posted = False  # first, so that what comes while we drain wakes the loop again
        for _ in range(len(self._waiting)):
            try:
                call, arguments = self._waiting.popleft()
            except IndexError:  # another thread drains, too: the loop has ended
                return

            try:
                call(*arguments)
            except Exception:  # those behind it are of other executions
                _log.exception("an execution could not be told of its commit")


_holding = threading.local()
_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


@contextmanager
def together() -> Iterator[None]:
    """Wake loops only at the end, for all this thread has posted meanwhile.

    A loop that is woken by the first completion of a transaction goes on with that one alone: its next commit misses
    those of the others, and every group of commits falls apart into smaller ones.
    """
    held: dict[Mailbox, None] = {}
    _holding.boxes = held
    try:
        yield
    finally:
        _holding.boxes = None
        for box in held:
            box._wake()


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    found = _mailboxes.get(loop)
    if found is None:
        found = _mailboxes.setdefault(loop, Mailbox(loop))

    return found
