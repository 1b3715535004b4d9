"""Stores to put through the clauses: each shelf can be opened by several owners, and an owner can be killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.plan import compile_plan
from flowdeck.definition.process import Process
from flowdeck.definition.skeleton import dump_plan, plan_digest
from flowdeck.durable import MemoryStore, Shelf, SqliteStore, open_control
from flowdeck.durable.store import Commit, ExecutionStore
from flowdeck.layout import Layout, WriterLock

__all__ = ["DEFINITION", "HEADER", "MemoryBench", "SqliteBench", "StoreBench", "body", "record"]

pack = msgspec.msgpack.Encoder().encode


def _skeleton(name: str) -> bytes:
    blueprint = Blueprint(name)
    Process(blueprint).to(("first", lambda data: 1)).to(("second", lambda data: 2))
    return dump_plan(compile_plan(blueprint))


SKELETON = _skeleton("tested")
DEFINITION = plan_digest(SKELETON)


def HEADER(execution_id: str, flow: str = "tested", **more: Any) -> bytes:
    """Return a valid header."""
    return pack(
        {
            "format": 1,
            "execution_id": execution_id,
            "flow": {"name": flow, "fingerprint": "f"},
            "entrypoint": None,
            "created_at": 1,
            "started_at": 1,
            "run_context": {"run_kind": "workflow_execution", "run_id": f"r-{execution_id}", "meta": {}},
            "settings": [False, None],
            "concurrency": 0,
            "skip_exceptions": False,
            "handle_exposed": True,
            "deadline_us": None,
            "flow_data": {},
            "interventions": None,
            **more,
        }
    )


def record(key: str, value: Any) -> list[Any]:
    """Return an input that changes the state."""
    return ["s", 0, 1, key, value]


def body(*records: list[Any], us: int = 1_000) -> bytes:
    """Return the body of a commit."""
    return pack([us, list(records)])


class StoreBench:
    """Opens stores over one shelf, and makes their methods wait for the outcome."""

    def open(self, owner: str = "a") -> ExecutionStore:
        raise NotImplementedError

    def kill(self, owner: str) -> None:
        """End the owner's process: whatever it still does comes too late."""
        raise NotImplementedError

    def close(self) -> None:
        pass

    def commit(self, store: ExecutionStore, commit: Commit) -> BaseException | None:
        """Submit, and return the outcome."""
        said: list[BaseException | None] = []
        heard = threading.Event()

        def done(error: BaseException | None) -> None:
            said.append(error)
            heard.set()

        store.submit(commit, done)
        assert heard.wait(10.0), "the store never said what became of a commit"
        return said[0]

    def begin(self, store: ExecutionStore, name: str = "e1", count: int = 1, flow: str = "tested", **more: Any) -> None:
        """Create an execution with some inputs, registered and running."""
        options: dict[str, Any] = {"header": HEADER(name, flow), "definition": DEFINITION}
        info = {"flow_name": flow, "started_us": time.time_ns() // 1_000}
        changes = (("opened", (Handle(name), info)), ("status", (name, "running")))
        records = [record(f"k{i}", i) for i in range(count)]
        problem = self.commit(
            store,
            Commit(
                name,
                1,
                0,
                count,
                body(*records) if count else b"",
                **{**options, "definitions": ((DEFINITION, SKELETON),), "changes": changes, **more},
            ),
        )
        assert problem is None, problem

    def append(
        self, store: ExecutionStore, name: str, seq: int, *records: list[Any], token: int = 1, **more: Any
    ) -> BaseException | None:
        """Append inputs and return the outcome."""
        return self.commit(store, Commit(name, token, seq, len(records), body(*records) if records else b"", **more))

    def park(self, store: ExecutionStore, name: str, seq: int, wake_us: int | None = None, token: int = 1) -> None:
        """Leave an execution at rest."""
        assert self.append(store, name, seq, token=token, parked=True, wake_us=wake_us) is None

    def finish(self, store: ExecutionStore, name: str, seq: int, status: str = "completed", token: int = 1) -> None:
        """End an execution."""
        changes = (("finished", (name, status)),)
        done = self.append(store, name, seq, record("end", 1), token=token, parked=True, finished=True, changes=changes)
        assert done is None, done

    def ask(self, store: ExecutionStore, name: str, seq: int, interrupt: str = "i1", **record_: Any) -> None:
        """Open an interrupt."""
        fields = {"id": interrupt, "type": "approval", "payload": {"q": 1}, **record_}
        changes = (("interrupt_opened", (name, fields)), ("status", (name, "waiting")))
        assert self.append(store, name, seq, changes=changes, parked=True) is None


class Handle:
    """An execution as the inbox sees it; keeps what it is handed."""

    def __init__(self, execution_id: str) -> None:
        self.id = execution_id
        self.rows: list[Any] = []

    def deliver(self, row: Any) -> None:
        self.rows.append(row)


class MemoryBench(StoreBench):
    def __init__(self, make: Callable[[Shelf, str], MemoryStore] = MemoryStore) -> None:
        self.shelf = Shelf()
        self.make = make

    def open(self, owner: str = "a") -> ExecutionStore:
        return self.make(self.shelf, owner)

    def kill(self, owner: str) -> None:
        self.shelf.dead.add(owner)


class SqliteBench(StoreBench):
    def __init__(self, folder: Path, make: Callable[..., SqliteStore] = SqliteStore) -> None:
        self.layout = Layout.create(folder / "store")
        self.make = make
        self.locks: dict[str, WriterLock] = {}
        self.stores: list[SqliteStore] = []

    def open(self, owner: str = "a") -> ExecutionStore:
        lock = self.locks.get(owner)
        if lock is None or not lock.held:
            lock = self.locks[owner] = WriterLock(self.layout)

        store = self.make(open_control(self.layout.root, lock.writer), "process")
        self.stores.append(store)
        return store

    def kill(self, owner: str) -> None:
        self.locks[owner].release()

    def close(self) -> None:
        for store in self.stores:
            store.close(5.0)

        for lock in self.locks.values():
            lock.release()
