"""Completions of commits on their way from the store's thread to event loops."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from flowdeck.execution.input_log import InputLog

__all__ = ["Mailbox", "mailbox"]


class Mailbox:
    """Completions on their way to one event loop: one wake-up for all of a transaction."""

    __slots__ = ("_loop", "_posted", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # the table of mailboxes must not keep loops that have ended
        self._posted = False
        self._waiting: deque[tuple[InputLog, BaseException | None]] = deque()

    def post(self, log: InputLog, error: BaseException | None) -> None:
        self._waiting.append((log, error))
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
            log, error = self._waiting.popleft()
            log._completed(error)


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    found = _mailboxes.get(loop)
    if found is None:
        found = _mailboxes.setdefault(loop, Mailbox(loop))

    return found
