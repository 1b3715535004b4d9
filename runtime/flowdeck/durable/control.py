"""The control plane over ``state.db``: what an observed run registers, and how answers reach it.

Order of calls for one execution::

    opened          a row in `executions`; from its commit on, the watcher hands inbox rows to the execution
    status ...      running, waiting
    interrupt_opened / interrupt_closed ...
    deliver -> ack  the watcher calls the execution; the execution says what became of the row
    finished        terminal status; interrupts and inbox rows still open are closed in the same commit

A caller only appends to a deque. One thread merges what has gathered and commits it in one transaction; a commit
costs the same for one change as for hundreds. A failing file never reaches a caller: changes are merged and tried
again with growing pauses, losses are counted, and the problem is reported once per outage.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from flowdeck.durable._batch import (
    TERMINAL,
    Ack,
    Change,
    InterruptClosed,
    InterruptOpened,
    Opened,
    StatusChanged,
)
from flowdeck.durable._control_writer import ControlWriter, Question, Submitted
from flowdeck.durable._handle import Handle
from flowdeck.durable._signal import Signal
from flowdeck.durable._values import encode, expiry_us, slim
from flowdeck.durable._watcher import Watcher
from flowdeck.durable.postgres.address import address_of, is_address
from flowdeck.durable.statedb import StoreBusy, open_to_write, prepare, state_db_path
from flowdeck.errors import ExecutionFenced
from flowdeck.execution.control import Controlled
from flowdeck.execution.store import Commit, Done
from flowdeck.layout import Layout, StoreError

__all__ = ["StateControl", "open_control"]

QUEUE_LIMIT: Final = 65_536
"""Changes that may wait for a commit, in the queue and, merged, in the batch that is being tried."""

BUSY_SECONDS: Final = 0.25
"""How long one attempt waits for another process's lock. The writer thread waits, nobody else."""

_log = logging.getLogger("flowdeck.durable")

ProblemCallback = Callable[[str, str], None]
"""``on_problem(kind, message)``; kinds: busy, unwritable, full_queue, dropped, closed, fenced, watch, delivery."""


def open_control(
    store_path: str | os.PathLike[str],
    writer: str | Callable[[], str],
    *,
    on_problem: ProblemCallback | None = None,
) -> StateControl:
    """Open, and if need be create, the control plane of a store.

    Args:
        store_path: the store folder, which must exist, the path of a ``state.db``, or the URL of a PostgreSQL store.
        writer: the id under whose lock this process lives, or a callable that returns it. Give a callable when the
            process may fork: it is asked again in the child.
        on_problem: called with a kind and a message, once per outage, from a background thread or from the caller of
            a method; the default logs a warning to ``flowdeck.durable``.

    Raises:
        StoreError: the file cannot be used (missing folder, foreign, too new, no permission). A file that is only
            locked is no error: what is registered is written when it is free.
    """
    address = address_of(store_path)
    if address is not None:
        from flowdeck.durable.postgres.control import PostgresControl

        return PostgresControl(address, writer, lock=_lock_of(store_path, writer), on_problem=on_problem)

    path = state_db_path(store_path)
    try:
        prepare(path, BUSY_SECONDS)
    except StoreBusy:
        pass

    return StateControl(path, writer, on_problem=on_problem)


def _lock_of(store: str | os.PathLike[str], writer: str | Callable[[], str]) -> Callable[[], str | None]:
    """Return what tells the file that is locked while this process lives; nobody knows it of a mere URL."""
    if is_address(store):
        return lambda: None

    layout = Layout(store)
    return lambda: str(layout.lock_path(writer() if callable(writer) else writer))


class StateControl(ControlWriter):
    """A :class:`~flowdeck.execution.control.ControlPlane` that keeps ``state.db`` and watches its inbox.

    Thread-safe. Threads start with the first change and the watcher only lives while an execution is open. A forked
    child starts empty: the executions, the queue and the threads belong to the parent.
    """

    def __init__(
        self, path: Path, writer: str | Callable[[], str], *, on_problem: ProblemCallback | None = None
    ) -> None:
        self.path = path
        self._writer: Callable[[], str] = writer if callable(writer) else lambda: writer
        self._on_problem = _log_problem if on_problem is None else on_problem
        self._closed = False
        self.durability = "live"
        """``live``, ``exit``, ``process`` or ``full``; only ``full`` waits for the disk."""
        self._handle: Any = self._new_handle()
        self._reset()
        _instances.add(self)

    def _new_handle(self) -> Any:
        return Handle(self.path, self._open)

    def _new_watcher(self) -> Watcher:
        return Watcher(self.path, self._writer, self.ack, self._problem)

    def _reset(self) -> None:
        """Take the state of a control that nobody used yet. Also what a forked child begins with."""
        self._queue: deque[Change | Submitted | Question | threading.Event] = deque()
        self._lock = threading.Lock()
        self._wake = Signal()
        self._hurry = Signal()
        self._parked = False
        self._thread: threading.Thread | None = None
        self._merged = 0
        self._reported: set[str] = set()
        self._watcher = self._new_watcher()
        self._counts = dict.fromkeys(
            ("accepted", "written", "durable", "commits", "retries", "dropped", "fenced", "unencodable"), 0
        )

    # -- the protocol: called by executions, on any thread ---------------------------------------------------

    def opened(self, execution: Controlled, info: Mapping[str, Any]) -> None:
        """Register an execution. ``info``: flow_name, entrypoint, run_id, root_run_id, parent_execution_id,
        definition, task_id, tenant_id, user_id, started_us; what is missing is stored as null."""
        try:
            self._put(self._change("opened", (execution, info)))
        except Exception as error:
            self._lost(error)

    def status(self, execution_id: str, status: str) -> None:
        """Say what an execution does now; a terminal status means :meth:`finished`."""
        if status in TERMINAL:
            self.finished(execution_id, status)
            return

        try:
            self._put(self._change("status", (execution_id, status)))
        except Exception as error:
            self._lost(error)

    def interrupt_opened(self, execution_id: str, interrupt: Mapping[str, Any]) -> None:
        """Publish an interrupt record (keys ``id``, ``type``, ``payload``, ``schema``, ``assignees``, ``expires_at``
        in seconds or ``expires_us``, and whatever else it carries)."""
        try:
            self._put(self._change("interrupt_opened", (execution_id, interrupt)))
        except Exception as error:
            self._lost(error)

    def interrupt_closed(
        self, execution_id: str, interrupt_id: str, status: str, response: Any, actor: str | None
    ) -> None:
        """Say how an interrupt ended: ``resumed``, ``cancelled`` or ``expired``."""
        try:
            self._put(self._change("interrupt_closed", (execution_id, interrupt_id, status, response, actor)))
        except Exception as error:
            self._lost(error)

    def ack(self, row_id: int, outcome: str, detail: str | None) -> None:
        """Say what became of a delivered inbox row: applied, duplicate, conflict, expired, early or rejected."""
        try:
            self._put(self._change("ack", (row_id, outcome, detail)))
        except Exception as error:
            self._lost(error)

    def finished(self, execution_id: str, status: str) -> None:
        """Register the terminal status and stop watching the execution."""
        try:
            self._put(self._change("finished", (execution_id, status)))
        except Exception as error:
            self._lost(error)

    def _change(self, name: str, arguments: tuple[Any, ...]) -> Change:
        """Return what a call of the protocol means for the file. Encoded here and now: records live on and change."""
        now = _now_us()
        if name == "opened":
            execution, info = arguments
            return Opened(execution.id, self._writer(), dict(info), now, self._watcher.add(execution))

        if name == "interrupt_opened":
            execution_id, interrupt = arguments
            record, clean = encode(slim(execution_id, interrupt))
            self._counts["unencodable"] += not clean
            kind = str(interrupt.get("type") or "pause")
            return InterruptOpened(execution_id, str(interrupt["id"]), kind, record, expiry_us(interrupt), now)

        if name == "interrupt_closed":
            execution_id, interrupt_id, status, response, actor = arguments
            text, clean = encode(response)
            self._counts["unencodable"] += not clean
            return InterruptClosed(execution_id, interrupt_id, status, text, actor, now)

        if name == "ack":
            row_id, outcome, detail = arguments
            return Ack(row_id, outcome, detail, now)

        execution_id, status = arguments
        if name == "finished":
            self._watcher.remove(execution_id)

        return StatusChanged(execution_id, self._writer(), status, now)

    # -- durable executions: what must not be lost -----------------------------------------------------------

    def make_durable(self, durability: str) -> None:
        """From now on take commits. ``full`` waits for the disk at every commit, also of mere changes."""
        self.durability = durability
        self._handle.close()  # opened anew with the pragma that goes with it

    def submit(self, commit: Commit, done: Done) -> None:
        """Queue a durable execution's commit, with its changes. It is never dropped: until the file takes it, the
        execution waits."""
        try:
            changes = [self._change(name, arguments) for name, arguments in commit.changes]
        except Exception as error:
            done(error)
            return

        if self._closed:
            done(ExecutionFenced(f"execution {commit.execution_id}: the store was closed"))
            return

        self._hand_over(Submitted(commit, changes, done))

    def ask(
        self, question: Callable[[sqlite3.Connection], Any], told: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Run ``question`` in the writer's next transaction, and tell its answer once that is committed."""
        if self._closed:
            told(None, StoreError(f"the control plane of {self.path} was closed"))
        else:
            self._hand_over(Question(question, told))

    def _hand_over(self, item: Submitted | Question) -> None:
        self._queue.append(item)
        self._hurry.set()
        if self._parked:
            self._parked = False
            self._wake.set()
        elif self._thread is None:
            self._start()

    def flush(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all that was said before is committed; tell whether it is."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return not self._queue

        written = threading.Event()
        self._queue.append(written)
        self._hurry.set()
        self._wake.set()
        return written.wait(timeout)

    def close(self, timeout: float) -> None:
        """Write what is left, stop both threads and ignore later calls. Takes at most ``timeout`` seconds.

        Executions that are still open keep their rows; with the writer's lock gone they show as lost or resumable.
        """
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        self._closed = True
        self._hurry.set()
        self._wake.set()
        self._watcher.stop(max(0.0, deadline - time.monotonic()))
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def writer(self) -> str:
        """The id under which this process owns what it registers."""
        return self._writer()

    def statistics(self) -> dict[str, int | float | str]:
        """Return counters since the start (or the fork): accepted, written, durable, commits, retries, dropped, fenced,
        unencodable, delivered, delivery_failures, looks; and now: queued, merged, watched, state."""
        state = "closed" if self._closed else "failing" if self._reported & {"busy", "unwritable"} else "ok"
        return {
            **self._counts,
            **self._watcher.statistics(),
            "queued": len(self._queue),
            "merged": self._merged,
            "state": state,
        }

    # -- between caller and writer ---------------------------------------------------------------------------

    def _put(self, change: Change) -> None:
        if self._closed:
            self._counts["dropped"] += 1
            self._problem("closed", "the control plane was closed; what executions still report is not registered")
            return

        if len(self._queue) + self._merged >= QUEUE_LIMIT:
            self._counts["dropped"] += 1
            self._problem("full_queue", f"{QUEUE_LIMIT} changes wait for {self.path}; newer ones are not registered")
            return

        self._queue.append(change)
        self._counts["accepted"] += 1
        if self._parked:
            self._parked = False
            self._wake.set()
        elif self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="flowdeck-control", daemon=True)
                thread.start()
                self._thread = thread

    def _lost(self, error: Exception) -> None:
        self._counts["dropped"] += 1
        self._problem("dropped", f"a change could not be registered in {self.path}: {type(error).__name__}: {error}")

    def _problem(self, kind: str, message: str) -> None:
        if kind in self._reported:
            return

        self._reported.add(kind)
        try:
            self._on_problem(kind, message)
        except Exception:
            _log.exception("on_problem failed for %s: %s", kind, message)

    def _open(self) -> sqlite3.Connection:
        return open_to_write(self.path, BUSY_SECONDS, full=self.durability == "full")


_instances: weakref.WeakSet[StateControl] = weakref.WeakSet()


def _log_problem(kind: str, message: str) -> None:
    _log.warning("state.db: %s: %s", kind, message)


def _now_us() -> int:
    return time.time_ns() // 1_000


def _reset_after_fork() -> None:
    for control in list(_instances):
        control._reset()


def _close_at_exit() -> None:
    # The last "finished" of a short program is still in the queue when its main function returns.
    for control in list(_instances):
        control.close(1.0)


os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(_close_at_exit)
