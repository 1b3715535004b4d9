"""The flag the writer thread waits for, and what must never stop that thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.durable.support import until

from flowdeck import Runtime
from flowdeck.durable import SqliteStore, open_control
from flowdeck.durable._signal import Signal
from flowdeck.durable.store import Commit
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, WriterLock
from flowdeck.triggerflow import TriggerFlow


def test_it_wakes_and_is_taken_down() -> None:
    """Setting is remembered, once; waiting takes it down; a wait ends in time."""
    signal = Signal()
    assert not signal.is_set() and not signal.wait(0.001)
    signal.set()
    signal.set()
    assert signal.is_set() and signal.wait()
    assert not signal.is_set()
    signal.set()
    signal.clear()
    signal.clear()
    assert not signal.wait(0.001)


def test_two_threads_wake_each_other_without_loss() -> None:
    """A ping-pong of two flags never misses one."""
    there, back = Signal(), Signal()

    def answer() -> None:
        for _ in range(2_000):
            assert there.wait(10)
            back.set()

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(2_000):
        there.set()
        assert back.wait(10)

    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    layout = Layout.create(tmp_path / "store")
    lock = WriterLock(layout)
    made = SqliteStore(open_control(layout.root, lock.writer), "process")
    yield made
    made.close(5.0)
    lock.release()


def test_a_finaliser_may_commit_while_a_commit_is_handed_over(store: SqliteStore) -> None:
    """The garbage collector runs anywhere, and ends abandoned runs: what they say to the store does not block."""

    class Abandoned:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            store.control.ask(lambda connection: 1, lambda answer, error: ended.append(error))

    ended: list[BaseException | None] = []
    told: list[BaseException | None] = []
    threshold = gc.get_threshold()
    gc.set_threshold(3)
    try:

        def work() -> None:
            for _ in range(300):
                Abandoned()
                store.control.ask(lambda connection: 1, lambda answer, error: told.append(error))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), "it waits for itself"
    finally:
        gc.set_threshold(*threshold)

    gc.collect()
    assert store.flush(10.0)
    assert told == [None] * 300 and ended == [None] * 300


def test_a_loop_that_has_ended_is_forgotten(tmp_path: Path) -> None:
    """A program that calls ``asyncio.run`` again and again does not keep its event loops."""
    loops: list[weakref.ref[Any]] = []
    flow = TriggerFlow(name="short")
    flow.to(lambda data: 1)
    runtime = Runtime(services=Services(center=EventCenter()))

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await flow.async_start(1, services=runtime.services)  # keeps no handle

    with runtime.use_store(tmp_path / "loops", durability="process"):
        for _ in range(4):
            asyncio.run(main())

        # The last one is kept until another is used; the inbox's thread holds what it was told until it ends.
        assert until(lambda: gc.collect() >= 0 and not any(loop() for loop in loops[:-1]))


def test_one_that_cannot_be_told_stops_nobody(store: SqliteStore) -> None:
    """Who waited is gone (its event loop is closed): its commit stays, and those beside and after it are told."""

    def gone(error: BaseException | None) -> None:
        raise RuntimeError("Event loop is closed")

    told: list[Any] = []
    held = threading.Event()
    store.control.ask(lambda connection: held.wait(10), lambda answer, error: None)  # so that both share a commit
    header = {"definition": "d", "definitions": (("d", b""),)}
    store.submit(Commit("one", 1, 0, header=b"\x80", **header), gone)
    store.submit(Commit("two", 1, 0, header=b"\x80", **header), told.append)
    held.set()
    assert store.flush(10.0)
    assert told == [None]
    store.submit(Commit("one", 1, 0, parked=True), told.append)
    assert store.flush(10.0) and told == [None, None], "the first was committed once, and its fence is as it was"


def test_a_defect_in_the_writer_is_told_and_does_not_hang(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the writer thread did not expect fails the commits it held; the next ones are written."""
    told: list[BaseException | None] = []
    with monkeypatch.context() as patched:
        patched.setattr(store.control, "_commit_all", lambda *arguments: 1 / 0)
        store.submit(Commit("one", 1, 0, header=b"\x80", definition="d"), told.append)
        assert store.flush(10.0)

    store.submit(Commit("one", 1, 0, header=b"\x80", definition="d"), told.append)
    assert store.flush(10.0)
    assert "ZeroDivisionError while writing" in str(told[0]) and told[1:] == [None]
    assert "could not handle 1 commit" in caplog.text
