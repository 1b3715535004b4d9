"""What is particular to PostgreSQL: commits whose answer was lost, broken stores, URLs, listeners, live runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.durable.clauses import CLAUSES, state
from tests.durable.shelves import record
from tests.durable.support import Recorder, until
from tests.postgres.server import Server
from tests.postgres.shelves import PostgresBench

from flowdeck import Runtime
from flowdeck.durable import ControlClient, open_control
from flowdeck.durable.postgres import client as client_module
from flowdeck.durable.postgres import commits, link, store
from flowdeck.durable.postgres.address import parse
from flowdeck.durable.postgres.control import PostgresControl
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, StoreError, StoreTooNew, resolve_store
from flowdeck.triggerflow import TriggerFlow

Patch = pytest.MonkeyPatch


@pytest.fixture
def bench(server: Server) -> Iterator[PostgresBench]:
    made = PostgresBench(server)
    yield made
    made.close()


# -- commits whose answer was lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False], ids=["after", "before"])
def test_a_commit_that_was_not_answered_is_done_once(bench: PostgresBench, monkeypatch: Patch, done: bool) -> None:
    """The connection breaks right after, or right before, the server commits: the writer finds out, and repeats only
    what did not happen."""
    owner = bench.open()
    bench.begin(owner)
    inner = link.Session.ask
    broken: list[str] = []

    def ask(self: link.Session, statement: str, values: Any = ()) -> Any:
        if statement == "COMMIT" and not broken and threading.current_thread().name == "flowdeck-control":
            broken.append(statement)
            if done:
                inner(self, statement, values)

            self.connection.close()
            raise psycopg.OperationalError("the connection is lost")

        return inner(self, statement, values)

    monkeypatch.setattr(link.Session, "ask", ask)
    assert bench.append(owner, "e1", 1, record("a", 1)) is None
    assert bench.append(owner, "e1", 2, record("b", 2)) is None
    assert broken and state(owner) == {"k0": 0, "a": 1, "b": 2}
    assert [point.seq for point in owner.history("e1")] == [1, 2, 3]


def test_an_answer_whose_acceptance_was_lost_is_accepted_once(bench: PostgresBench, monkeypatch: Patch) -> None:
    """A client whose connection breaks after its answer was committed is told that it was, not that it came second."""
    owner = bench.open()
    bench.begin(owner)
    bench.ask(owner, "e1", 1)
    inner = link.Session.ask
    broken: list[str] = []

    def ask(self: link.Session, statement: str, values: Any = ()) -> Any:
        answer = inner(self, statement, values)
        if statement == "COMMIT" and not broken:
            broken.append(statement)
            self.connection.close()
            raise psycopg.OperationalError("the connection is lost")

        return answer

    with closing(ControlClient(bench.url)) as client:
        monkeypatch.setattr(link.Session, "ask", ask)
        told = client.answer("i1", True, "ann")
        assert broken and told.outcome is None and told.row_id is not None
        assert [row.actor for row in client.list_inbox()] == ["ann"]


def test_a_cut_connection_is_replaced(server: Server, bench: PostgresBench) -> None:
    """Terminated backends cost nobody anything: commits, questions and the listener go on with new ones."""
    owner = bench.open()
    bench.begin(owner)
    with closing(ControlClient(bench.url)) as client:
        seen = client.version()
        with server.admin() as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flowdeck'")

        assert bench.append(owner, "e1", 1, record("a", 1)) is None
        assert [row.id for row in client.list_executions()] == ["e1"]
        assert until(lambda: client.version() != seen)


# -- stores that are wrong on purpose --------------------------------------------------------------------------------


def no_token(patch: Patch) -> None:
    """Looks at the sequence alone."""
    patch.setattr(commits, "_ADVANCE", commits._ADVANCE.replace("AND d.token = t.token", ""))


def no_sequence(patch: Patch) -> None:
    """Looks at the token alone."""
    changed = commits._ADVANCE.replace("AND d.seq = t.seq", "").replace("SET seq = t.seq", "SET seq = d.seq")
    patch.setattr(commits, "_ADVANCE", changed)


def says_yes(patch: Patch) -> None:
    """Refuses, and says that it is committed."""
    inner = commits.write_commits
    patch.setattr("flowdeck.durable.postgres.control.write_commits", lambda *a: inner(*a) and {})


def steals(patch: Patch) -> None:
    """Lets anybody claim anything."""
    patch.setattr(store.PostgresStore, "_runs_elsewhere", lambda *a: False)


def forgets_parking(patch: Patch) -> None:
    """Takes every parked execution for a lost one."""
    patch.setattr(commits, "_ADVANCE", commits._ADVANCE.replace("parked = t.parked", "parked = 0"))


def answers_twice(patch: Patch) -> None:
    """Takes every answer."""
    patch.setattr(client_module._Request, "_refused_answer", lambda *a: None)


def prunes_the_open(patch: Patch) -> None:
    """Retention takes what still waits."""
    patch.setattr(store, "_OLD", "SELECT id FROM executions WHERE coalesce(%s, %s) IS NOT NULL LIMIT %s")


MUTANTS: dict[Callable[[Patch], None], str] = {
    no_token: "append_with_a_stale_token_is_refused",
    no_sequence: "append_with_a_gap_is_refused",
    says_yes: "append_with_an_old_seq_is_refused",
    steals: "claim_of_a_living_owner_is_refused",
    forgets_parking: "work_leaves_parked_ones_alone",
    answers_twice: "the_first_answer_wins",
    prunes_the_open: "prune_keeps_the_open",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_store_is_found(mutant: Callable[[Patch], None], monkeypatch: Patch, bench: PostgresBench) -> None:
    """The clause fails for a store that does what its docstring says."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, psycopg.Error)):
        CLAUSES[MUTANTS[mutant]](bench)


# -- URLs ------------------------------------------------------------------------------------------------------------


def test_a_password_is_not_shown() -> None:
    """What is printed of a URL names server, user and schema, and no secret."""
    shown = str(parse("postgresql://ann:s3cret@db.example:6432/flows?sslmode=require&flowdeck_schema=team"))
    assert shown == "postgresql://ann@db.example:6432/flows?flowdeck_schema=team"
    assert "s3cret" not in str(parse("postgresql:///flows?host=/run/pg&password=s3cret"))


def test_a_schema_is_a_name() -> None:
    """What could be more than a name in a statement is refused before any connection."""
    with pytest.raises(StoreError, match="flowdeck_schema"):
        parse("postgresql:///flows?flowdeck_schema=a;drop table x")


def test_events_are_not_sent_to_a_url(monkeypatch: Patch) -> None:
    """A URL where a directory is needed is refused with what to write instead, and no folder of that name is made."""
    with pytest.raises(StoreError, match="FLOWDECK_EXECUTIONS"):
        resolve_store("postgresql:///flows")


def test_a_server_that_is_not_there_is_named() -> None:
    """Nobody answers: one error that says where, without the password."""
    with pytest.raises(StoreError, match=r"postgresql://ann@127\.0\.0\.1:1/flows cannot be used") as told:
        ControlClient("postgresql://ann:s3cret@127.0.0.1:1/flows", busy_timeout=0.1)

    assert "s3cret" not in str(told.value)


def test_a_newer_format_is_refused(bench: PostgresBench) -> None:
    """What a newer version made is not guessed at."""
    bench.open()
    bench.sql("UPDATE about SET format = 99")
    with pytest.raises(StoreTooNew, match="format 99"):
        ControlClient(bench.url)


def test_several_hosts_may_be_named() -> None:
    """A URL for a primary and its standby is libpq's business, and is shown without its secret."""
    address = parse("postgresql://ann:s3cret@a:5432,b:5433/flows?target_session_attrs=read-write")
    assert str(address) == "postgresql://ann@a:5432,b:5433/flows"
    assert address.url.endswith("a:5432,b:5433/flows?target_session_attrs=read-write")


# -- owners and answers of other processes ---------------------------------------------------------------------------


def test_a_killed_process_of_this_machine_is_dead_at_once(bench: PostgresBench, tmp_path: Path) -> None:
    """Its lease still runs, but its lock is free; a lock file nobody can see proves nothing."""
    gone = tmp_path / "gone.lock"
    gone.touch()
    for owner, lock in (("killed", str(gone)), ("elsewhere", str(tmp_path / "unseen.lock"))):
        held = store.open_postgres(bench.url, owner, lock=lambda lock=lock: lock)
        bench.stores.append(held)
        bench.begin(held, owner)

    worker = bench.open("w")
    assert [work.execution_id for work in worker.work(["tested"])] == ["killed"]
    with closing(ControlClient(bench.url)) as client:
        assert (client.owner_alive("killed"), client.owner_alive("elsewhere")) == (False, True)


def test_a_live_run_is_answered_from_another_process(bench: PostgresBench, monkeypatch: Patch, tmp_path: Path) -> None:
    """With FLOWDECK_EXECUTIONS what is merely observed registers there, too."""
    folder = Layout.create(tmp_path / "store").root
    monkeypatch.setenv("FLOWDECK_EXECUTIONS", bench.url)
    control = open_control(folder, "w1")
    assert isinstance(control, PostgresControl)
    run = Recorder("x1", control)
    control.opened(run, {"flow_name": "audit"})
    control.interrupt_opened("x1", {"id": "i1", "type": "approval", "payload": {}})
    assert control.flush(10.0)
    script = (
        "import sys\nfrom flowdeck.durable import ControlClient\nclient = ControlClient(sys.argv[1])\n"
        "row = client.answer('i1', {'ok': True}, 'ann')\nprint(client.wait_outcome(row.row_id, 10.0).outcome)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "applied", told.stderr
    assert [(row.target, row.payload) for row in run.rows] == [("i1", {"ok": True})]
    control.close(5.0)


def test_a_flow_runs_pauses_and_goes_on_over_a_url(bench: PostgresBench) -> None:
    """The same flow, one argument changed: it parks, leaves memory, is answered, and ends; the rows say so."""
    flow = TriggerFlow(name="refund")
    flow.to(("ask", lambda data: data.pause_for(type="approval", payload=data.input))).to(
        ("pay", lambda data: data.async_set_state("paid", True))
    )
    runtime = Runtime(services=Services(center=EventCenter()))

    async def run() -> None:
        with runtime.use_store(bench.url), closing(ControlClient(bench.url)) as client:
            execution = flow.create_execution(services=runtime.services, auto_close_timeout=0.0)
            execution.auto_close = False
            await execution.async_start(7)
            execution.auto_close = True
            name = execution.id
            del execution
            await asyncio.to_thread(until, lambda: client.list_interrupts())
            (asked,) = client.list_interrupts()
            answered = await asyncio.to_thread(client.answer, asked.id, True, "ann")
            assert (await asyncio.to_thread(client.wait_outcome, answered.row_id, 10.0)).outcome == "applied"
            ended = await asyncio.to_thread(until, lambda: client.list_executions(status="completed"))
            assert [row.id for row in ended] == [name]
            assert client.stored_state(name)["runtime_data"]["paid"] is True

    asyncio.run(run())


def test_a_forked_child_has_connections_of_its_own(bench: PostgresBench) -> None:
    """Parent and child go on with the same store object, and neither disturbs the other's connection."""
    owner = bench.open()
    bench.begin(owner, "parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bench.begin(owner, "child")
            code = 0
        finally:
            os._exit(code)

    _, status = os.waitpid(child, 0)
    assert bench.append(owner, "parent", 1, record("a", 1)) is None
    assert status == 0 and {row.id for row in owner.list_executions()} == {"parent", "child"}
