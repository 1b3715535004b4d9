"""The control plane: what it registers, and that no failing file ever reaches a caller."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.durable.support import HERE, Problems, Recorder, line, open_pause, process, release, until

from flowdeck.durable import ControlClient, StateControl, control, open_control, statedb
from flowdeck.durable._batch import Ack, Batch, Change, InterruptClosed, InterruptOpened, Opened, StatusChanged
from flowdeck.layout import Layout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Layout.create(tmp_path / "store").root


@pytest.fixture
def problems() -> Problems:
    return Problems()


@pytest.fixture
def plane(store: Path, problems: Problems) -> Iterator[StateControl]:
    plane = open_control(store, "w1", on_problem=problems)
    yield plane
    plane.close(5.0)


@pytest.fixture
def client(store: Path) -> Iterator[ControlClient]:
    with ControlClient(store) as client:
        yield client


def test_an_execution_is_registered_with_its_lineage(plane: StateControl, client: ControlClient) -> None:
    """Another process sees who runs what, since when and in which state."""
    info = {
        "flow_name": "audit",
        "entrypoint": "shop.flows:audit",
        "run_id": "r1",
        "root_run_id": "r0",
        "parent_execution_id": "e0",
        "definition": "f00d",
        "task_id": "t",
        "tenant_id": "acme",
        "user_id": "ana",
        "started_us": 5,
    }
    plane.opened(Recorder("e1"), info)
    plane.status("e1", "running")
    assert plane.flush(5.0)

    row = client.get_execution("e1")
    assert row is not None
    assert {name: getattr(row, name) for name in info} == info
    assert (row.writer, row.status, row.finished_us, row.open_interrupts) == ("w1", "running", None, 0)


def test_an_interrupt_is_published_as_it_was_when_it_opened(plane: StateControl, client: ControlClient) -> None:
    """The record is copied at the call: what the execution changes in it later is not published by accident."""
    execution = Recorder("e1")
    plane.opened(execution, {"flow_name": "audit"})
    record: dict[str, Any] = {"id": "i1", "type": "approval", "payload": {"amount": 7}, "assignees": ["ana"]}
    record |= {"schema": {"type": "boolean"}, "expires_at": 2_000_000_000.5}
    plane.interrupt_opened("e1", record)
    record["payload"]["amount"] = 8
    assert plane.flush(5.0)

    row = client.get_interrupt("i1")
    assert row is not None
    assert (row.payload, row.schema, row.assignees) == ({"amount": 7}, {"type": "boolean"}, ["ana"])
    assert row.expires_us == 2_000_000_000_500_000
    assert row.flow_name == "audit"

    plane.interrupt_closed("e1", "i1", "resumed", {"ok": True}, "bob")
    assert plane.flush(5.0)
    row = client.get_interrupt("i1")
    assert row is not None
    assert (row.status, row.response, row.actor, row.answered) == ("resumed", {"ok": True}, "bob", True)


def test_an_execution_that_ends_leaves_nothing_open(plane: StateControl, client: ControlClient) -> None:
    """With the terminal status its interrupts are cancelled and requests nobody took are refused."""
    open_pause(plane, Recorder("e1"), "i1")
    sent = client.put_inbox("emit", "e1", "Stop", None, "ana")
    plane.finished("e1", "failed")
    assert plane.flush(5.0)

    assert client.list_interrupts() == []
    assert client.list_interrupts(open_only=False)[0].status == "cancelled"
    assert sent.row_id is not None
    refused = client.wait_outcome(sent.row_id, 0.0)
    assert (refused.outcome, refused.detail) == ("rejected", "the execution was already failed")
    execution = client.get_execution("e1")
    assert execution is not None
    assert (execution.status, execution.open_interrupts) == ("failed", 0)
    assert execution.finished_us is not None


def test_short_executions_share_commits(plane: StateControl, client: ControlClient) -> None:
    """A thousand executions that open and finish cost a handful of commits, and the watcher never starts for them."""
    for number in range(1_000):
        plane.opened(Recorder(f"e{number:04}"), {"flow_name": "short"})
        plane.finished(f"e{number:04}", "completed")
    assert plane.flush(10.0)

    assert len(client.list_executions(status="completed", limit=2_000)) == 1_000
    assert int(plane.statistics()["commits"]) <= 50
    assert plane.statistics()["watched"] == 0


def test_bad_input_never_raises_and_is_counted(plane: StateControl, client: ControlClient, problems: Problems) -> None:
    """A record without id, a broken execution object and values SQLite cannot hold are counted; the rest goes on."""

    class Broken:
        @property
        def id(self) -> str:
            raise OSError("gone")

        def deliver(self, row: object) -> None: ...

    plane.opened(Broken(), {})
    plane.opened(Recorder("e1"), 7)  # type: ignore[arg-type]
    plane.opened(Recorder("e2"), {"flow_name": "f", "started_us": 1 << 80})
    plane.opened(Recorder("e3"), {"flow_name": "\ud800"})
    plane.opened(Recorder("good"), {"flow_name": object})
    plane.interrupt_opened("good", {"type": "approval"})
    plane.interrupt_opened("good", {"id": "i1", "payload": {"live": object(), "kept": 1}})
    plane.interrupt_closed("good", "i1", "resumed", {1j: 2}, None)
    assert plane.flush(5.0)

    assert [row.id for row in client.list_executions()] == ["good"]
    record = client.list_interrupts(open_only=False)[0]
    assert record.payload["kept"] == 1
    assert record.payload["live"].startswith("<object object")
    assert (plane.statistics()["dropped"], plane.statistics()["unencodable"]) == (5, 2)
    assert problems.kinds() == ["dropped"]


def test_a_locked_file_blocks_nobody(plane: StateControl, client: ControlClient, problems: Problems) -> None:
    """While another process holds the file, calls return at once; what they said is there as soon as it is free."""
    with process("process_locker.py", plane.path, "0.6") as locker:
        assert line(locker) == "locked"
        slowest = 0.0
        for number in range(50):
            begin = time.perf_counter()
            plane.opened(Recorder(f"e{number}"), {"flow_name": "f"})
            plane.status(f"e{number}", "running")
            slowest = max(slowest, time.perf_counter() - begin)

        assert not plane.flush(0.01)
        assert slowest < 0.1
        assert client.list_executions() == []
        assert plane.flush(10.0)
        assert line(locker) == "free"

    assert len(client.list_executions()) == 50
    statistics = plane.statistics()
    assert (statistics["dropped"], statistics["state"]) == (0, "ok")
    assert int(statistics["retries"]) >= 1
    assert problems.kinds() == ["busy"]


def test_opening_beside_a_lock_is_not_refused(tmp_path: Path) -> None:
    """A new store that somebody else is just creating can be opened; registration follows when the lock is gone."""
    store = Layout.create(tmp_path / "store").root
    with process("process_locker.py", store / "state.db") as locker:
        assert line(locker) == "locked"
        plane = open_control(store, "w1", on_problem=Problems())
        plane.opened(Recorder("e1"), {"flow_name": "f"})
        assert not plane.flush(0.05)
        release(locker)
        assert plane.flush(10.0)

    with ControlClient(store) as client:
        assert [row.id for row in client.list_executions()] == ["e1"]
    plane.close(5.0)


def test_a_full_queue_drops_the_newest_and_says_so_once(
    plane: StateControl, client: ControlClient, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing can be written, memory stays bounded: what exceeds the limit is counted."""
    monkeypatch.setattr(control, "QUEUE_LIMIT", 100)
    with process("process_locker.py", plane.path) as locker:
        assert line(locker) == "locked"
        for number in range(300):
            plane.opened(Recorder(f"e{number}"), {"flow_name": "f"})
        assert not plane.flush(0.05)
        dropped = int(plane.statistics()["dropped"])
        # A change on its way from the queue into the batch counts in neither for a moment.
        assert 190 <= dropped <= 200

    assert plane.flush(10.0)
    assert len(client.list_executions(limit=500)) == 300 - dropped
    assert problems.kinds().count("full_queue") == 1


def test_close_writes_the_rest_and_keeps_its_time(plane: StateControl, client: ControlClient) -> None:
    """Closing commits what was said before, later calls are ignored, and a lock cannot hold it up."""
    plane.opened(Recorder("e1"), {"flow_name": "f"})
    plane.close(5.0)
    plane.opened(Recorder("e2"), {"flow_name": "f"})
    assert [row.id for row in client.list_executions()] == ["e1"]
    assert plane.statistics()["state"] == "closed"

    second = open_control(plane.path, "w2", on_problem=Problems())
    with process("process_locker.py", plane.path) as locker:
        assert line(locker) == "locked"
        second.opened(Recorder("e3"), {"flow_name": "f"})
        begin = time.monotonic()
        second.close(0.2)
        assert time.monotonic() - begin < 1.0


def test_a_deleted_store_is_reported_and_a_new_one_is_used(
    plane: StateControl, store: Path, problems: Problems
) -> None:
    """Removing the folder under a live run raises nothing; when a store is there again, new work registers in it."""
    open_pause(plane, Recorder("e1"), "i1")
    shutil.rmtree(store)
    plane.opened(Recorder("e2"), {"flow_name": "f"})
    assert not plane.flush(0.2)
    assert "unwritable" in problems.kinds()

    Layout.create(store)
    assert plane.flush(10.0)
    with ControlClient(store) as client:
        assert [row.id for row in client.list_executions()] == ["e2"]
        sent = client.put_inbox("cancel", "e2", None, None, "ana")
        assert sent.row_id is not None
        recorder = Recorder("e3", plane)
        plane.opened(recorder, {"flow_name": "f"})
        assert plane.flush(5.0)
        client.put_inbox("cancel", "e3", None, None, "ana")
        until(lambda: recorder.rows)


def test_an_execution_that_was_taken_over_is_not_overwritten(
    plane: StateControl, store: Path, client: ControlClient, problems: Problems
) -> None:
    """After another owner opened it, what the former one still says about it is fenced out and counted."""
    plane.opened(Recorder("e1"), {"flow_name": "f"})
    assert plane.flush(5.0)
    other = open_control(store, "w2", on_problem=Problems())
    open_pause(other, Recorder("e1"), "i1")

    plane.finished("e1", "failed")
    assert plane.flush(5.0)
    row = client.get_execution("e1")
    assert row is not None
    assert (row.writer, row.status, row.open_interrupts) == ("w2", "waiting", 1)
    assert (plane.statistics()["fenced"], problems.kinds()) == (1, ["fenced"])
    other.close(5.0)


def test_forked_children_use_nothing_of_their_parent(store: Path) -> None:
    """Forks in the middle of writing: parent and children register, each under its own writer, in a file that stays
    whole; and the parent still hears its answers."""
    plane = open_control(store, lambda: f"w{os.getpid()}", on_problem=Problems())
    recorder = Recorder("parent", plane)
    open_pause(plane, recorder, "i1")
    expected = {"parent": f"w{os.getpid()}"}
    for round_number in range(5):
        for number in range(200):
            plane.opened(Recorder(f"p{round_number}-{number}"), {"flow_name": "f"})
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                assert plane.statistics()["watched"] == 0
                assert plane.statistics()["queued"] == 0
                plane.opened(Recorder(f"child-{round_number}"), {"flow_name": "f"})
                assert plane.flush(10.0)
                plane.close(5.0)
                failed = 0
            finally:
                os._exit(failed)

        expected[f"child-{round_number}"] = f"w{child}"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert plane.flush(5.0)
    with ControlClient(store) as client:
        owners = {row.id: row.writer for row in client.list_executions(limit=2_000)}
        assert len(owners) == 1_000 + 6
        assert {name: owners[name] for name in expected} == expected
        client.answer("i1", True, "ana")
        until(lambda: recorder.rows)

    plane.close(5.0)
    with closing(sqlite3.connect(plane.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_program_that_just_ends_has_registered_its_last_word(store: Path) -> None:
    """Without any close or flush, the terminal status of the last execution is in the file when the process is gone."""
    script = (
        "import sys\n"
        "from flowdeck.durable import open_control\n"
        "class E:\n"
        "    id = 'e1'\n"
        "    def deliver(self, row): ...\n"
        "control = open_control(sys.argv[1], 'w1')\n"
        "control.opened(E(), {'flow_name': 'f'})\n"
        "control.finished('e1', 'completed')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(store)], check=True, timeout=30)
    with ControlClient(store) as client:
        assert [row.status for row in client.list_executions()] == ["completed"]


def test_no_rights_and_no_room_end_in_clear_errors() -> None:
    """An unprivileged process cannot write where it may not (but reads), and survives a full disk without loss."""
    # Not under tmp_path, whose parents only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o755)
        plane = open_control(Layout.create(base / "locked").root, "w1", on_problem=Problems())
        open_pause(plane, Recorder("e1"), "i1")
        plane.close(5.0)
        for path in [base / "locked", *(base / "locked").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        (base / "own").mkdir()
        (base / "own").chmod(0o777)

        done = subprocess.run(
            [sys.executable, str(HERE / "process_unprivileged.py"), str(base)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        for path in [base / "locked", *(base / "locked").rglob("*")]:
            path.chmod(0o755)

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["read_only"]["interrupts"] == ["i1"]
    for refused in (seen["read_only"]["open"], seen["read_only"]["answer"]):
        assert refused[0] == "StorePermission"
        assert "permission" in refused[1]
    full = seen["full_disk"]
    assert (full["flushed"], full["state"]) == (False, "failing")
    assert full["retries"] >= 1
    assert len(full["problems"]) == 1
    assert (full["recovered"], full["executions"]) == (True, 200)


# -- merging -----------------------------------------------------------------------------------------------------------

_executions = st.sampled_from(["a", "b"])
_status = st.sampled_from(["running", "waiting", "completed", "failed"])
_interrupt = st.sampled_from(["x", "y"])
_changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(Opened, _executions, st.just("w"), st.just({"flow_name": "f", "started_us": 1}), st.just(0), st.none()),
    st.builds(StatusChanged, _executions, st.just("w"), _status, st.just(0)),
    st.builds(
        InterruptOpened, _executions, _interrupt, st.just("t"), st.sampled_from(["1", "2"]), st.none(), st.just(0)
    ),
    st.builds(InterruptClosed, _executions, _interrupt, st.just("resumed"), st.just("0"), st.none(), st.just(0)),
    st.builds(Ack, st.sampled_from([1, 2]), st.sampled_from(["applied", "rejected", "early"]), st.none(), st.just(0)),
)


def written(batches: list[Batch]) -> list[list[tuple[Any, ...]]]:
    """Return all rows after the batches were written to fresh tables with two inbox rows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in statedb._SCHEMA:
            connection.execute(statement)
        for row_id, execution_id in ((1, "a"), (2, "b")):
            connection.execute(
                "INSERT INTO inbox (id, execution_id, kind, target, payload, dedup_key, created_us) "
                "VALUES (?, ?, 'resume', 'x', '1', 'k', 0)",
                (row_id, execution_id),
            )
        # One interrupt that somebody has answered already, its row being the first of the inbox.
        connection.execute(
            "INSERT INTO interrupts (id, execution_id, status, type, record, opened_us, answer_row) "
            "VALUES ('x', 'a', 'waiting', 't', '1', 0, 1)"
        )
        for batch in batches:
            batch.write(connection)
        return [
            connection.execute(f"SELECT * FROM {t} ORDER BY id, 2").fetchall()
            for t in ("executions", "interrupts", "inbox")
        ]


@settings(max_examples=200, deadline=None)
@given(st.lists(_changes, max_size=12))
def test_a_merged_batch_means_what_its_changes_mean(changes: list[Change]) -> None:
    """Written together or one by one, the same changes leave the same rows."""
    together, one_by_one = Batch(), []
    for number, change in enumerate(changes):
        change = change._replace(us=number)
        together.add(change)
        single = Batch()
        single.add(change)
        one_by_one.append(single)

    assert written([together]) == written(one_by_one)
