"""Reading and answering from outside: who wins, what is refused, and how an interrupt is named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.durable.support import Problems, Recorder, line, open_pause, process, say, until

from flowdeck.durable import AmbiguousInterrupt, AnswerResult, ControlClient, StateControl, open_control
from flowdeck.layout import Layout, WriterLock


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Layout.create(tmp_path / "store").root


@pytest.fixture
def plane(store: Path) -> Iterator[StateControl]:
    plane = open_control(store, "w1", on_problem=Problems())
    yield plane
    plane.close(5.0)


@pytest.fixture
def client(store: Path) -> Iterator[ControlClient]:
    with ControlClient(store) as client:
        yield client


def outcomes(client: ControlClient, *answers: tuple[Any, ...]) -> list[str | None]:
    return [client.answer(*answer).outcome for answer in answers]


def test_a_store_without_executions_is_empty(store: Path, client: ControlClient) -> None:
    """Before anything ran, lists are empty and answers unknown; the first execution then shows in the same client."""
    assert client.list_executions() == []
    assert client.list_interrupts() == []
    assert client.get_interrupt("i1") is None
    assert client.answer("i1", True, "ana").outcome == "unknown"
    assert client.put_inbox("cancel", "e1", None, None, "ana").outcome == "unknown"
    assert client.version() == 0

    plane = open_control(store, "w1")
    open_pause(plane, Recorder("e1"), "i1")
    assert [row.id for row in client.list_interrupts()] == ["i1"]
    plane.close(5.0)


def test_the_first_answer_wins(plane: StateControl, client: ControlClient) -> None:
    """A second answer is a conflict that names who was first; with the same key and value it is a duplicate."""
    open_pause(plane, Recorder("e1"), "i1")
    first = client.answer("i1", {"ok": True}, "ana", "key")
    assert (first.outcome, first.accepted) == (None, True)
    assert client.list_interrupts()[0].answered

    late = client.answer("i1", {"ok": False}, "bob")
    assert (late.outcome, late.row_id, late.accepted) == ("conflict", None, False)
    assert "by ana" in (late.detail or "")
    repeated = client.answer("i1", {"ok": True}, "ana", "key")
    assert (repeated.outcome, repeated.row_id, repeated.accepted) == ("duplicate", first.row_id, True)
    assert client.answer("i1", {"ok": 1}, "ana", "key").outcome == "conflict"
    assert client.put_inbox("emit", "e1", "E", {"ok": True}, "ana", "key").outcome == "conflict"
    assert len(client.list_inbox()) == 1


def test_a_retry_after_the_end_is_still_a_duplicate(plane: StateControl, client: ControlClient) -> None:
    """A caller that did not hear the first time learns that its answer counted, even when all is over."""
    open_pause(plane, Recorder("e1", plane), "i1")
    first = client.answer("i1", 1, "ana", "key")
    assert client.wait_outcome(first.row_id or 0, 5.0).outcome == "applied"
    plane.interrupt_closed("e1", "i1", "resumed", 1, "ana")
    plane.finished("e1", "completed")
    assert plane.flush(5.0)
    assert outcomes(client, ("i1", 1, "ana", "key"), ("i1", 2, "bob")) == ["duplicate", "conflict"]


def test_what_cannot_be_answered_says_why(plane: StateControl, client: ControlClient) -> None:
    """Expired, cancelled, unknown and finished each have their own outcome."""
    open_pause(plane, Recorder("e1"), "past", expires_at=time.time() - 1)
    plane.interrupt_opened("e1", {"id": "future", "expires_at": time.time() + 60})
    plane.interrupt_opened("e1", {"id": "gone"})
    plane.interrupt_closed("e1", "gone", "cancelled", None, None)
    plane.interrupt_opened("e1", {"id": "lapsed"})
    plane.interrupt_closed("e1", "lapsed", "expired", None, None)
    assert plane.flush(5.0)
    ids = ("past", "future", "gone", "lapsed", "none")
    assert outcomes(client, *((name, True, "ana") for name in ids)) == [
        "expired",
        None,
        "conflict",
        "expired",
        "unknown",
    ]

    plane.finished("e1", "completed")
    assert plane.flush(5.0)
    refused = client.put_inbox("emit", "e1", "Late", None, "ana")
    assert (refused.outcome, refused.detail) == ("rejected", "execution e1 is already completed")


def test_an_answer_of_the_wrong_shape_is_refused_and_the_next_may_win(
    plane: StateControl, client: ControlClient
) -> None:
    """The schema is enforced before anything is written; so is that the value is JSON at all."""
    schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
    open_pause(plane, Recorder("e1"), "i1", schema=schema)
    wrong = client.answer("i1", {"ok": "yes"}, "ana")
    assert (wrong.outcome, wrong.detail) == ("rejected", "answer.ok: must be boolean, not string")
    for value in (float("nan"), b"x", {1, 2}, object(), "\ud800"):
        refused = client.answer("i1", value, "ana")
        assert (refused.outcome, (refused.detail or "")[:22]) == ("rejected", "the value is not JSON:")
    assert client.list_inbox() == []
    assert client.answer("i1", {"ok": True}, "ana").outcome is None


def test_an_answer_the_owner_refuses_leaves_the_interrupt_open(plane: StateControl, client: ControlClient) -> None:
    """When the execution itself rejects the value, somebody else may answer."""
    open_pause(plane, Recorder("e1", plane, "rejected"), "i1")
    first = client.answer("i1", 1, "ana")
    assert client.wait_outcome(first.row_id or 0, 5.0).outcome == "rejected"
    assert client.answer("i1", 2, "bob").outcome is None


def test_an_interrupt_is_found_by_a_part_of_its_id(plane: StateControl, client: ControlClient) -> None:
    """Beginning or end are enough where only one fits; open ones go first; several are an error that lists them."""
    plane.opened(Recorder("e1"), {"flow_name": "f"})
    plane.opened(Recorder("e2"), {"flow_name": "f"})
    for execution_id, interrupt_id in (("e1", "ab-1"), ("e1", "ab-2"), ("e1", "cd-1"), ("e1", "same"), ("e2", "same")):
        plane.interrupt_opened(execution_id, {"id": interrupt_id})
    plane.interrupt_closed("e1", "ab-2", "resumed", None, None)
    assert plane.flush(5.0)

    def found(wanted: str) -> str | None:
        row = client.get_interrupt(wanted)
        return row and f"{row.execution_id}/{row.id}"

    names = {"ab-1": "e1/ab-1", "ab": "e1/ab-1", "d-1": "e1/cd-1", "ab-2": "e1/ab-2", "-2": "e1/ab-2"}
    names |= {"e2/same": "e2/same", "x": None, "": None, "%": None}
    assert {wanted: found(wanted) for wanted in names} == names
    for wanted in ("-1", "same"):
        with pytest.raises(AmbiguousInterrupt, match=r"e1/\S+, e\d/\S+\. Give more of the id"):
            client.answer(wanted, True, "ana")

    plane.interrupt_closed("e1", "same", "cancelled", None, None)
    assert plane.flush(5.0)
    assert found("same") == "e2/same"


def test_the_same_id_asked_again_is_a_new_question(plane: StateControl, client: ControlClient) -> None:
    """An id that is opened again after it was closed can be answered again; one merely registered again cannot."""
    execution = Recorder("e1")
    open_pause(plane, execution, "i1")
    assert client.answer("i1", 1, "ana").outcome is None
    open_pause(plane, execution, "i1")
    assert client.answer("i1", 2, "bob").outcome == "conflict"
    plane.interrupt_closed("e1", "i1", "resumed", 1, "ana")
    open_pause(plane, execution, "i1")
    assert client.answer("i1", 3, "bob").outcome is None


def test_lists_filter_and_page(plane: StateControl, client: ControlClient) -> None:
    """Executions come latest first and can be narrowed; paging by start time meets each once."""
    for number in range(6):
        info = {"flow_name": f"f{number % 2}", "task_id": f"t{number % 3}", "started_us": 1_000 + number}
        plane.opened(Recorder(f"e{number}"), info)
        plane.status(f"e{number}", "running" if number < 4 else "completed")
    assert plane.flush(5.0)

    def ids(**narrow: Any) -> list[str]:
        return [row.id for row in client.list_executions(**narrow)]

    assert ids() == ["e5", "e4", "e3", "e2", "e1", "e0"]
    assert ids(limit=2) == ["e5", "e4"]
    assert ids(limit=2, before_us=1_004) == ["e3", "e2"]
    assert ids(open_only=True, flow_name="f1") == ["e3", "e1"]
    assert ids(task_id="t0") == ["e3", "e0"]
    assert ids(status="completed") == ["e5", "e4"]
    assert ids(status=["completed", "waiting"]) == ["e5", "e4"]


def test_the_owner_is_known_to_live_by_its_lock(store: Path, client: ControlClient) -> None:
    """Whether somebody will take an answer can be told before it is given."""
    lock = WriterLock(Layout(store))
    assert client.owner_alive(lock.writer)
    lock.release()
    assert not client.owner_alive(lock.writer)


def test_a_request_must_make_sense(client: ControlClient) -> None:
    """A kind that does not exist and a resume without a target are mistakes of the caller."""
    with pytest.raises(ValueError, match="'stop' is not one of cancel, emit"):
        client.put_inbox("stop", "e1", None, None, "ana")
    with pytest.raises(ValueError, match="target"):
        client.put_inbox("resume", "e1", None, True, "ana")


def test_a_start_request_needs_no_execution(client: ControlClient) -> None:
    """Starting is asked for under an id of the caller's choice, in a store where nothing ran yet, once."""
    first = client.put_inbox("start", "e9", "shop.flows:audit", {"n": 1}, "ana", "key")
    again = client.put_inbox("start", "e9", "shop.flows:audit", {"n": 1}, "ana", "key")
    assert (first.outcome, again.outcome, again.row_id) == (None, "duplicate", first.row_id)
    assert client.list_inbox(pending_only=True)[0].payload == {"n": 1}


def test_waiting_ends_in_time(plane: StateControl, client: ControlClient) -> None:
    """Without an owner that acts, waiting returns after the timeout and says the request still stands."""
    open_pause(plane, Recorder("e1"), "i1")
    sent = client.answer("i1", True, "ana")
    begin = time.monotonic()
    result = client.wait_outcome(sent.row_id or 0, 0.1)
    assert 0.1 <= time.monotonic() - begin < 2.0
    assert result == AnswerResult(sent.row_id, None, "the owner of the execution has not taken it yet")
    assert client.wait_outcome(10_000, 5.0).outcome == "unknown"


def test_ten_threads_answer_and_one_wins(plane: StateControl, store: Path, client: ControlClient) -> None:
    """Half of them through one shared client, half through their own: exactly one answer reaches the execution."""
    for round_number in range(5):
        execution = Recorder(f"e{round_number}", plane)
        open_pause(plane, execution, f"i{round_number}")
        gate = threading.Barrier(10)

        def answer(number: int, gate: threading.Barrier = gate, name: str = f"i{round_number}") -> str:
            with ExitStack() as stack:
                mine = client if number % 2 else stack.enter_context(ControlClient(store))
                gate.wait()
                return mine.answer(name, number, f"actor-{number}").outcome or "accepted"

        with ThreadPoolExecutor(10) as pool:
            assert sorted(pool.map(answer, range(10))) == ["accepted"] + ["conflict"] * 9

        until(lambda execution=execution: execution.rows)
        assert len(execution.rows) == 1


def test_ten_processes_answer_and_one_wins(plane: StateControl, store: Path) -> None:
    """Ten processes answer one interrupt at the same moment; one is accepted, the others are told of the conflict."""
    execution = Recorder("e1", plane)
    open_pause(plane, execution, "i1")
    with ExitStack() as stack:
        children = [stack.enter_context(process("process_answerer.py", store, "i1", f"p{n}")) for n in range(10)]
        assert [line(child) for child in children] == ["ready"] * 10
        for child in children:
            say(child, "go")
        assert sorted(line(child) for child in children) == ["accepted"] + ["conflict"] * 9

    until(lambda: execution.rows)
    assert [row.actor for row in execution.rows] == [row.payload for row in execution.rows]
    assert len(execution.rows) == 1


def test_a_replaced_file_is_noticed(plane: StateControl, store: Path, client: ControlClient) -> None:
    """A long-lived client follows when the store was deleted and made anew."""
    open_pause(plane, Recorder("e1"), "i1")
    assert len(client.list_interrupts()) == 1
    plane.close(5.0)
    for path in store.glob("state.db*"):
        path.unlink()
    assert client.list_interrupts() == []

    anew = open_control(store, "w2")
    open_pause(anew, Recorder("e2"), "i2")
    assert [row.id for row in client.list_interrupts()] == ["i2"]
    assert client.answer("i2", True, "ana").outcome is None
    anew.close(5.0)
