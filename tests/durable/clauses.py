"""What every execution store must do, as clauses. Each is a function of a bench; its docstring is the clause."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.durable.shelves import DEFINITION, HEADER, Handle, StoreBench, body, pack, record

from flowdeck.durable.store import Commit, ExecutionStore, Retention
from flowdeck.errors import ExecutionBusy, ExecutionError, ExecutionExists, ExecutionFenced, ExecutionNotFound
from flowdeck.events.center import EventCenter
from flowdeck.execution.replica import replay
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

__all__ = ["CLAUSES", "Clause"]

Clause = Callable[[StoreBench], None]
DAY_US = 86_400_000_000


def now_us() -> int:
    return time.time_ns() // 1_000


def state(store: ExecutionStore, name: str = "e1", at: int | None = None) -> dict[str, Any]:
    stored = store.load(name, at)
    replica = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
    return replica.root.core.data


def saved(store: ExecutionStore, name: str, at: int | None = None) -> bytes:
    """Return a snapshot of what is stored."""
    stored = store.load(name, at)
    replica = replay(stored.header, stored.plans, stored.definition, stored.snapshot, stored.batches)
    return pack([replica.dump(0), replica.extras()])


# -- creating --------------------------------------------------------------------------------------------------------


def create_is_readable_at_once(b: StoreBench) -> None:
    """A committed execution can be loaded by another store."""
    b.begin(b.open("a"))
    assert b.open("b").load("e1").seq == 1


def create_with_no_inputs(b: StoreBench) -> None:
    """An execution may begin with a header alone."""
    store = b.open()
    b.begin(store, count=0)
    assert store.load("e1").seq == 0 and store.load("e1").batches == []


def create_twice_is_refused(b: StoreBench) -> None:
    """A second execution of the same id is refused: this is what makes starts idempotent."""
    store = b.open()
    b.begin(store)
    again = b.commit(store, Commit("e1", 1, 0, header=HEADER("e1"), definition=DEFINITION))
    assert isinstance(again, ExecutionExists)


def create_twice_changes_nothing(b: StoreBench) -> None:
    """The refused second beginning leaves the first as it was."""
    store = b.open()
    b.begin(store, count=2)
    b.commit(store, Commit("e1", 1, 0, 1, body(record("x", 9)), header=HEADER("e1"), definition=DEFINITION))
    assert state(store) == {"k0": 0, "k1": 1}


def create_from_two_stores_lets_one_win(b: StoreBench) -> None:
    """Of two processes that begin the same id, one gets it."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    assert isinstance(b.commit(two, Commit("e1", 1, 0, header=HEADER("e1"), definition=DEFINITION)), ExecutionExists)


def create_registers_the_execution(b: StoreBench) -> None:
    """It is listed, with its flow and status."""
    store = b.open()
    b.begin(store)
    row = store.get_execution("e1")
    assert row is not None and (row.flow_name, row.status, row.finished_us) == ("tested", "running", None)


def create_keeps_the_header(b: StoreBench) -> None:
    """The header comes back as it was given."""
    store = b.open()
    b.begin(store, header=HEADER("e1", started_at=77))
    assert store.load("e1").header["started_at"] == 77


def create_keeps_the_definition(b: StoreBench) -> None:
    """The plan's skeleton comes back with the execution."""
    store = b.open()
    b.begin(store)
    stored = store.load("e1")
    assert stored.definition == DEFINITION and DEFINITION in stored.plans


def a_header_of_a_newer_format_is_refused(b: StoreBench) -> None:
    """What a newer version began is not guessed at."""
    store = b.open()
    b.begin(store, header=HEADER("e1", format=99))
    with pytest.raises(ValueError, match="format 99"):
        state(store)


# -- appending -------------------------------------------------------------------------------------------------------


def append_continues(b: StoreBench) -> None:
    """Inputs come back in order."""
    store = b.open()
    b.begin(store)
    assert b.append(store, "e1", 1, record("a", 1), record("b", 2)) is None
    assert b.append(store, "e1", 3, record("c", 3)) is None
    assert state(store) == {"k0": 0, "a": 1, "b": 2, "c": 3}


def append_is_seen_by_another_store(b: StoreBench) -> None:
    """What is committed by one is read by all."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.append(one, "e1", 1, record("a", 1))
    assert state(two) == {"k0": 0, "a": 1}


def append_with_a_stale_token_is_refused(b: StoreBench) -> None:
    """Who has lost an execution cannot write to it."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    two.claim("e1")
    assert isinstance(b.append(one, "e1", 1, record("zombie", 1)), ExecutionFenced)


def append_with_a_stale_token_leaves_nothing(b: StoreBench) -> None:
    """A refused commit writes neither inputs nor changes."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    two.claim("e1")
    b.append(one, "e1", 1, record("zombie", 1), changes=(("finished", ("e1", "failed")),), finished=True)
    assert state(two) == {"k0": 0}
    row = two.get_execution("e1")
    assert row is not None and row.status == "running" and row.finished_us is None


def append_with_a_future_token_is_refused(b: StoreBench) -> None:
    """A token that was never given out is no token."""
    store = b.open()
    b.begin(store)
    assert isinstance(b.append(store, "e1", 1, record("a", 1), token=2), ExecutionFenced)


def append_with_an_old_seq_is_refused(b: StoreBench) -> None:
    """Two writers with one token cannot both continue the same point."""
    store = b.open()
    b.begin(store)
    assert b.append(store, "e1", 1, record("a", 1)) is None
    assert isinstance(b.append(store, "e1", 1, record("b", 2)), ExecutionFenced)
    assert state(store) == {"k0": 0, "a": 1}


def append_with_a_gap_is_refused(b: StoreBench) -> None:
    """A commit that was lost cannot be skipped."""
    store = b.open()
    b.begin(store)
    assert isinstance(b.append(store, "e1", 2, record("a", 1)), ExecutionFenced)


def append_to_nothing_is_refused(b: StoreBench) -> None:
    """Nothing can be appended to an execution that never began."""
    assert isinstance(b.append(b.open(), "e9", 0, record("a", 1)), ExecutionFenced)


def append_after_a_refusal_is_refused(b: StoreBench) -> None:
    """Commits that build on a refused one go with it, also when they are under way together."""
    store = b.open()
    b.begin(store)
    said: list[BaseException | None] = []
    heard = threading.Event()

    def done(error: BaseException | None) -> None:
        said.append(error)
        if len(said) == 3:
            heard.set()

    for seq in (2, 3, 4):
        store.submit(Commit("e1", 1, seq, 1, body(record("a", seq))), done)

    assert heard.wait(10.0)
    assert all(isinstance(error, ExecutionFenced) for error in said)


def append_does_not_stop_others(b: StoreBench) -> None:
    """A refused commit of one execution does not hinder another's beside it."""
    store = b.open()
    b.begin(store, "e1")
    b.begin(store, "e2")
    said: dict[str, BaseException | None] = {}
    heard = threading.Event()

    def done(name: str) -> Callable[[BaseException | None], None]:
        def say(error: BaseException | None) -> None:
            said[name] = error
            if len(said) == 2:
                heard.set()

        return say

    store.submit(Commit("e1", 1, 5, 1, body(record("a", 1))), done("e1"))
    store.submit(Commit("e2", 1, 1, 1, body(record("a", 1))), done("e2"))
    assert heard.wait(10.0)
    assert isinstance(said["e1"], ExecutionFenced) and said["e2"] is None


def append_says_done_in_order(b: StoreBench) -> None:
    """Commits of one execution are acknowledged in the order they were submitted."""
    store = b.open()
    b.begin(store)
    order: list[int] = []
    heard = threading.Event()
    for seq in range(1, 41):
        last = seq == 40

        def done(error: BaseException | None, seq: int = seq, last: bool = last) -> None:
            order.append(seq)
            if last:
                heard.set()

        store.submit(Commit("e1", 1, seq, 1, body(record("n", seq))), done)

    assert heard.wait(10.0)
    assert order == list(range(1, 41)) and state(store)["n"] == 40


def append_from_many_threads(b: StoreBench) -> None:
    """Executions of many threads are committed side by side, none lost."""
    store = b.open()

    def work(name: str) -> None:
        b.begin(store, name)
        for seq in range(1, 11):
            assert b.append(store, name, seq, record("n", seq)) is None

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join(30.0)

    assert all(state(store, f"t{i}")["n"] == 10 for i in range(8))


def append_of_changes_alone_keeps_seq(b: StoreBench) -> None:
    """A commit without inputs moves nothing but what it says."""
    store = b.open()
    b.begin(store)
    assert b.append(store, "e1", 1, changes=(("status", ("e1", "waiting")),)) is None
    row = store.get_execution("e1")
    assert store.load("e1").seq == 1 and row is not None and row.status == "waiting"


def append_is_atomic_with_its_changes(b: StoreBench) -> None:
    """An input and the interrupt it opened are there together."""
    store = b.open()
    b.begin(store)
    fields = {"id": "i1", "type": "ok", "payload": None}
    assert b.append(store, "e1", 1, record("a", 1), changes=(("interrupt_opened", ("e1", fields)),)) is None
    assert [row.id for row in store.list_interrupts()] == ["i1"] and state(store)["a"] == 1


def append_takes_large_bodies(b: StoreBench) -> None:
    """A megabyte is a commit like any other."""
    store = b.open()
    b.begin(store)
    assert b.append(store, "e1", 1, record("big", "x" * 1_000_000)) is None
    assert len(state(store)["big"]) == 1_000_000


def append_takes_any_text(b: StoreBench) -> None:
    """Ids and values may hold every character."""
    store = b.open()
    name = "e/1 'ü\u0000\"; --"
    b.begin(store, name)
    assert b.append(store, name, 1, record("naïve 'key'", "\u2028\U0001f600")) is None
    assert state(store, name)["naïve 'key'"] == "\u2028\U0001f600"


def flush_waits_for_what_was_submitted(b: StoreBench) -> None:
    """After a flush everything is committed."""
    store = b.open("a")
    b.begin(store)
    said: list[Any] = []
    for seq in range(1, 21):
        store.submit(Commit("e1", 1, seq, 1, body(record("n", seq))), said.append)

    assert store.flush(10.0)
    assert len(said) == 20 and state(b.open("b"))["n"] == 20


# -- points and snapshots --------------------------------------------------------------------------------------------


def load_at_a_point(b: StoreBench) -> None:
    """Any committed point can be read."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1))
    b.append(store, "e1", 2, record("a", 2))
    assert [state(store, at=at).get("a") for at in (1, 2, 3)] == [None, 1, 2]


def load_between_points_is_refused(b: StoreBench) -> None:
    """The middle of a commit is no point: its inputs belong together."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1), record("b", 2))
    with pytest.raises(ValueError, match="no committed point 2"):
        store.load("e1", 2)


def load_beyond_the_end_is_refused(b: StoreBench) -> None:
    """What is not committed yet cannot be read."""
    store = b.open()
    b.begin(store)
    with pytest.raises(ValueError, match="no committed point 7"):
        store.load("e1", 7)


def load_of_nothing(b: StoreBench) -> None:
    """An unknown id is an error that names it."""
    with pytest.raises(ExecutionNotFound, match="e9"):
        b.open().load("e9")


def history_lists_the_points(b: StoreBench) -> None:
    """Points come with their time and the kinds of their inputs."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1), record("b", 2))
    points = store.history("e1")
    assert [(p.seq, p.codes) for p in points] == [(1, "s"), (3, "ss")] and points[0].time_us == 1_000


def history_of_nothing(b: StoreBench) -> None:
    """An unknown id is an error here, too."""
    with pytest.raises(ExecutionNotFound):
        b.open().history("e9")


def history_survives_the_end(b: StoreBench) -> None:
    """A finished execution keeps its points."""
    store = b.open()
    long = "x" * 2_000  # worth one row
    b.begin(store)
    b.append(store, "e1", 1, record("a", long))
    b.finish(store, "e1", 2)
    assert [p.seq for p in store.history("e1")] == [1, 2, 3]
    assert state(store, at=2) == {"k0": 0, "a": long}


def snapshot_begins_the_replay(b: StoreBench) -> None:
    """With a snapshot a load does not read the inputs before it."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1))
    assert b.append(store, "e1", 2, snapshot=saved(store, "e1"), definition=DEFINITION) is None
    b.append(store, "e1", 2, record("c", 3))
    stored = store.load("e1")
    assert stored.snapshot is not None and len(stored.batches) == 1
    assert state(store) == {"k0": 0, "a": 1, "c": 3}


def snapshot_keeps_older_points(b: StoreBench) -> None:
    """A snapshot shortens recovery, it does not take history away."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1))
    b.append(store, "e1", 2, snapshot=saved(store, "e1"), definition=DEFINITION)
    assert state(store, at=1) == {"k0": 0}


def snapshot_of_the_future_is_not_used(b: StoreBench) -> None:
    """A point before a snapshot is read from before it."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1))
    b.append(store, "e1", 2, record("a", 2), snapshot=saved(store, "e1"), definition=DEFINITION)
    assert store.load("e1", 2).snapshot is None


def snapshot_replaces_the_last_one(b: StoreBench) -> None:
    """The newest is used."""
    store = b.open()
    b.begin(store)
    for seq in (1, 2, 3):
        b.append(store, "e1", seq, record("a", seq))
        b.append(store, "e1", seq + 1, snapshot=saved(store, "e1"), definition=DEFINITION)

    assert store.load("e1").batches == [] and state(store) == {"k0": 0, "a": 3}


def snapshot_that_begins_a_definition_stays(b: StoreBench) -> None:
    """What a new definition began with is kept for as long as its inputs are."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, snapshot=saved(store, "e1"), definition=DEFINITION, base=True)
    b.append(store, "e1", 1, record("a", 1))
    b.append(store, "e1", 2, record("b", 1), snapshot=saved(store, "e1"), definition=DEFINITION)
    assert store.load("e1", 2).snapshot is not None


def resource_keys_are_kept(b: StoreBench) -> None:
    """Whoever takes an execution up can see what it needs."""
    store = b.open()
    b.begin(store, resource_keys=("db", "llm"))
    b.append(store, "e1", 1, record("a", 1))
    assert sorted(store.load("e1").resource_keys) == ["db", "llm"]


# -- claiming --------------------------------------------------------------------------------------------------------


def claim_raises_the_token(b: StoreBench) -> None:
    """Every claim has a token of its own."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    first = two.claim("e1")
    second = two.claim("e1")
    assert (first.token, second.token) == (2, 3)


def claim_returns_what_is_committed(b: StoreBench) -> None:
    """A claim carries all that is needed to go on."""
    one, two = b.open("a"), b.open("b")
    b.begin(one, count=3)
    b.kill("a")
    claim = two.claim("e1")
    assert (claim.seq, claim.flow_name, claim.definition) == (3, "tested", DEFINITION)
    assert sum(len(records) for _, records in claim.batches) == 3


def claim_of_a_living_owner_is_refused(b: StoreBench) -> None:
    """Nobody takes an execution away from a process that works on it."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    with pytest.raises(ExecutionBusy):
        two.claim("e1")


def claim_by_force(b: StoreBench) -> None:
    """An operator may take it away all the same; the former owner is fenced out."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    assert two.claim("e1", force=True).token == 2
    assert isinstance(b.append(one, "e1", 1, record("a", 1)), ExecutionFenced)


def claim_of_the_own_is_allowed(b: StoreBench) -> None:
    """A process may take up again what it let go itself."""
    store = b.open()
    b.begin(store)
    assert store.claim("e1").token == 2


def claim_with_an_expected_token_lets_one_win(b: StoreBench) -> None:
    """Of several workers that saw the same work, one gets it."""
    one, two, three = b.open("a"), b.open("b"), b.open("c")
    b.begin(one)
    b.kill("a")
    two.claim("e1", token=1)
    with pytest.raises(ExecutionBusy):
        three.claim("e1", token=1)


def claim_races_have_one_winner(b: StoreBench) -> None:
    """Eight claims at once, one token each."""
    b.begin(b.open("a"))
    b.kill("a")
    stores = [b.open(f"w{i}") for i in range(4)]
    won: list[int] = []
    lost: list[int] = []
    gate = threading.Barrier(4)

    def try_it(number: int) -> None:
        gate.wait(10.0)
        try:
            stores[number].claim("e1", token=1)
        except ExecutionBusy:
            lost.append(number)
        else:
            won.append(number)

    threads = [threading.Thread(target=try_it, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join(30.0)

    assert (len(won), len(lost)) == (1, 3)


def claim_of_a_finished_one_is_refused(b: StoreBench) -> None:
    """What has ended stays ended."""
    store = b.open()
    b.begin(store)
    b.finish(store, "e1", 1)
    with pytest.raises(ExecutionError, match="finished"):
        store.claim("e1")


def claim_of_nothing(b: StoreBench) -> None:
    """An unknown id cannot be claimed."""
    with pytest.raises(ExecutionNotFound):
        b.open().claim("e9")


def claim_moves_the_ownership(b: StoreBench) -> None:
    """The list shows who holds it now."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    two.claim("e1")
    row = two.get_execution("e1")
    assert row is not None and row.writer == two.owner


def claimed_goes_on(b: StoreBench) -> None:
    """The new owner continues where the old one stopped."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    claim = two.claim("e1")
    assert b.append(two, "e1", claim.seq, record("a", 1), token=claim.token) is None


def a_late_commit_of_the_dead_is_refused_after_progress(b: StoreBench) -> None:
    """A frozen owner that thaws finds another token, however far the run has come."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    claim = two.claim("e1")
    b.append(two, "e1", 1, record("a", 1), token=claim.token)
    for seq in (1, 2):
        assert isinstance(b.append(one, "e1", seq, record("zombie", 1)), ExecutionFenced)

    assert state(two) == {"k0": 0, "a": 1}


def release_lets_others_claim(b: StoreBench) -> None:
    """What is given up may be taken while its former owner lives."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    assert one.release("e1", 1)
    assert two.claim("e1").token == 3


def release_fences_the_releaser(b: StoreBench) -> None:
    """After the release even the releaser cannot write."""
    store = b.open()
    b.begin(store)
    store.release("e1", 1)
    assert isinstance(b.append(store, "e1", 1, record("a", 1)), ExecutionFenced)


def release_with_a_stale_token_does_nothing(b: StoreBench) -> None:
    """Who does not own it cannot give it up."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    claim = two.claim("e1")
    assert not one.release("e1", 1)
    assert b.append(two, "e1", 1, record("a", 1), token=claim.token) is None


def an_expired_lease_frees(b: StoreBench) -> None:
    """A process that lives but does not beat any more counts as stuck."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    one.heartbeat(-1.0)
    assert two.claim("e1").token == 2


def a_lease_that_was_renewed_holds(b: StoreBench) -> None:
    """Beating again takes the execution back out of reach."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    one.heartbeat(-1.0)
    one.heartbeat(60.0)
    with pytest.raises(ExecutionBusy):
        two.claim("e1")


def a_beat_does_not_revive_a_lost_execution(b: StoreBench) -> None:
    """A late heartbeat of the former owner changes nothing about the new one's token."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    one.heartbeat(-1.0)
    claim = two.claim("e1")
    one.heartbeat(60.0)
    assert b.append(two, "e1", 1, record("a", 1), token=claim.token) is None
    assert isinstance(b.append(one, "e1", 1, record("b", 1)), ExecutionFenced)


# -- finding work ----------------------------------------------------------------------------------------------------


def work_finds_the_lost(b: StoreBench) -> None:
    """A running execution whose process is gone is work."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    assert two.work(["tested"]) == []
    b.kill("a")
    (found,) = two.work(["tested"])
    assert (found.execution_id, found.flow_name, found.token, found.why) == ("e1", "tested", 1, "lost")


def work_is_for_the_own_flows(b: StoreBench) -> None:
    """A worker sees only executions of flows it has."""
    b.begin(b.open("a"))
    b.kill("a")
    assert b.open("b").work(["other"]) == []


def work_leaves_parked_ones_alone(b: StoreBench) -> None:
    """What waits for an answer is nobody's work, even when its process is gone."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.park(one, "e1", 1)
    b.kill("a")
    assert two.work(["tested"]) == []


def work_finds_the_asked(b: StoreBench) -> None:
    """A parked execution that got a request is work."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.park(one, "e1", 1)
    b.kill("a")
    two.put_inbox("emit", "e1", "Go", 1, "ann")
    assert [w.why for w in two.work(["tested"])] == ["inbox"]


def work_finds_the_due(b: StoreBench) -> None:
    """A parked execution whose time has come is work, one whose time will come is not."""
    one, two = b.open("a"), b.open("b")
    b.begin(one, "e1")
    b.begin(one, "e2")
    b.park(one, "e1", 1, now_us() - 1)
    b.park(one, "e2", 1, now_us() + DAY_US)
    b.kill("a")
    assert [(w.execution_id, w.why) for w in two.work(["tested"])] == [("e1", "timer")]


def work_leaves_the_living_alone(b: StoreBench) -> None:
    """What a living process holds is its own work, parked or not."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.park(one, "e1", 1, now_us() - 1)
    two.put_inbox("emit", "e1", "Go", 1, "ann")
    assert two.work(["tested"]) == []


def work_finds_the_released(b: StoreBench) -> None:
    """What was given up is work for anybody."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    one.release("e1", 1)
    assert [w.why for w in two.work(["tested"])] == ["released"]


def work_leaves_the_blocked_alone(b: StoreBench) -> None:
    """What could not be taken up is not tried for ever; it is shown when somebody asks for it."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    one.release("e1", 1, blocked="operator 'x' is gone")
    row = two.get_execution("e1")
    assert row is not None and row.status == "blocked_version"
    assert two.work(["tested"]) == []
    assert [w.execution_id for w in two.work(["tested"], blocked=True)] == ["e1"]


def work_leaves_the_finished_alone(b: StoreBench) -> None:
    """What has ended is no work."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.finish(one, "e1", 1)
    b.kill("a")
    assert two.work(["tested"]) == []


def work_after_a_claim_is_gone(b: StoreBench) -> None:
    """What one worker holds another does not see."""
    one, two, three = b.open("a"), b.open("b"), b.open("c")
    b.begin(one)
    b.kill("a")
    two.claim("e1")
    assert three.work(["tested"]) == []


def work_is_limited(b: StoreBench) -> None:
    """A worker takes as much as it asks for."""
    one, two = b.open("a"), b.open("b")
    for number in range(5):
        b.begin(one, f"e{number}")

    b.kill("a")
    assert len(two.work(["tested"], limit=3)) == 3


def next_wake_is_the_earliest(b: StoreBench) -> None:
    """A worker can sleep until the next parked execution's time."""
    store = b.open()
    assert store.next_wake_us(["tested"]) is None
    soon, late = now_us() + 1_000_000, now_us() + DAY_US
    for name, wake in (("e1", late), ("e2", soon), ("e3", None)):
        b.begin(store, name)
        b.park(store, name, 1, wake)

    assert store.next_wake_us(["tested"]) == soon


def parking_is_forgotten_by_the_next_commit(b: StoreBench) -> None:
    """An execution that stirs again is not parked any more."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.park(one, "e1", 1, now_us() + DAY_US)
    b.append(one, "e1", 1, record("a", 1))
    assert one.next_wake_us(["tested"]) is None
    b.kill("a")
    assert [w.why for w in two.work(["tested"])] == ["lost"]


# -- inbox and interrupts --------------------------------------------------------------------------------------------


def interrupts_are_listed(b: StoreBench) -> None:
    """An open interrupt is a row with its question, schema and people."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.ask(one, "e1", 1, schema={"type": "object"}, assignees=["ann"])
    (row,) = two.list_interrupts()
    assert (row.id, row.execution_id, row.flow_name, row.status) == ("i1", "e1", "tested", "waiting")
    assert (row.payload, row.schema, row.assignees) == ({"q": 1}, {"type": "object"}, ["ann"])


def a_closed_interrupt_is_not_open(b: StoreBench) -> None:
    """An answered interrupt keeps its answer and who gave it."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1)
    b.append(store, "e1", 1, changes=(("interrupt_closed", ("e1", "i1", "resumed", {"ok": True}, "ann")),))
    (row,) = store.list_interrupts(open_only=False)
    assert store.list_interrupts() == []
    assert (row.status, row.response, row.actor) == ("resumed", {"ok": True}, "ann")


def the_end_closes_interrupts(b: StoreBench) -> None:
    """Nobody is asked for an execution that has ended."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1)
    b.finish(store, "e1", 1, "cancelled")
    assert store.list_interrupts() == []


def the_first_answer_wins(b: StoreBench) -> None:
    """A second answer is told that it came second."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.ask(one, "e1", 1)
    assert one.put_inbox("resume", "e1", "i1", 1, "ann").outcome is None
    assert two.put_inbox("resume", "e1", "i1", 2, "bob").outcome == "conflict"


def the_same_answer_twice_is_a_duplicate(b: StoreBench) -> None:
    """A retry with the same key is told that it was accepted before."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1)
    first = store.put_inbox("resume", "e1", "i1", 1, "ann", "key")
    again = store.put_inbox("resume", "e1", "i1", 1, "ann", "key")
    assert (again.outcome, again.row_id) == ("duplicate", first.row_id)


def a_key_is_for_one_request(b: StoreBench) -> None:
    """The same key with another value is a conflict, never an overwrite."""
    store = b.open()
    b.begin(store)
    store.put_inbox("emit", "e1", "Go", 1, "ann", "key")
    assert store.put_inbox("emit", "e1", "Go", 2, "ann", "key").outcome == "conflict"
    assert [row.payload for row in store.read_inbox("e1")] == [1]


def an_answer_that_does_not_fit_is_refused(b: StoreBench) -> None:
    """The schema is checked before an answer is accepted, and the interrupt stays open."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1, schema={"type": "boolean"})
    assert store.put_inbox("resume", "e1", "i1", "yes", "ann").outcome == "rejected"
    assert store.put_inbox("resume", "e1", "i1", True, "ann").outcome is None


def an_answer_that_is_no_json_is_refused(b: StoreBench) -> None:
    """What JSON cannot say is not stored."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1)
    assert store.put_inbox("resume", "e1", "i1", float("nan"), "ann").outcome == "rejected"


def an_answer_after_the_time_is_expired(b: StoreBench) -> None:
    """Who answers too late is told so, before anybody acted on the expiry."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1, expires_us=now_us() - 1)
    assert store.put_inbox("resume", "e1", "i1", 1, "ann").outcome == "expired"


def an_early_answer_is_kept(b: StoreBench) -> None:
    """An answer to a question that was not asked yet waits for it."""
    store = b.open()
    b.begin(store)
    assert store.put_inbox("resume", "e1", "i7", 1, "ann").outcome is None
    assert [row.target for row in store.read_inbox("e1")] == ["i7"]


def a_request_to_nobody_is_unknown(b: StoreBench) -> None:
    """An id the store does not know is told as such."""
    assert b.open().put_inbox("emit", "e9", "Go", 1, "ann").outcome == "unknown"


def a_request_to_the_ended_is_refused(b: StoreBench) -> None:
    """Nothing can be asked of what has ended."""
    store = b.open()
    b.begin(store)
    b.finish(store, "e1", 1)
    assert store.put_inbox("emit", "e1", "Go", 1, "ann").outcome == "rejected"


def a_start_of_what_is_there_is_a_conflict(b: StoreBench) -> None:
    """An id is started once, whoever asks and under whichever key; asked again with the key it is a duplicate."""
    store = b.open()
    assert store.put_inbox("start", "e1", "tested", 1, "ann", "k1").accepted
    b.begin(store)
    assert store.put_inbox("start", "e1", "tested", 1, "ann", "k1").outcome == "duplicate"
    assert store.put_inbox("start", "e1", "tested", 1, "bob", "k2").outcome == "conflict"
    b.finish(store, "e1", 1)
    assert store.put_inbox("start", "e1", "tested", 1, "bob", "k3").outcome == "conflict"


def requests_wait_for_the_next_owner(b: StoreBench) -> None:
    """What nobody applied is handed to whoever owns the execution next."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.kill("a")
    two.put_inbox("emit", "e1", "A", 1, "ann")
    two.put_inbox("emit", "e1", "B", 2, "bob")
    assert [(row.target, row.payload, row.actor) for row in two.read_inbox("e1")] == [("A", 1, "ann"), ("B", 2, "bob")]


def an_acknowledged_request_is_done(b: StoreBench) -> None:
    """A row is acknowledged in the commit of what it did, and not handed out again."""
    store = b.open()
    b.begin(store)
    sent = store.put_inbox("emit", "e1", "Go", 1, "ann")
    b.append(store, "e1", 1, record("a", 1), changes=(("ack", (sent.row_id, "applied", None)),))
    assert store.read_inbox("e1") == []


def a_fenced_acknowledgement_is_none(b: StoreBench) -> None:
    """A zombie cannot acknowledge a request for the new owner."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    sent = one.put_inbox("emit", "e1", "Go", 1, "ann")
    b.kill("a")
    two.claim("e1")
    b.append(one, "e1", 1, record("a", 1), changes=(("ack", (sent.row_id, "applied", None)),))
    assert [row.id for row in two.read_inbox("e1")] == [sent.row_id]


def a_rejected_answer_frees_the_interrupt(b: StoreBench) -> None:
    """When the owner refuses an answer, the next one may be given."""
    store = b.open()
    b.begin(store)
    b.ask(store, "e1", 1)
    sent = store.put_inbox("resume", "e1", "i1", 1, "ann")
    b.append(store, "e1", 1, changes=(("ack", (sent.row_id, "rejected", "no")),))
    assert store.put_inbox("resume", "e1", "i1", 2, "bob").outcome is None


def the_end_refuses_what_was_not_applied(b: StoreBench) -> None:
    """A request that nobody took before the end does not wait for ever."""
    store = b.open()
    b.begin(store)
    store.put_inbox("emit", "e1", "Go", 1, "ann")
    b.finish(store, "e1", 1)
    assert store.read_inbox("e1") == []


def a_request_is_delivered(b: StoreBench) -> None:
    """The owner is handed a request while it lives."""
    store = b.open()
    handle = Handle("e1")
    b.begin(store, changes=(("opened", (handle, {"flow_name": "tested"})),))
    store.put_inbox("emit", "e1", "Go", 1, "ann")
    deadline = time.monotonic() + 5.0
    tick = threading.Event()
    while not handle.rows and time.monotonic() < deadline:
        tick.wait(0.005)

    assert [(row.target, row.payload) for row in handle.rows] == [("Go", 1)]


# -- forks and retention ---------------------------------------------------------------------------------------------


def _paused(store: ExecutionStore, name: str = "p1") -> str:
    """Run a real flow to its pause, and return the id of its interrupt."""
    flow = TriggerFlow(name="paused")

    async def first(data: Any) -> int:
        await data.async_set_state("first", data.input)
        return data.input + 1

    flow.to(("first", first)).to(("ask", lambda data: data.pause_for(type="ok", payload=data.input)))

    async def run() -> str:
        services = Services(center=EventCenter(), store=store)
        execution = flow.create_execution(services=services, auto_close=False, execution_id=name)
        await execution.async_start(1)
        return next(iter(execution.get_pending_interrupts()))

    return asyncio.run(run())


def fork_has_the_state(b: StoreBench) -> None:
    """A fork begins where its origin stood."""
    store = b.open()
    _paused(store)
    new = store.fork("p1", actor="ann")
    assert new != "p1" and state(store, new) == {"first": 1}


def fork_at_an_earlier_point(b: StoreBench) -> None:
    """Any committed point can be the beginning."""
    store = b.open()
    _paused(store)
    early = store.history("p1")[0].seq
    assert state(store, store.fork("p1", early, actor=None)) == {}


def fork_remembers_its_origin(b: StoreBench) -> None:
    """Where it came from is part of it."""
    store = b.open()
    _paused(store)
    point = store.history("p1")[-1].seq
    stored = store.load(store.fork("p1", actor=None))
    assert (stored.forked_from, stored.forked_at) == ("p1", point)
    assert stored.header["run_context"]["meta"]["forked_from"] == "p1"


def fork_leaves_its_origin(b: StoreBench) -> None:
    """The origin is not touched, and its token is still good."""
    store = b.open()
    b.begin(store)
    store.fork("e1", actor=None)
    assert b.append(store, "e1", 1, record("a", 1)) is None


def fork_is_work(b: StoreBench) -> None:
    """Nobody owns a fork, so a worker takes it up."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    new = one.fork("e1", actor=None)
    assert [(w.execution_id, w.why) for w in two.work(["tested"])] == [(new, "released")]


def fork_goes_on_by_itself(b: StoreBench) -> None:
    """Inputs of the fork and of its origin do not mix."""
    store = b.open()
    b.begin(store)
    claim = store.claim(store.fork("e1", new_id="f1", actor=None))
    assert b.append(store, "f1", claim.seq, record("fork", 1), token=claim.token) is None
    assert state(store, "f1") == {"k0": 0, "fork": 1} and state(store) == {"k0": 0}


def fork_keeps_interrupts(b: StoreBench) -> None:
    """Whoever was asked in the origin is asked in the fork under the same id."""
    store = b.open()
    interrupt = _paused(store)
    claim = store.claim(store.fork("p1", new_id="f1", actor=None))
    replica = replay(claim.header, claim.plans, claim.definition, claim.snapshot, claim.batches)
    assert list(replica.root.core.open) == [interrupt]
    assert replica.root.core.open[interrupt].execution == "f1"


def fork_into_a_taken_id_is_refused(b: StoreBench) -> None:
    """A fork never overwrites."""
    store = b.open()
    b.begin(store, "e1")
    b.begin(store, "e2")
    with pytest.raises(ExecutionExists):
        store.fork("e1", new_id="e2", actor=None)


def fork_of_nothing(b: StoreBench) -> None:
    """An unknown origin is an error."""
    with pytest.raises(ExecutionNotFound):
        b.open().fork("e9", actor=None)


def fork_of_no_point(b: StoreBench) -> None:
    """So is a point that was never committed."""
    store = b.open()
    b.begin(store)
    with pytest.raises(ValueError, match="no committed point"):
        store.fork("e1", 9, actor=None)


def fork_of_a_finished_one(b: StoreBench) -> None:
    """What has ended can be tried again from before its end."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1))
    b.finish(store, "e1", 2, "failed")
    assert state(store, store.fork("e1", 1, actor=None)) == {"k0": 0}


def prune_forgets_the_old(b: StoreBench) -> None:
    """Finished executions go when they are older than the policy wants."""
    store = b.open()
    b.begin(store)
    b.finish(store, "e1", 1)
    assert store.prune(Retention(days=1.0)) == 0
    assert store.prune(Retention(days=1.0), now_us=now_us() + 2 * DAY_US) == 1
    assert store.get_execution("e1") is None
    with pytest.raises(ExecutionNotFound):
        store.load("e1")


def prune_keeps_the_open(b: StoreBench) -> None:
    """What is open stays, however old, and can still be taken up."""
    one, two = b.open("a"), b.open("b")
    b.begin(one)
    b.ask(one, "e1", 1)
    assert one.prune(Retention(days=0.0, keep=0), now_us=now_us() + DAY_US) == 0
    b.kill("a")
    assert two.claim("e1").seq == 1


def prune_by_number(b: StoreBench) -> None:
    """Only the newest are kept when the policy says how many."""
    store = b.open()
    for number in range(4):
        b.begin(store, f"e{number}")
        b.finish(store, f"e{number}", 1)
        time.sleep(0.002)

    assert store.prune(Retention(days=None, keep=2)) == 2
    assert sorted(row.id for row in store.list_executions()) == ["e2", "e3"]


def prune_keeps_what_a_fork_needs(b: StoreBench) -> None:
    """A fork lives on when its origin is forgotten."""
    store = b.open()
    b.begin(store)
    b.append(store, "e1", 1, record("a", 1))
    new = store.fork("e1", actor=None)
    b.finish(store, "e1", 2)
    store.prune(Retention(days=0.0), now_us=now_us() + DAY_US)
    assert state(store, new) == {"k0": 0, "a": 1}


def lists_are_newest_first(b: StoreBench) -> None:
    """The execution that started last comes first."""
    store = b.open()
    for name in ("e1", "e2", "e3"):
        b.begin(store, name)
        time.sleep(0.002)

    assert [row.id for row in store.list_executions()] == ["e3", "e2", "e1"]


def lists_can_leave_out_the_ended(b: StoreBench) -> None:
    """What is open can be listed alone."""
    store = b.open()
    b.begin(store, "e1")
    b.begin(store, "e2")
    b.finish(store, "e1", 1)
    assert [row.id for row in store.list_executions(open_only=True)] == ["e2"]


def terminal_states_absorb(b: StoreBench) -> None:
    """After the end no status changes any more."""
    store = b.open()
    b.begin(store)
    b.finish(store, "e1", 1, "failed")
    b.append(store, "e1", 2, changes=(("status", ("e1", "running")),))
    row = store.get_execution("e1")
    assert row is not None and row.status == "failed"


CLAUSES: dict[str, Clause] = {
    name: clause
    for name, clause in list(globals().items())
    if inspect.isfunction(clause)
    and clause.__module__ == __name__
    and not name.startswith("_")
    and list(inspect.signature(clause).parameters) == ["b"]
}
