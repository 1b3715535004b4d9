"""The input log of a durable execution: what the core was told, on its way into the execution store.

The core is deterministic, so between snapshots its inputs are the truth (:mod:`flowdeck.execution.recording` writes
them, :mod:`flowdeck.execution.replica` reads them). They are *visible at once, durable in order*: an input acts the
moment it is called, and nothing that could be seen outside follows before it is committed. Order of things::

    handler calls emit/set/pause/...  -> add()     a record in the buffer
    end of the turn, or a gate        -> flush()   one Commit with all that has gathered, control changes included
    store's thread, one transaction   -> done()    posted to the loop once for all executions of the transaction
    loop                              -> waiters go on, stream items are released

Everything between two awaits is one commit, so an inbox row and what it did are committed together or not at all.
Source: the design's §3.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from flowdeck.errors import ExecutionFenced
from flowdeck.execution.log_format import extras_of, header_of, pack, wake_of
from flowdeck.execution.log_records import LogRecords
from flowdeck.execution.mailbox import Mailbox, mailbox
from flowdeck.execution.snapshot import save_state
from flowdeck.execution.store import Commit, CommitStore

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.execution.recording import RecordedCore

__all__ = ["InputLog"]

SNAPSHOT_BYTES: Final = 65_536
"""Inputs that gather before a snapshot is worth taking; more when the state is larger than that."""
SNAPSHOT_INPUTS: Final = 2_000
"""Inputs a recovery replays at most; replaying takes some microseconds each."""
UNGATED_INPUTS: Final = 10_000
"""Inputs an ungated log keeps in memory before it commits them anyway."""


class InputLog(LogRecords):
    """The log of one execution and of the sub flows in it."""

    def __init__(self, execution: TriggerFlowExecution, store: CommitStore) -> None:
        super().__init__(execution)
        self.store = store
        self.gated = store.gated
        self.token = 1
        self.error: BaseException | None = None
        """Why nothing is committed any more: another process owns the execution now."""
        self.due: dict[tuple[int, int], int] = {}
        """When backed-off activations may run again, by core and activation."""
        self.prepared: tuple[Any, Any] | None = None
        """A handler's result and its encoded form, on the way from the driver's check to the core."""
        self.written = False
        """The store knows the execution."""
        self._base: str | None = None
        self._inputs: list[list[Any]] = []
        self._changes: list[tuple[str, tuple[Any, ...]]] = []
        self._sent = 0
        self._done = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._held: deque[tuple[int, Any]] = deque()
        self._mailbox: Mailbox | None = None
        self._scheduled = False
        self._resting = False
        """The store has been told that nothing runs."""
        self._parked: tuple[int, int | None] = (0, None)
        """The last commit that left the execution at rest, and when it has to wake."""
        self._taken_intent: list[Any] | None = None
        self._since = [0, 0]
        """Bytes and inputs since the last snapshot."""
        self._snapshot_size = SNAPSHOT_BYTES
        self._settings: tuple[Any, ...] | None = None
        self._resource_keys: tuple[str, ...] | None = None

    # -- recording -----------------------------------------------------------------------------------------------

    def add(self, record: list[Any]) -> None:
        """Append an input; it is committed with the end of this turn of the loop, if not before."""
        if self.error is not None:
            return

        self._inputs.append(record)
        self.seq += 1
        if not self._scheduled:
            self._schedule()

    def attach(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Let a change of the control plane be written together with the inputs it follows from."""
        if self.error is None:
            self._changes.append((name, arguments))
            if not self._scheduled:
                self._schedule()

    def _schedule(self) -> None:
        if self._resting:
            self._resting = False
            self.store.rests(self.execution, -1)

        loop = self.execution._driver.loop
        if loop is not None and not loop.is_closed():
            self._scheduled = True
            loop.call_soon(self._at_end_of_turn)

    def _at_end_of_turn(self) -> None:
        self._scheduled = False
        if self.gated or len(self._inputs) >= UNGATED_INPUTS or self._at_rest():
            self.flush()

    def enrol(self, child: TriggerFlowExecution, number: int) -> None:
        """Take a child's core into the log."""
        from flowdeck.execution.gate import Gate

        self.children[number] = child
        core: RecordedCore = child._core  # type: ignore[assignment]
        core.log, core.child = self, number
        child._driver.gate = Gate(self, child._driver)

    def refused(self) -> None:
        """The last input raised: a replay must expect the same."""
        if self._inputs:
            self._inputs[-1][0] = "!" + self._inputs[-1][0]

    def take_over(self, token: int, seq: int, replica: Any, changed: bool, resource_keys: Iterable[str]) -> None:
        """Go on from a state that was loaded from the store.

        Args:
            token: the new fencing token.
            seq: inputs the store holds.
            replica: what was replayed: backoffs, inbox rows and sub flows under way.
            changed: the definition is another one than the inputs were written under.
            resource_keys: the names of the runtime resources as the store has them.
        """
        self.token, self.seq, self.written = token, seq, True
        self._resource_keys = tuple(resource_keys)
        self.due, self.rows = dict(replica.due), dict(replica.rows)
        self.child_count = replica.child_count
        self._taken_intent = replica.intent
        self.store.hosts(self.execution)
        self._settings = self._present_settings()
        if changed:
            self._base = self.define(self.execution._plan)

    def take_intent(self) -> list[Any] | None:
        """Return, once, what was under way to end the run when it was left: ``["cancel" | "close", reason]``."""
        intent, self._taken_intent = self._taken_intent, None
        return intent

    # -- committing ----------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether everything recorded is committed."""
        return not self._inputs and not self._changes and self._done == self._sent

    def _dirty(self) -> bool:
        if self._inputs or self._changes or self._base:
            return True

        return self.written and self._settings != self._present_settings()

    def flush(self) -> None:
        """Hand everything that has gathered to the store."""
        execution = self.execution
        if self.error is not None or not self._dirty():
            return

        core: RecordedCore = execution._core  # type: ignore[assignment]
        header = None
        if not self.written:
            if not core.started:
                return

            if not execution._observed:
                execution._register()

            header = header_of(execution, self._present_settings())
            self.written = True
            self.store.hosts(execution)

        self.steered(core)
        for child in self.children.values():
            self.steered(child._core)  # type: ignore[arg-type]

        if self._settings != (present := self._present_settings()):
            self._settings = present
            if header is None:
                self.add(["n", 0, core.seq, *present])

        self._submit(header)

    def _submit(self, header: bytes | None) -> None:
        execution = self.execution
        inputs, self._inputs = self._inputs, []
        body = pack([time.time_ns() // 1_000, inputs]) if inputs else b""
        count = len(inputs)
        commit = Commit(execution.id, self.token, self.seq - count, count, body, header)
        if self._changes:
            commit.changes, self._changes = tuple(self._changes), []

        parked = self._at_rest()
        if parked:
            commit.parked, commit.wake_us = True, wake_of(execution)

        commit.finished = execution._lifecycle == "closed"
        keys = tuple(sorted(execution._resources)) if execution._resources else ()
        if keys != self._resource_keys:
            commit.resource_keys = self._resource_keys = keys

        self._since[0] += len(body)
        self._since[1] += count
        if self._base is not None or self._worth_a_snapshot():
            commit.snapshot = pack([save_state(execution, None, "utf-8", False), extras_of(self)])
            commit.base, self._base = self._base is not None, None
            commit.definition = self.define(execution._plan)
            self._snapshot_size = len(commit.snapshot)
            self._since = [0, 0]

        if header is not None:
            commit.definition = self.define(execution._plan)

        if self._undefined:
            commit.definitions, self._undefined = tuple(self._undefined.items()), {}

        self._sent += 1
        if parked:
            self._parked = (self._sent, commit.wake_us)

        self.store.submit(commit, self._finished)

    def _worth_a_snapshot(self) -> bool:
        if self.execution._lifecycle == "closed":
            return False

        return self._since[0] > max(SNAPSHOT_BYTES, self._snapshot_size) or self._since[1] > SNAPSHOT_INPUTS

    def _present_settings(self) -> tuple[Any, ...]:
        return (self.execution.auto_close, self.execution.auto_close_timeout)

    def _at_rest(self) -> bool:
        return not self.execution._driver._live

    async def committed(self) -> None:
        """Return once everything recorded so far is committed.

        Raises:
            ExecutionFenced: another process has taken the execution over.
        """
        if self._dirty():
            if not self.gated:
                return

            self.flush()

        if self.error is not None:
            raise self.error

        if self._done < self._sent and self.gated:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((self._sent, waiter))
            await waiter

    async def settled(self) -> None:
        """Commit what there is and wait for it, gated or not: the run has ended, or its process is about to."""
        gated, self.gated = self.gated, True
        try:
            await self.committed()
        finally:
            self.gated = gated

    def hold(self, item: Any) -> None:
        """Keep a stream item back until what led to it, itself included, is committed."""
        self._held.append((self._sent + 1, item))

    def hold_behind(self, item: Any) -> None:
        """Keep something that is not recorded itself back until everything recorded so far is committed."""
        self._held.append((self._sent + self._dirty(), item))

    def _finished(self, error: BaseException | None) -> None:
        """The store is done with a commit. Called on any thread."""
        if threading.get_ident() == self.execution._thread or (loop := self.execution._driver.loop) is None:
            self._completed(error)
            return

        if self._mailbox is None:  # an execution stays with its loop
            self._mailbox = mailbox(loop)

        self._mailbox.post(self._completed, error)

    def _completed(self, error: BaseException | None) -> None:
        if error is not None:
            self._lost(error)
            return

        self._done += 1
        done = self._done
        held = self._held
        while held and held[0][0] <= done:
            self.execution._stream.release(held.popleft()[1])  # type: ignore[attr-defined]

        waiters = self._waiters
        while waiters and waiters[0][0] <= done:
            _, waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

        if self._parked[0] == done == self._sent and not self._inputs and not self._resting and self._at_rest():
            self._resting = True
            self.store.rests(self.execution, self._parked[1])

    def suspend(self) -> None:
        """The process stops: commit what there is, and record nothing of the stopping itself."""
        if self.error is None:
            self.flush()
            self.error = ExecutionFenced(
                f"execution {self.execution.id}: its event loop was stopped; it goes on where it is taken up"
            )

    def _lost(self, error: BaseException) -> None:
        """Nothing can be committed any more: stop here, quietly; the run goes on where it was taken over."""
        if self.error is not None:
            return

        self.error = error
        self._inputs, self._changes, self._base = [], [], None
        self._held.clear()
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # whoever waited may be gone

        self.execution._superseded(error)
        self.store.rests(self.execution, None)
