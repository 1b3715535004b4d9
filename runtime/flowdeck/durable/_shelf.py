"""What stores in memory share: executions, their questions and the inbox, each found without looking at the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from flowdeck.durable._batch import INFO_COLUMNS
from flowdeck.durable._rows import ExecutionRow, InterruptRow
from flowdeck.execution.control import InboxRow

__all__ = ["Held", "Shelf", "execution_row", "inbox_row", "interrupt_row"]

_unpack = msgspec.msgpack.Decoder().decode


class Held:
    """One execution on the shelf."""

    def __init__(self, execution_id: str, header: bytes, definition: str) -> None:
        self.id = execution_id
        self.header = header
        self.flow_name: str = _unpack(header)["flow"]["name"]
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
        self.questions: dict[str, dict[str, Any]] = {}
        """Its interrupts by id."""


class Shelf:
    """What several stores share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held: dict[str, Held] = {}
        self.open: dict[str, Held] = {}
        """Those that are not finished."""
        self.plans: dict[str, bytes] = {}
        self.inbox: dict[int, dict[str, Any]] = {}
        """Requests by id."""
        self.requests: dict[str, dict[str, dict[str, Any]]] = {}
        """The same by execution and dedup key."""
        self.waiting: dict[int, dict[str, Any]] = {}
        """Those nobody has applied yet, early ones included."""
        self.leases: dict[str, int] = {}
        self.dead: set[str] = set()
        """Owners that are gone; :meth:`MemoryStore.close` and tests put them here."""
        self._rows = 0
        self._questions = 0

    def put(self, held: Held) -> None:
        """Take an execution in."""
        self.held[held.id] = self.open[held.id] = held

    def remove(self, held: Held) -> None:
        """Forget an execution with all that was asked by it and of it."""
        del self.held[held.id]
        self.open.pop(held.id, None)
        for row in self.requests.pop(held.id, {}).values():
            del self.inbox[row["id"]]
            self.waiting.pop(row["id"], None)

    def ask(self, held: Held, interrupt_id: str, **fields: Any) -> None:
        """Put a question, in the place of an earlier one of that id."""
        self._questions += 1
        held.questions.pop(interrupt_id, None)
        held.questions[interrupt_id] = {"number": self._questions, **fields}

    def question(self, execution_id: str, interrupt_id: str) -> dict[str, Any] | None:
        """Return a question, or ``None``."""
        held = self.held.get(execution_id)
        return None if held is None else held.questions.get(interrupt_id)

    @property
    def interrupts(self) -> Iterator[tuple[str, str]]:
        """Execution and id of every question, oldest first."""
        every = [
            (known["number"], held.id, name) for held in self.held.values() for name, known in held.questions.items()
        ]
        return ((execution_id, name) for _, execution_id, name in sorted(every))

    def request(self, execution_id: str, key: str, **fields: Any) -> dict[str, Any]:
        """Put a request into the inbox."""
        self._rows += 1
        row = {"id": self._rows, "execution_id": execution_id, "key": key, **fields, "outcome": None, "detail": None}
        self.inbox[self._rows] = self.waiting[self._rows] = row
        self.requests.setdefault(execution_id, {})[key] = row
        return row

    def settle(self, row: dict[str, Any], outcome: str | None, detail: str | None) -> None:
        """Say what became of a request; nothing yet, if ``outcome`` is ``None``."""
        row.update(outcome=outcome, detail=detail)
        if outcome in (None, "early"):
            self.waiting[row["id"]] = row
        else:
            self.waiting.pop(row["id"], None)


def inbox_row(row: dict[str, Any]) -> InboxRow:
    """Return a request as executions get it."""
    return InboxRow(
        row["id"], row["execution_id"], row["kind"], row["target"], row["payload"], row["key"], row["actor"], row["us"]
    )


def execution_row(held: Held) -> ExecutionRow:
    """Return an execution as lists show it."""
    info: dict[str, Any] = {name: held.info.get(name) for name in INFO_COLUMNS}
    return ExecutionRow(
        id=held.id, writer=held.owner, status=held.status, started_us=held.started_us, updated_us=held.updated_us,
        finished_us=held.finished_us,
        open_interrupts=sum(known["status"] == "waiting" for known in held.questions.values()),
        **{**info, "flow_name": held.flow_name},
    )  # fmt: skip


def interrupt_row(held: Held, interrupt_id: str) -> InterruptRow:
    """Return a question as lists show it."""
    known = held.questions[interrupt_id]
    record = known["record"]
    return InterruptRow(
        interrupt_id, held.id, held.flow_name, held.owner, known["status"],
        known["answer"] is not None or known["status"] == "resumed", record.get("type", "pause"),
        record.get("payload"), record.get("schema"), record.get("assignees") or [], known["opened_us"],
        known["expires_us"], known["closed_us"], known["response"], known["actor"], record,
    )  # fmt: skip
