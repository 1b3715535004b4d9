"""Starting a branch at once, inside the call that causes it, as part of a real asyncio task.

A start or an answer usually finds the execution at rest and leads to one branch. Scheduling it and being woken by it
costs two turns of the event loop and a task, several times the work of a step. ``start_now`` runs the branch up to its
first suspension before it returns. ``asyncio.current_task()`` is the same task from the branch's first instruction to
its last, so that timeouts, cancel scopes and cancellation hold on to the right one.

The task is a *host* that waits for work. A branch that never suspends leaves it as it was, ready for the next; one that
suspends takes it over, and the next call makes a new host. An idle host is nobody's work, so ``asyncio.all_tasks()``
does not list it: a program that awaits every task there is would never end. Built from asyncio's hooks for task
implementations (``_enter_task``, ``_register_task`` and their opposites; source: the asyncio documentation,
"Extending").
"""

from __future__ import annotations

import asyncio
import threading
from asyncio.tasks import _enter_task, _leave_task, _register_task, _unregister_task
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final

__all__ = ["schedule", "start_now"]

_TURNS: Final = 64
"""So many branches may start without a turn of the loop; then others get theirs."""


class _Host(Coroutine[Any, Any, None]):
    """What a host task runs: nothing until a branch suspends in it, then that branch to its end."""

    __slots__ = ("__weakref__", "branch", "context", "idle", "waits_for")
    __name__ = "flowdeck branch"  # what a task shows of it

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.idle: asyncio.Future[None] | None = loop.create_future()
        """Ends when a branch has suspended."""
        self.branch: Coroutine[Any, Any, None] | None = None
        self.context: Context | None = None
        self.waits_for: Any = None
        """What the branch suspended on, until the task has been told."""

    def adopt(self, branch: Coroutine[Any, Any, None], context: Context, waits_for: Any) -> None:
        """Go on with a branch that has suspended."""
        idle, self.idle = self.idle, None
        self.branch, self.context, self.waits_for = branch, context, waits_for
        if idle is not None and not idle.done():
            idle.set_result(None)

    def __await__(self) -> Any:
        return self

    def send(self, value: Any) -> Any:
        if self.idle is not None:
            self.idle._asyncio_future_blocking = True  # how a future tells its task that it is being awaited
            return self.idle

        if self.waits_for is not None:
            future, self.waits_for = self.waits_for, None
            return future

        assert self.branch is not None and self.context is not None
        return self.context.run(self.branch.send, value)

    def throw(self, *exc: Any) -> Any:
        if self.branch is None or self.context is None:
            raise exc[0]  # nobody needs this host any more

        future, self.waits_for = self.waits_for, None
        if future is not None and future.cancel():
            return future  # cancelled before it could wait: so is what it waits for, as always

        return self.context.run(self.branch.throw, *exc)

    def close(self) -> None:
        if self.branch is not None:
            self.branch.close()


class _Starter:
    """A thread's host, and how often it may be used before the loop gets a turn."""

    __slots__ = ("host", "inside", "left", "task")

    def __init__(self) -> None:
        self.host: _Host | None = None
        self.task: asyncio.Task[None] | None = None
        self.left = _TURNS
        self.inside = False


class _Local(threading.local):
    def __init__(self) -> None:
        self.starter = _Starter()  # one object: each look into a thread's variables costs as much as a call


_local = _Local()


def schedule(branch: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Run ``branch`` as a task of ``loop``, from its next turn on.

    A task factory may be eager and would run it here, where a recursion of branches became one of the interpreter.
    """
    if loop.get_task_factory() is None:
        loop.create_task(branch, context=context)
    else:
        loop.call_soon(_create, branch, loop, context)


def _create(branch: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: Context) -> None:
    loop.create_task(branch, context=context)


def start_now(branch: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Run ``branch`` as a task of ``loop``, up to its first suspension.

    It is scheduled the ordinary way when another branch is being started (a recursion through flows must not become
    one of the interpreter), when the loop has a task factory of its own, and once in a while so that a caller who
    starts run after run does not starve everybody else.
    """
    local = _local.starter
    local.left -= 1
    if local.inside or local.left < 0 or loop.get_task_factory() is not None:
        local.left = _TURNS
        schedule(branch, loop, context)
        return

    host, task = local.host, local.task
    if host is None or task is None or host.idle is None or task.cancelling() or task.get_loop() is not loop:
        host = local.host = _Host(loop)
        task = local.task = loop.create_task(host)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a host may well outlive its loop
        _unregister_task(task)

    caller = asyncio.current_task(loop)
    if caller is not None:
        _leave_task(loop, caller)

    _enter_task(loop, task)
    local.inside = True
    try:
        waits_for = context.run(branch.send, None)
    except StopIteration:
        return
    finally:
        local.inside = False
        _leave_task(loop, task)
        if caller is not None:
            _enter_task(loop, caller)

    _register_task(task)
    host.adopt(branch, context, waits_for)
