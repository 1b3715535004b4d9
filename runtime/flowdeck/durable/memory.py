"""An execution store in memory: for tests, simulations and programs that want durable semantics without a file.

Several instances over the same :class:`Shelf` behave like several processes over one file: each has an owner name, and
a claim by one fences the others out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from flowdeck.durable._batch import INFO_COLUMNS, TERMINAL
from flowdeck.durable._forking import fork_of
from flowdeck.durable._requests import strict_json
from flowdeck.durable._rows import AnswerResult, ExecutionRow, InterruptRow
from flowdeck.durable._values import decode, encode, expiry_us
from flowdeck.durable.store import Claim, Commit, Done, Point, Retention, Stored, Work
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists, ExecutionFenced, ExecutionNotFound
from flowdeck.events.ids import new_id
from flowdeck.execution.control import InboxRow
from flowdeck.execution.json_schema import check, same_json

__all__ = ["MemoryStore", "Shelf"]

_unpack = msgspec.msgpack.Decoder().decode


class _Held:
    """One execution on the shelf."""

    def __init__(self, execution_id: str, header: bytes, definition: str) -> None:
        self.id = execution_id
        self.header = header
        self.definition = definition
        self.token = 1
        self.seq = 0
        self.owner = ""
        self.commits: list[tuple[int, int, bytes]] = []
        """First input, count and body of each."""
        self.snapshots: dict[int, tuple[bytes, str, bool]] = {}
        """By seq: body, definition, whether it begins a new definition."""
        self.parked = False
        self.finished = False
        self.wake_us: int | None = None
        self.blocked: str | None = None
        self.resource_keys: list[str] = []
        self.forked: tuple[str, int] | None = None
        self.status = "created"
        self.started_us = 0
        self.updated_us = 0
        self.finished_us: int | None = None
        self.info: dict[str, Any] = {}
        self.handle: Any = None


class Shelf:
    """What several stores share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held: dict[str, _Held] = {}
        self.plans: dict[str, bytes] = {}
        self.interrupts: dict[tuple[str, str], dict[str, Any]] = {}
        self.inbox: list[dict[str, Any]] = []
        self.leases: dict[str, int] = {}
        self.dead: set[str] = set()
        """Owners that are gone; :meth:`MemoryStore.close` and tests put them here."""


class MemoryStore:
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
            held = _Held(commit.execution_id, commit.header, commit.definition)
            held.owner = self.owner
            held.started_us = self._now_us()
            self.shelf.held[held.id] = held

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
        if commit.finished:
            held.finished = True

        for name, arguments in commit.changes:
            self._change(held, name, arguments)

    def _fenced(self, commit: Commit) -> _Held | None:
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

    def _change(self, held: _Held, name: str, arguments: tuple[Any, ...]) -> None:
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
            execution_id, record = arguments
            key = (execution_id, str(record["id"]))
            known = self.shelf.interrupts.get(key)
            answer = known["answer"] if known is not None and known["status"] == "waiting" else None
            self.shelf.interrupts[key] = {
                "status": "waiting", "record": decode(encode(record)[0]), "opened_us": self._now_us(),
                "closed_us": None, "response": None, "actor": None, "answer": answer, "expires_us": expiry_us(record),
            }  # fmt: skip
        elif name == "interrupt_closed":
            execution_id, interrupt_id, status, response, actor = arguments
            known = self.shelf.interrupts.get((execution_id, interrupt_id))
            if known is not None:
                text, _ = encode(response)
                known.update(status=status, response=decode(text), actor=actor, closed_us=self._now_us())
        elif name == "ack":
            row_id, outcome, detail = arguments
            row = self.shelf.inbox[row_id - 1]
            row.update(outcome=outcome, detail=detail)
            answered = self.shelf.interrupts.get((row["execution_id"], row["target"] or ""))
            if outcome == "rejected" and answered is not None and answered["answer"] == row_id:
                answered["answer"] = None

    def _end(self, held: _Held) -> None:
        held.finished_us, held.handle = self._now_us(), None
        for (execution_id, _), known in self.shelf.interrupts.items():
            if execution_id == held.id and known["status"] == "waiting":
                known.update(status="cancelled", closed_us=self._now_us())

        for row in self.shelf.inbox:
            if row["execution_id"] == held.id and row["outcome"] in (None, "early"):
                row.update(outcome="rejected", detail=f"the execution was already {held.status}")

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
                flow_name=stored.header["flow"]["name"],
            )

    def _runs_elsewhere(self, held: _Held) -> bool:
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
            asked = {row["execution_id"] for row in self.shelf.inbox if row["outcome"] is None}
            for held in self.shelf.held.values():
                name = _unpack(held.header)["flow"]["name"]
                if held.finished or name not in flows or (held.handle is not None and not self._gone(held)):
                    continue

                why = self._why(held, asked, blocked)
                if why and not self._runs_elsewhere(held):
                    found.append(Work(held.id, name, held.info.get("entrypoint"), held.token, why))

            return found[:limit]

    def _gone(self, held: _Held) -> bool:
        return held.owner != self.owner

    def _why(self, held: _Held, asked: set[str], blocked: bool) -> str | None:
        if held.blocked is not None:
            return "blocked" if blocked else None

        if not held.parked:
            return "released" if not held.owner else "lost"

        if held.id in asked:
            return "inbox"

        return "timer" if held.wake_us is not None and held.wake_us <= self._now_us() else None

    def next_wake_us(self, flows: Collection[str]) -> int | None:
        with self.shelf.lock:
            times = [
                h.wake_us for h in self.shelf.held.values() if not h.finished and h.parked and h.wake_us is not None
            ]
            return min(times, default=None)

    # -- reading -------------------------------------------------------------------------------------------------

    def _held(self, execution_id: str) -> _Held:
        held = self.shelf.held.get(execution_id)
        if held is None:
            raise ExecutionNotFound(f"no execution {execution_id!r} in the store")

        return held

    def load(self, execution_id: str, at: int | None = None) -> Stored:
        with self.shelf.lock:
            held = self._held(execution_id)
            return self._stored(held, held.seq if at is None else at)

    def _stored(self, held: _Held, at: int) -> Stored:
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
            return None if held is None else self._row(held)

    def list_executions(self, *, open_only: bool = False, limit: int = 100) -> list[ExecutionRow]:
        with self.shelf.lock:
            rows = [self._row(h) for h in self.shelf.held.values() if not (open_only and h.finished)]
            return sorted(rows, key=lambda row: -row.started_us)[:limit]

    def _row(self, held: _Held) -> ExecutionRow:
        open_ = sum(e == held.id and k["status"] == "waiting" for (e, _), k in self.shelf.interrupts.items())
        info = {name: held.info.get(name) for name in INFO_COLUMNS}
        return ExecutionRow(
            id=held.id, writer=held.owner, status=held.status, started_us=held.started_us, updated_us=held.updated_us,
            finished_us=held.finished_us, open_interrupts=open_,
            **{**info, "flow_name": _unpack(held.header)["flow"]["name"]},
        )  # fmt: skip

    def list_interrupts(self, *, open_only: bool = True, limit: int = 1_000) -> list[InterruptRow]:
        with self.shelf.lock:
            rows = []
            for (execution_id, interrupt_id), known in self.shelf.interrupts.items():
                if open_only and known["status"] != "waiting":
                    continue

                held, record = self.shelf.held[execution_id], known["record"]
                rows.append(
                    InterruptRow(
                        interrupt_id, execution_id, _unpack(held.header)["flow"]["name"], held.owner, known["status"],
                        known["answer"] is not None or known["status"] == "resumed", record.get("type", "pause"),
                        record.get("payload"), record.get("schema"), record.get("assignees") or [], known["opened_us"],
                        known["expires_us"], known["closed_us"], known["response"], known["actor"], record,
                    )
                )  # fmt: skip

            return rows[:limit]

    # -- asking --------------------------------------------------------------------------------------------------

    def put_inbox(
        self,
        kind: str,
        execution_id: str,
        target: str | None,
        payload: Any,
        actor: str | None,
        dedup_key: str | None = None,
    ) -> AnswerResult:
        try:
            value = json.loads(strict_json(payload))
        except (TypeError, ValueError, RecursionError) as error:
            return AnswerResult(None, "rejected", f"the value is not JSON: {error}")

        key = dedup_key or new_id()
        with self.shelf.lock:
            refused = self._refusal(kind, execution_id, target, value, key)
            if refused is not None:
                return refused

            row_id = len(self.shelf.inbox) + 1
            row = {
                "id": row_id, "execution_id": execution_id, "kind": kind, "target": target, "payload": value,
                "key": key, "actor": actor, "us": self._now_us(), "outcome": None, "detail": None,
            }  # fmt: skip
            self.shelf.inbox.append(row)
            known = self.shelf.interrupts.get((execution_id, target or ""))
            if kind == "resume" and known is not None:
                known["answer"] = row_id

            held = self.shelf.held.get(execution_id)
            handle = held.handle if held is not None and held.owner == self.owner else None

        if handle is not None:
            handle.deliver(_inbox_row(row))

        return AnswerResult(row_id, None)

    def _refusal(self, kind: str, execution_id: str, target: str | None, value: Any, key: str) -> AnswerResult | None:
        for row in self.shelf.inbox:
            if (row["execution_id"], row["key"]) == (execution_id, key):
                if (row["kind"], row["target"]) == (kind, target) and same_json(row["payload"], value):
                    return AnswerResult(row["id"], "duplicate", "the same request was accepted before")

                return AnswerResult(None, "conflict", f"the dedup key {key!r} was used for another request")

        held = self.shelf.held.get(execution_id)
        if kind == "start":
            known = f"execution {execution_id} was started before"
            return None if held is None else AnswerResult(None, "conflict", known)

        if held is None:
            return AnswerResult(None, "unknown", f"no execution {execution_id!r} is registered")

        asked = self.shelf.interrupts.get((execution_id, target or "")) if kind == "resume" else None
        refused = None if asked is None else self._refused_answer(target, asked, value)
        if refused is None and held.finished:
            return AnswerResult(None, "rejected", f"execution {execution_id} is already {held.status}")

        return refused

    def _refused_answer(self, target: str | None, known: dict[str, Any], value: Any) -> AnswerResult | None:
        expires = known["expires_us"]
        if known["status"] == "expired" or (
            known["status"] == "waiting" and expires is not None and expires <= self._now_us()
        ):
            return AnswerResult(None, "expired", f"interrupt {target} has expired")

        if known["answer"] is not None or known["status"] == "resumed":
            return AnswerResult(None, "conflict", f"interrupt {target} was already answered")

        if known["status"] != "waiting":
            return AnswerResult(None, "conflict", f"interrupt {target} is {known['status']}")

        schema = known["record"].get("schema")
        errors = check(value, schema).errors if schema is not None else []
        return AnswerResult(None, "rejected", "; ".join(errors)) if errors else None

    def read_inbox(self, execution_id: str) -> list[InboxRow]:
        with self.shelf.lock:
            return [
                _inbox_row(row)
                for row in self.shelf.inbox
                if row["execution_id"] == execution_id and row["outcome"] in (None, "early")
            ]

    def _deliver_pending(self, held: _Held) -> None:
        for row in self.read_inbox(held.id):
            held.handle.deliver(row)

    def fork(self, execution_id: str, at: int | None = None, *, new_id: str | None = None, actor: str | None) -> str:
        from flowdeck.events.ids import new_id as draw

        with self.shelf.lock:
            stored = self.load(execution_id, at)
            new = new_id or draw()
            if new in self.shelf.held:
                raise ExecutionExists(f"there is an execution {new} already")

            points = self.history(execution_id)
            beginning = self.load(execution_id, points[0].seq) if points else stored
            header, snapshot = fork_of(stored, beginning, new, actor)
            held = _Held(new, header, stored.definition)
            held.snapshots[0] = (snapshot, stored.definition, True)
            held.forked = (execution_id, stored.seq)
            held.resource_keys = stored.resource_keys
            held.info = dict(self.shelf.held[execution_id].info)
            held.started_us = self._now_us()
            self.shelf.held[new] = held
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
                del self.shelf.held[held.id]
                for key in [key for key in self.shelf.interrupts if key[0] == held.id]:
                    del self.shelf.interrupts[key]

            return len(old)

    def close(self, timeout: float) -> None:
        self.shelf.dead.add(self.owner)


def _inbox_row(row: dict[str, Any]) -> InboxRow:
    return InboxRow(
        row["id"], row["execution_id"], row["kind"], row["target"], row["payload"], row["key"], row["actor"], row["us"]
    )


def _shown(points: Collection[int]) -> str:
    few = sorted(points)
    return ", ".join(map(str, few)) if len(few) <= 8 else f"{few[0]}, {few[1]}, ... {few[-2]}, {few[-1]}"
