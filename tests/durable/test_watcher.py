"""The inbox reaches its execution: in order, exactly once, and only the owner."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.durable.support import Problems, Recorder, open_pause, until

from flowdeck.durable import ControlClient, StateControl, _watcher, open_control
from flowdeck.durable.statedb import connect, prepare
from flowdeck.execution.control import InboxRow
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
def client(store: Path, plane: StateControl) -> Iterator[ControlClient]:
    with ControlClient(store) as client:
        yield client


def test_a_row_arrives_whole(plane: StateControl, client: ControlClient) -> None:
    """What was sent is what the execution is handed, and its ack is what the sender sees."""
    execution = Recorder("e1", plane)
    open_pause(plane, execution, "i1")
    sent = client.answer("i1", {"ok": [1, None, "ä"]}, "ana", "key-1")
    assert sent.row_id is not None
    assert client.wait_outcome(sent.row_id, 5.0).outcome == "applied"

    (row,) = execution.rows
    assert (row.id, row.execution_id, row.kind, row.target) == (sent.row_id, "e1", "resume", "i1")
    assert (row.payload, row.actor, row.dedup_key) == ({"ok": [1, None, "ä"]}, "ana", "key-1")


def test_rows_that_lay_there_are_delivered_at_open_in_order(plane: StateControl, client: ControlClient) -> None:
    """Requests to an execution nobody runs wait for its next owner, which gets them before newer ones, each once."""
    first = Recorder("e1")
    open_pause(plane, first, "i1")
    other = open_control(plane.path, "w2")
    for number in range(3):
        client.put_inbox("emit", "e1", "Nudge", number, "ana")
    until(lambda: len(first.rows) == 3)

    second = Recorder("e1", other)
    other.opened(second, {"flow_name": "audit"})
    for number in range(3, 6):
        client.put_inbox("emit", "e1", "Nudge", number, "ana")
    until(lambda: len(second.rows) == 6)
    assert [row.payload for row in second.rows] == list(range(6))
    until(lambda: not client.list_inbox(pending_only=True))
    assert len(first.rows) <= 6
    other.close(5.0)


def test_only_the_owner_is_handed_a_row(plane: StateControl, store: Path, client: ControlClient) -> None:
    """After another process took an execution over, the former owner hears nothing of it any more."""
    former, owner, bystander = Recorder("e1"), Recorder("e1"), Recorder("e2")
    open_pause(plane, former, "i1")
    plane.opened(bystander, {"flow_name": "audit"})
    taker = open_control(store, "w2")
    taker.opened(owner, {"flow_name": "audit"})
    assert taker.flush(5.0)
    assert plane.flush(5.0)

    client.put_inbox("emit", "e1", "Nudge", None, "ana")
    client.put_inbox("emit", "e2", "Nudge", None, "ana")
    until(lambda: owner.rows)
    until(lambda: bystander.rows)
    assert former.rows == []
    taker.close(5.0)


def test_an_early_answer_is_seen_again_by_the_next_owner(plane: StateControl, client: ControlClient) -> None:
    """An answer to an interrupt that does not exist yet is kept over a change of the owner."""
    plane.opened(Recorder("e1", plane, "early"), {"flow_name": "audit"})
    assert plane.flush(5.0)
    sent = client.put_inbox("resume", "e1", "not-yet", True, "ana")
    assert sent.row_id is not None
    assert client.wait_outcome(sent.row_id, 5.0).outcome == "early"

    again = Recorder("e1", plane)
    plane.opened(again, {"flow_name": "audit"})
    until(lambda: [row.target for row in again.rows] == ["not-yet"])
    until(lambda: client.wait_outcome(sent.row_id or 0, 1.0).outcome == "applied")


def test_one_bad_row_or_execution_does_not_stop_the_rest(
    plane: StateControl, client: ControlClient, problems: Problems
) -> None:
    """A payload that is no JSON is refused; an execution that cannot take a row leaves it for the next owner."""

    class Failing(Recorder):
        def deliver(self, row: InboxRow) -> None:
            raise RuntimeError("loop is closed")

    healthy = Recorder("e1", plane)
    open_pause(plane, healthy, "i1")
    plane.opened(Failing("e2"), {"flow_name": "audit"})
    assert plane.flush(5.0)
    stuck = client.put_inbox("cancel", "e2", None, None, "ana")
    with closing(connect(plane.path, 5.0)) as connection:
        connection.execute(
            "INSERT INTO inbox (execution_id, kind, payload, dedup_key, created_us) VALUES ('e1', 'emit', '{', 'k', 0)"
        )
    client.put_inbox("cancel", "e1", None, None, "ana")
    until(lambda: healthy.rows)

    refused = until(lambda: [row for row in client.list_inbox(execution_id="e1") if row.outcome == "rejected"])
    assert "not JSON" in refused[0].detail
    assert problems.kinds() == ["delivery"]
    assert [row.id for row in client.list_inbox(pending_only=True)] == [stuck.row_id]
    next_owner = Recorder("e2", plane)
    plane.opened(next_owner, {"flow_name": "audit"})
    until(lambda: next_owner.rows)


def test_watching_ends_with_the_last_execution(plane: StateControl, client: ControlClient) -> None:
    """The thread lives while something is open, ends afterwards, and comes back for the next execution."""
    assert "flowdeck-inbox" not in [thread.name for thread in threading.enumerate()]
    plane.opened(Recorder("e1"), {"flow_name": "audit"})
    until(lambda: plane.statistics()["watching"])
    plane.finished("e1", "completed")
    until(lambda: not plane.statistics()["watching"])

    again = Recorder("e2", plane)
    open_pause(plane, again, "i1")
    client.answer("i1", True, "ana")
    until(lambda: again.rows)


def test_every_row_exactly_once_under_load(plane: StateControl, store: Path) -> None:
    """Four senders and forty executions that open and end meanwhile: what reaches one is complete, ordered, unique."""
    executions = [Recorder(f"e{number}", plane) for number in range(40)]
    sent: dict[str, list[int]] = {execution.id: [] for execution in executions}

    def send(part: int) -> None:
        with ControlClient(store) as client:
            for number in range(200):
                execution = executions[part * 10 + number % 10]
                result = client.put_inbox("emit", execution.id, "Tick", number, None)
                if result.row_id is not None:
                    sent[execution.id].append(result.row_id)

    threads = [threading.Thread(target=send, args=(part,)) for part in range(4)]
    for number, execution in enumerate(executions):
        plane.opened(execution, {"flow_name": "audit"})
        if number == 20:
            assert plane.flush(5.0)
            for thread in threads:
                thread.start()
    for thread in threads:
        thread.join()

    until(lambda: all(len(execution.rows) >= len(sent[execution.id]) for execution in executions))
    for execution in executions:
        assert [row.id for row in execution.rows] == sent[execution.id]
    assert sum(map(len, sent.values())) > 400


def test_an_idle_file_is_not_read(plane: StateControl, store: Path) -> None:
    """While nobody writes, the watcher asks for the version only: the inbox is read when something changed."""
    open_pause(plane, Recorder("e1"), "i1")
    until(lambda: plane.statistics()["looks"])
    ticks = threading.Event()
    ticks.wait(0.1)  # lets the look after the last own commit happen
    looks = plane.statistics()["looks"]
    ticks.wait(0.3)
    assert plane.statistics()["looks"] == looks

    with closing(sqlite3.connect(store / "state.db")) as connection:
        connection.execute("UPDATE executions SET user_id = 'ana'")
        connection.commit()
    until(lambda: plane.statistics()["looks"] == int(looks) + 1)


def test_who_answers_in_the_same_process_does_not_wait_for_the_next_look(
    plane: StateControl, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request put into the inbox rings the watchers of its own process; with looks an hour apart it still arrives."""
    execution = Recorder("e1", plane)
    open_pause(plane, execution, "i1")
    until(lambda: plane.statistics()["looks"])
    monkeypatch.setattr(_watcher, "TICK_SECONDS", 3600.0)
    client.put_inbox("emit", "e1", "Nudge", 1, "ana")
    until(lambda: execution.rows)
    client.put_inbox("emit", "e1", "Nudge", 2, "ana")
    until(lambda: len(execution.rows) == 2)


def test_a_file_that_cannot_be_read_is_tried_again(
    plane: StateControl, client: ControlClient, problems: Problems
) -> None:
    """A damaged file is reported once; when it is mended, what waits is delivered without a repetition."""
    execution = Recorder("e1", plane)
    open_pause(plane, execution, "i1")
    client.put_inbox("emit", "e1", "A", None, None)
    until(lambda: execution.rows)
    with closing(connect(plane.path, 5.0)) as connection:
        connection.execute("ALTER TABLE inbox RENAME TO hidden")
        until(lambda: "watch" in problems.kinds())
        connection.execute("ALTER TABLE hidden RENAME TO inbox")

    client.put_inbox("emit", "e1", "B", None, None)
    until(lambda: [row.target for row in execution.rows] == ["A", "B"])
    assert problems.kinds().count("watch") == 1


def test_the_file_may_be_prepared_by_its_users_at_any_time(plane: StateControl, client: ControlClient) -> None:
    """Preparing a file that is in use takes nobody's locks away: another process cannot remove its log."""
    open_pause(plane, Recorder("e1"), "i1")
    for _ in range(3):
        prepare(plane.path, 1.0)
    log = plane.path.with_name("state.db-wal")
    assert log.stat().st_size > 0
    import subprocess
    import sys

    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM inbox'); c.close()"
    subprocess.run([sys.executable, "-c", script, str(plane.path)], check=True, timeout=30)
    assert log.exists()
