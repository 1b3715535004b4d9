"""The past asked in a process beside the window: the same answers, and what becomes of that process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.devtools.scene import busy_store
from tests.devtools.terminal import wait_until

from flowdeck.layout import StoreError
from flowdeck_devtools.core import apart
from flowdeck_devtools.core.apart import ApartReader, import_path
from flowdeck_devtools.core.history import History
from flowdeck_devtools.core.past import PastReader, Wanted
from flowdeck_devtools.core.session import KEPT_RUNS, Session
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
    lines, problem = history.run_lines("r1")
    assert (lines, problem) == ([], history.problem)
    assert problem is not None
    assert problem.startswith("the process that reads the store ended (code 1) and said last: ")
    assert problem.endswith("No module named flowdeck_devtools.core.no_such_room; ask again")
    history.stop()
    with pytest.raises(StoreError, match="closes"):
        history.error_groups()


@pytest.mark.parametrize("how", ["stop", "let go"])
def test_nobody_waits_for_an_answer_nobody_wants(store: Path, how: str) -> None:
    """Closing the window, or leaving an answer unread, ends the child in the middle of its work."""
    reader = ApartReader(store)
    child = reader._taken(Wanted())
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


@pytest.fixture
def slow_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Children that are asked, make a folder where DuckDB would, say so in this folder and never answer."""
    said = tmp_path / "said"
    said.mkdir()
    (tmp_path / "never_answers.py").write_text(
        "import os, pathlib, sys\n"
        "sys.stdin.buffer.read(1)\n"
        "spilt = pathlib.Path(sys.argv[2], 'flowdeck-sql-1-ab')\n"
        "spilt.mkdir(parents=True)\n"
        "(spilt / 'block').write_bytes(bytes(10))\n"
        f"pathlib.Path({str(said)!r}, str(os.getpid())).symlink_to(sys.argv[2])\n"
        "sys.stdin.buffer.read()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # the child finds what this process finds
    monkeypatch.setattr(apart, "_MODULE", "never_answers")
    return said


def test_few_read_at_once_and_a_closed_run_is_read_no_more(
    store: Path, slow_children: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs are looked at, two children read; closing a run ends its reading, or its waiting, at once."""
    begun: list[subprocess.Popen[bytes]] = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    session = Session(store, apart=True)
    runs = [session.open_run(f"none-{number}") for number in range(KEPT_RUNS)]
    wait_until(lambda: len(list(slow_children.iterdir())) == apart.CHILDREN, 10.0, "both places to be taken")
    waiting = [one for one in runs if not one.wait(0)]
    assert (len(waiting), len(begun)) == (KEPT_RUNS, apart.CHILDREN)

    for number in range(KEPT_RUNS):  # each takes the place of an older one, which is closed
        session.open_run(f"other-{number}")
    for old in runs:
        assert old.wait(10.0)
        assert (old.closed, old.problem) == (True, None)
    wait_until(lambda: sum(one.returncode is None for one in begun) == apart.CHILDREN, 10.0, "two to be left")
    reader = session.history._reader
    assert isinstance(reader, ApartReader)
    wait_until(lambda: len(reader._busy) == apart.CHILDREN, 10.0, "the next two to read")
    assert reader._places.free == 0
    session.history.stop()
    wait_until(lambda: reader._places.free == apart.CHILDREN, 10.0, "all to end with the window")
    assert all(one.returncode is not None for one in begun)


@pytest.mark.parametrize("how", ["killed", "closed", "stopped"])
def test_what_a_killed_child_left_on_the_disk_is_removed(store: Path, slow_children: Path, how: str) -> None:
    """DuckDB's folder goes with a child that was killed from outside, for its run was closed, or with the window."""
    history, wanted = History(store, apart=True), Wanted()
    asking = threading.Thread(target=history.read_run, args=("r1", list[object]().extend, wanted))
    asking.start()
    wait_until(lambda: any(slow_children.iterdir()), 10.0, "the child to spill")
    (child,) = slow_children.iterdir()
    spilt = child.readlink()
    assert spilt.parent == Path(tempfile.gettempdir())
    assert (spilt / "flowdeck-sql-1-ab" / "block").exists()
    if how == "killed":
        os.kill(int(child.name), signal.SIGKILL)
        wait_until(lambda: not spilt.exists(), 10.0, "the folder to go")  # another child is asked in its place
    elif how == "closed":
        wanted.give_up()
        asking.join(10.0)
    history.stop()
    assert not spilt.exists()
    asking.join(10.0)
    for one in slow_children.iterdir():
        assert not one.readlink().exists()


def test_a_child_keeps_duckdbs_folder_where_its_parent_looks(store: Path, tmp_path: Path) -> None:
    """What a child puts aside lies in the folder that its parent named, and it removes that at its end."""
    spill = tmp_path / "spill"
    code = (
        "import sys; from flowdeck_devtools.core import past; from flowdeck_sinks.store._duckdb import spill_place\n"
        "past.serve = lambda *_: print(spill_place(), file=sys.stderr)\n"
        f"past.main({str(store)!r}, {str(spill)!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(ended.stderr.strip()).parent == spill
    assert not spill.exists()


def test_a_child_finds_what_the_window_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the import path go to it in their order; that where one stands never comes before a library."""
    monkeypatch.chdir(tmp_path)
    split = f"/opt/a{os.pathsep}b"
    places = ["", "/opt/vendor", "lib", str(tmp_path), split, b"/opt/bytes", "/opt/app.pex"]
    expected = ["/opt/vendor", str(tmp_path / "lib"), "/opt/app.pex", str(tmp_path)]
    assert import_path(places).split(os.pathsep) == expected
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    assert import_path(["", "lib", "/opt/vendor"]) == "/opt/vendor"


def test_the_window_asks_apart(store: Path) -> None:
    """What ``run_devtools`` opens, on one store or on several, keeps DuckDB out of its process."""
    for also in ((), (store.parent / "other",)):
        history = run._session(store, None, None, also).history
        parts = history._parts if isinstance(history, SeveralHistories) else [history]
        assert len(parts) == 1 + len(also)
        assert all(isinstance(part._reader, ApartReader) for part in parts)
