"""Executions that another process has taken over while this one was held up: they end here, quietly.

Who commits finds out by being refused. One that only waits commits nothing, so its handles, its readers and its host
would never hear of it; the host therefore looks after each beat.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flowdeck.errors import ExecutionFenced

if TYPE_CHECKING:
    from flowdeck.durable._hosted import HostedStore
    from flowdeck.durable.host import Hosted

__all__ = ["overtaken", "tell_overtaken"]


def overtaken(store: HostedStore, hosted: Iterable[Hosted]) -> list[Hosted]:
    """Return those that somebody has claimed since this process did.

    Raises:
        StoreError: the store cannot be read.
    """
    held = {each.id: (each, each.token) for each in hosted if each.execution is not None}
    if not held:
        return []

    present = store.tokens(list(held))
    # The token is read before the store: what this process claims meanwhile only makes the store's one newer.
    return [each for each, token in held.values() if present.get(each.id, 0) > token == each.token]


def tell_overtaken(hosted: Hosted) -> None:
    """Let an execution know, on its loop, that it goes on elsewhere."""
    execution = hosted.execution
    loop = None if execution is None else execution._driver.loop
    if execution is None or execution._log is None or loop is None or loop.is_closed():
        return

    problem = ExecutionFenced(f"execution {hosted.id} was taken over by another process")
    try:
        loop.call_soon_threadsafe(_lose, hosted, problem)
    except RuntimeError:
        pass  # the loop was closed just now


def _lose(hosted: Hosted, problem: ExecutionFenced) -> None:
    execution = hosted.execution
    if execution is not None and execution._log is not None and not execution.is_closed():
        execution._log._lost(problem)
