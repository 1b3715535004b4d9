"""An execution store in memory: for tests, simulations and programs that want durable semantics without a file.

Several instances over the same :class:`Shelf` behave like several processes over one file: each has an owner name, and
a claim by one fences the others out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

import msgspec

from flowdeck.durable._batch import TERMINAL
from flowdeck.durable._forking import fork_of
from flowdeck.durable._memory_inbox import MemoryInbox
from flowdeck.durable._rows import ExecutionRow, InterruptRow
from flowdeck.durable._shelf import Held, Shelf, execution_row, interrupt_row
from flowdeck.durable._values import decode, encode, expiry_us
from flowdeck.durable.store import Claim, Commit, Done, Point, Retention, Stored, Work
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists, ExecutionFenced, ExecutionNotFound
from flowdeck.events.ids import new_id as draw_id

__all__ = ["MemoryStore", "Shelf"]

_unpack = msgspec.msgpack.Decoder().decode


class MemoryStore(MemoryInbox):
    """An :class:`~flowdeck.durable.store.ExecutionStore` over a :class:`Shelf`."""

    gated = True

    def __init__(
        self, shelf: Shelf | None = None, owner: str = "memory", clock: Callable[[], int] | None = None
    ) -> None:
        self.shelf = shelf or Shelf()
        self.owner = owner
        self._now_us = clock or (lambda: time.time_ns() // 1_000)
        self.shelf.dead.discard(owner)

    # -- committing ----------------------------------------------------------------------------------------------

    def hosts(self, execution: Any) -> None:
        """Nothing to prepare."""

    async def reopen(self, flow: Any, execution_id: str) -> Any:
        """Return the handle of an execution that lives on this shelf, or ``None``."""
        held = self.shelf.held.get(execution_id)
        return None if held is None else held.handle

    def rests(self, execution: Any, wake_us: int | None) -> None:
        """Nothing to do: what is on a shelf stays in memory anyway."""

    def submit(self, commit: Commit, done: Done) -> None:
        try:
            with self.shelf.lock:
                self._write(commit)
        except Exception as error:
            done(error)
        else:
            done(None)

    def _write(self, commit: Commit) -> None:
        held = self._fenced(commit)
        if held is None:
            assert commit.header is not None
            held = Held(commit.execution_id, commit.header, commit.definition)
            held.owner = self.owner
            held.started_us = self._now_us()
            self.shelf.put(held)

        self.shelf.plans.update(commit.definitions)
        if commit.count:
            held.commits.append((commit.seq, commit.count, commit.body))

        held.seq = commit.seq + commit.count
        if commit.snapshot is not None:
            held.snapshots = {seq: each for seq, each in held.snapshots.items() if each[2]}
            held.snapshots[held.seq] = (commit.snapshot, commit.definition, commit.base)

        if commit.resource_keys is not None:
            held.resource_keys = list(commit.resource_keys)

        held.parked, held.wake_us, held.updated_us = commit.parked, commit.wake_us, self._now_us()
        if commit.finished:  # what shortens a recovery is not needed any more
            held.finished = True
            held.snapshots = {seq: each for seq, each in held.snapshots.items() if each[2]}
            self.shelf.open.pop(held.id, None)

        for name, arguments in commit.changes:
            self._change(held, name, arguments)

    def _fenced(self, commit: Commit) -> Held | None:
        """Return the execution if the commit continues what is held; ``None`` if it begins one.

        Raises:
            ExecutionExists, ExecutionFenced: it does neither.
        """
        held = self.shelf.held.get(commit.execution_id)
        if commit.header is not None:
            if held is not None:
                raise ExecutionExists(f"there is an execution {commit.execution_id} already")

            return None

        if held is None or held.token != commit.token or held.seq != commit.seq:
            raise ExecutionFenced(f"execution {commit.execution_id} was taken over by another process")

        return held

    def _change(self, held: Held, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "opened":
            execution, info = arguments
            if execution.id == held.id:
                held.handle, held.info, held.status, held.owner = execution, info, "created", self.owner
                self._deliver_pending(held)
        elif name in ("status", "finished"):
            execution_id, status = arguments
            if execution_id == held.id and held.status not in TERMINAL:
                held.status = status
                if name == "finished":
                    self._end(held)
        elif name == "interrupt_opened":
            _, record = arguments
            name = str(record["id"])
            known = held.questions.get(name)
            self.shelf.ask(
                held,
                name,
                status="waiting",
                record=decode(encode(record)[0]),
                opened_us=self._now_us(),
                closed_us=None,
                response=None,
                actor=None,
                # one that is still waiting was only loaded again: an answer that came meanwhile stays the first
                answer=known["answer"] if known is not None and known["status"] == "waiting" else None,
                expires_us=expiry_us(record),
            )
        elif name == "interrupt_closed":
            _, interrupt_id, status, response, actor = arguments
            known = held.questions.get(interrupt_id)
            if known is not None:
                text, _ = encode(response)
                known.update(status=status, response=decode(text), actor=actor, closed_us=self._now_us())
        elif name == "ack":
            row_id, outcome, detail = arguments
            row = self.shelf.inbox[row_id]
            self.shelf.settle(row, outcome, detail)
            answered = self.shelf.question(row["execution_id"], row["target"] or "")
            if outcome == "rejected" and answered is not None and answered["answer"] == row_id:
                answered["answer"] = None

    def _end(self, held: Held) -> None:
        held.finished_us, held.handle = self._now_us(), None
        for known in held.questions.values():
            if known["status"] == "waiting":
                known.update(status="cancelled", closed_us=self._now_us())

        for row in self.shelf.requests.get(held.id, {}).values():
            if row["outcome"] in (None, "early"):
                self.shelf.settle(row, "rejected", f"the execution was already {held.status}")

    def flush(self, timeout: float) -> bool:
        return True

    # -- ownership -----------------------------------------------------------------------------------------------

    def claim(self, execution_id: str, *, token: int | None = None, force: bool = False) -> Claim:
        with self.shelf.lock:
            held = self._held(execution_id)
            if held.finished:
                raise ExecutionError(f"execution {execution_id} is finished ({held.status})")

            if token is not None and held.token != token:
                raise ExecutionBusy(f"execution {execution_id} was taken up by another process just now")

            if not force and self._runs_elsewhere(held):
                raise ExecutionBusy(f"execution {execution_id} is held by {held.owner}")

            held.token += 1
            held.owner, held.parked, held.blocked, held.handle = self.owner, False, None, None
            stored = self._stored(held, held.seq)
            return Claim(
                **{name: getattr(stored, name) for name in Stored.__struct_fields__},
                token=held.token,
                flow_name=held.flow_name,
            )

    def _runs_elsewhere(self, held: Held) -> bool:
        if held.owner in ("", self.owner) or held.owner in self.shelf.dead:
            return False

        until = self.shelf.leases.get(held.owner)
        return until is None or until > self._now_us()

    def release(self, execution_id: str, token: int, *, blocked: str | None = None) -> bool:
        with self.shelf.lock:
            held = self._held(execution_id)
            if held.token != token:
                return False

            held.owner, held.handle, held.blocked = "", None, blocked
            held.token += 1
            if blocked is not None:
                held.status = "blocked_version"

            return True

    def heartbeat(self, seconds: float) -> None:
        with self.shelf.lock:
            self.shelf.leases[self.owner] = self._now_us() + round(seconds * 1e6)

    def work(self, flows: Collection[str], *, blocked: bool = False, limit: int = 100) -> list[Work]:
        with self.shelf.lock:
            found = []
            asked = {row["execution_id"] for row in self.shelf.waiting.values() if row["outcome"] is None}
            for held in self.shelf.open.values():
                if held.flow_name not in flows or (held.handle is not None and not self._gone(held)):
                    continue

                why = self._why(held, asked, blocked)
                if why and not self._runs_elsewhere(held):
                    found.append(Work(held.id, held.flow_name, held.info.get("entrypoint"), held.token, why))

            return found[:limit]

    def _gone(self, held: Held) -> bool:
        return held.owner != self.owner

    def _why(self, held: Held, asked: set[str], blocked: bool) -> str | None:
        if held.blocked is not None:
            return "blocked" if blocked else None

        if not held.parked:
            return "released" if not held.owner else "lost"

        if held.id in asked:
            return "inbox"

        return "timer" if held.wake_us is not None and held.wake_us <= self._now_us() else None

    def next_wake_us(self, flows: Collection[str]) -> int | None:
        with self.shelf.lock:
            times = [h.wake_us for h in self.shelf.open.values() if h.parked and h.wake_us is not None]
            return min(times, default=None)

    # -- reading -------------------------------------------------------------------------------------------------

    def _held(self, execution_id: str) -> Held:
        held = self.shelf.held.get(execution_id)
        if held is None:
            raise ExecutionNotFound(f"no execution {execution_id!r} in the store")

        return held

    def load(self, execution_id: str, at: int | None = None) -> Stored:
        with self.shelf.lock:
            held = self._held(execution_id)
            return self._stored(held, held.seq if at is None else at)

    def _stored(self, held: Held, at: int) -> Stored:
        ends = {0, *(first + count for first, count, _ in held.commits), *held.snapshots}
        if at not in ends:
            raise ValueError(f"execution {held.id} has no committed point {at}; it has {_shown(ends)}")

        begin, snapshot, definition = 0, None, held.definition
        for seq, (body, named, _) in sorted(held.snapshots.items()):
            if seq <= at:
                begin, snapshot, definition = seq, tuple(_unpack(body)), named

        batches = [tuple(_unpack(body)) for first, _, body in held.commits if begin <= first < at]
        return Stored(
            held.id, at, _unpack(held.header), definition, dict(self.shelf.plans), snapshot, batches,
            held.resource_keys, *(held.forked or (None, None)),
        )  # fmt: skip

    def history(self, execution_id: str) -> list[Point]:
        with self.shelf.lock:
            points = []
            for first, count, body in self._held(execution_id).commits:
                when, records = _unpack(body)
                points.append(Point(first + count, when, "".join(record[0] for record in records)))

            return points

    def get_execution(self, execution_id: str) -> ExecutionRow | None:
        with self.shelf.lock:
            held = self.shelf.held.get(execution_id)
            return None if held is None else execution_row(held)

    def list_executions(self, *, open_only: bool = False, limit: int = 100) -> list[ExecutionRow]:
        with self.shelf.lock:
            rows = [execution_row(held) for held in (self.shelf.open if open_only else self.shelf.held).values()]
            return sorted(rows, key=lambda row: -row.started_us)[:limit]

    def list_interrupts(self, *, open_only: bool = True, limit: int = 1_000) -> list[InterruptRow]:
        with self.shelf.lock:
            rows = (interrupt_row(self.shelf.held[key], name) for key, name in self.shelf.interrupts)
            return list(islice((row for row in rows if not open_only or row.status == "waiting"), limit))

    # -- forking and forgetting ---------------------------------------------------------------------------------------

    def fork(self, execution_id: str, at: int | None = None, *, new_id: str | None = None, actor: str | None) -> str:
        with self.shelf.lock:
            stored = self.load(execution_id, at)
            new = new_id or draw_id()
            if new in self.shelf.held:
                raise ExecutionExists(f"there is an execution {new} already")

            points = self.history(execution_id)
            beginning = self.load(execution_id, points[0].seq) if points else stored
            header, snapshot = fork_of(stored, beginning, new, actor)
            held = Held(new, header, stored.definition)
            held.snapshots[0] = (snapshot, stored.definition, True)
            held.forked = (execution_id, stored.seq)
            held.resource_keys = stored.resource_keys
            held.info = dict(self.shelf.held[execution_id].info)
            held.started_us = self._now_us()
            self.shelf.put(held)
            return new

    def prune(self, retention: Retention, *, now_us: int | None = None) -> int:
        now = now_us or self._now_us()
        with self.shelf.lock:
            done = sorted(
                (h for h in self.shelf.held.values() if h.finished and h.finished_us is not None),
                key=lambda h: -(h.finished_us or 0),
            )
            old = [
                h
                for place, h in enumerate(done)
                if (retention.days is not None and (h.finished_us or 0) < now - retention.days * 86_400e6)
                or (retention.keep is not None and place >= retention.keep)
            ]
            for held in old:
                self.shelf.remove(held)

            return len(old)

    def close(self, timeout: float) -> None:
        self.shelf.dead.add(self.owner)


def _shown(points: Collection[int]) -> str:
    few = sorted(points)
    return ", ".join(map(str, few)) if len(few) <= 8 else f"{few[0]}, {few[1]}, ... {few[-2]}, {few[-1]}"
