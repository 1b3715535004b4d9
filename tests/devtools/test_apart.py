"""The past asked in a process beside the window: the same answers, and what becomes of that process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.devtools.scene import busy_store
from tests.devtools.terminal import wait_until

from flowdeck.layout import StoreError
from flowdeck_devtools.core import apart
from flowdeck_devtools.core.apart import ApartReader
from flowdeck_devtools.core.history import History
from flowdeck_devtools.core.past import PastReader
from flowdeck_devtools.core.several import SeveralHistories
from flowdeck_devtools.tui import run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    scene = busy_store(tmp_path_factory.mktemp("apart") / "store")
    yield scene.store
    scene.close()


@pytest.fixture
def reader(store: Path) -> Iterator[ApartReader]:
    reader = ApartReader(store)
    yield reader
    reader.stop()


def process_of(reader: ApartReader) -> int:
    assert reader._resting is not None
    return reader._resting[0]._process.pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_as_a_reader_in_the_process_does(
    store: Path, reader: ApartReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, lines, a definition and faults come over unchanged, one child answers them all and then goes away."""
    monkeypatch.setattr(apart, "REST_SECONDS", 60.0)
    here = PastReader(store)
    (runs,) = reader.runs("status:failed", None, 50, [])
    pid = process_of(reader)
    (expected,) = here.runs("status:failed", None, 50, [])
    assert [(row.run_id, row.name, row.status, row.error, row.started_us) for row in runs] == [
        (row.run_id, row.name, row.status, row.error, row.started_us) for row in expected
    ]
    assert len(runs) == 1
    lines = list(reader.lines(runs[0].run_id, 1_000))
    assert lines == list(here.lines(runs[0].run_id, 1_000))
    assert sum(map(len, lines)) == runs[0].events
    assert list(reader.error_groups(5)) == list(here.error_groups(5))
    assert list(reader.definition("f-triage")) == [{"operators": [{"id": "op1"}]}]
    with pytest.raises(StoreError, match="nonsense"):
        list(reader.runs("nonsense:1", None, 5, []))
    monkeypatch.setattr(apart, "REST_SECONDS", 0.01)
    assert list(reader.definition("none such")) == [None]
    wait_until(lambda: not is_there(pid), 10.0, "the child to end")


def test_a_child_that_is_gone_is_replaced_once_and_then_said(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed at rest is not missed; where none can run the person reads so, and nothing hangs."""
    history = History(store, apart=True)
    reader = history._reader
    assert isinstance(reader, ApartReader)
    expected = next(PastReader(store).error_groups(100))
    assert history.error_groups() == expected
    for _ in range(2):
        os.kill(process_of(reader), signal.SIGKILL)
        assert history.error_groups() == expected
    monkeypatch.setattr(apart, "_MODULE", "flowdeck_devtools.core.no_such_room")
    os.kill(process_of(reader), signal.SIGKILL)
    assert history.run_lines("r1") == ([], "the process that reads the store ended (code 1); ask again")
    history.stop()
    with pytest.raises(StoreError, match="closes"):
        history.error_groups()


@pytest.mark.parametrize("how", ["stop", "let go"])
def test_nobody_waits_for_an_answer_nobody_wants(store: Path, how: str) -> None:
    """Closing the window, or leaving an answer unread, ends the child in the middle of its work."""
    reader = ApartReader(store)
    child = reader._taken()
    pid, ended = child._process.pid, threading.Event()
    answer = child.ask("runs", ("", None, 50, []))

    def read() -> None:
        try:
            next(answer)
            if how == "let go":
                answer.close()
        except StoreError:
            pass
        finally:
            reader._give_back(child)
            ended.set()

    asking = threading.Thread(target=read)
    asking.start()
    if how == "stop":
        reader.stop()
    assert ended.wait(10.0)
    asking.join()
    assert not is_there(pid)


def test_the_window_asks_apart(store: Path) -> None:
    """What ``run_devtools`` opens, on one store or on several, keeps DuckDB out of its process."""
    for also in ((), (store.parent / "other",)):
        history = run._session(store, None, None, also).history
        parts = history._parts if isinstance(history, SeveralHistories) else [history]
        assert len(parts) == 1 + len(also)
        assert all(isinstance(part._reader, ApartReader) for part in parts)
