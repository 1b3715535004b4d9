"""The same flows on DBOS: same results, ids and events; exact over killed and frozen processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.execution.support import Recorder
from tests.postgres.portable_flows import ANSWERS, FLOWS, asking
from tests.postgres.server import Server
from tests.postgres.test_zombies import run_with_kills, zombies

from flowdeck.durable import ControlClient, Durable
from flowdeck.durable.worker import Report, Worker
from flowdeck.errors import DefinitionError
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.layout import Layout, StoreError
from flowdeck.triggerflow import TriggerFlow

dbos = pytest.importorskip("dbos", reason="the package dbos is not installed")

from flowdeck.durable.on_dbos import activation  # noqa: E402
from flowdeck.durable.on_dbos.worker import DbosWorker  # noqa: E402

PROCESS = Path(__file__).parent / "process_dbos.py"
PATIENCE = 60.0
MORE_OFTEN = {"triggerflow.execution_recovered", "triggerflow.execution_waiting", "triggerflow.execution_heartbeat"}
"""What is said again by whoever takes an execution up: the embedded run stays in its process, and is not taken up."""


# -- differential ------------------------------------------------------------------------------------------------------


async def answer_all(store: Any, worker: Worker) -> None:
    """Answer every question with its own id, and stop the worker when all runs have ended."""
    answered: set[str] = set()
    with ControlClient(store) as client:
        while not all((row := client.get_execution(f"run-{flow.name}")) and row.finished_us for flow in FLOWS):
            for row in await asyncio.to_thread(client.list_interrupts):
                if row.id not in answered and "expires" not in row.execution_id:
                    answered.add(row.id)
                    client.put_inbox("resume", row.execution_id, row.id, {"answer": row.id}, "ann")

            await asyncio.sleep(0.02)

    if isinstance(worker, DbosWorker):
        await asyncio.to_thread(_wait_written, worker)

    worker.stop()


def _wait_written(worker: DbosWorker) -> None:
    """Wait until DBOS, too, has noted that everything ended."""
    tick = threading.Event()
    while activation.unfinished(worker.flows):
        tick.wait(0.02)


async def run_all(store: Any, kind: type[Worker]) -> tuple[dict[str, Any], list[Any]]:
    """Run all flows. Returns what the store holds of each, and all events."""
    center, recorder = EventCenter(strict_catalogue=True), Recorder()
    center.add_sink(recorder, min_level="DEBUG")
    with ControlClient(store) as client:
        for flow in FLOWS:
            assert client.put_inbox("start", f"run-{flow.name}", flow.name, 1, "test", flow.name).accepted

        worker = kind(store, FLOWS, Services(center=center))
        person = asyncio.ensure_future(answer_all(store, worker))
        try:
            report = await asyncio.wait_for(worker.run(), PATIENCE)
        finally:
            person.cancel()

        assert report.refused == {} and report.started == len(FLOWS)
        assert recorder.problems == []
        return {flow.name: _left(client, f"run-{flow.name}") for flow in FLOWS}, recorder.records


def _left(client: ControlClient, name: str) -> dict[str, Any]:
    """Return what an execution left in the store: status, state, questions, and its inputs in any order."""
    row = client.get_execution(name)
    assert row is not None
    asked = client.list_interrupts(open_only=False, execution_id=name)
    codes = "".join(point.codes for point in client.history(name))
    return {
        "status": row.status,
        "state": _sorted(client.stored_state(name)["runtime_data"]),
        "interrupts": sorted((each.id, each.type, each.status, json.dumps(each.response)) for each in asked),
        "inputs": Counter(codes.replace("V", "")),  # V: it was taken up
    }


def _sorted(state: dict[str, Any]) -> dict[str, Any]:
    return {key: sorted(value) if key == "keys" else value for key, value in state.items()}


def _told(records: list[Any]) -> Counter[str]:
    """Return the events without what differs from run to run: times, drawn ids, and their order."""
    found: Counter[str] = Counter()
    for record in records:
        if record.event_type in MORE_OFTEN or record.run is None:
            continue

        said = record.to_dict() if hasattr(record, "to_dict") else json.loads(record.encoded)
        meta = {key: said["meta"].get(key) for key in ("scope", "attempt")}
        run = {key: said["run"].get(key) for key in ("run_kind", "execution_id")}
        found[json.dumps([said["event_type"], said["level"], run, meta, _plain(said["payload"])], sort_keys=True)] += 1

    return found


DRAWN = {"signal_id", "SIGNAL_ID", "source_signal", "version"}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(each)
            for key, each in value.items()
            if key not in DRAWN and not key.endswith(("_at", "_us", "_s", "run_id"))
        }

    return [_plain(each) for each in value] if isinstance(value, list) else value


def test_twelve_flows_are_the_same(server: Server, tmp_path: Path) -> None:
    """Embedded or on DBOS: same results, keys and interrupt ids, same inputs, same events in some order."""
    assert len(FLOWS) == 12
    url = server.url()
    embedded, told = asyncio.run(run_all(Layout.create(tmp_path / "store").root, Worker))
    on_dbos, told_there = asyncio.run(run_all(url, DbosWorker))
    assert on_dbos == embedded
    assert {name: len(embedded[name]["interrupts"]) for name in ANSWERS} == ANSWERS
    assert (_told(told) - _told(told_there), _told(told_there) - _told(told)) == (Counter(), Counter())
    taken_up = Counter(record.event_type for record in told_there)["triggerflow.execution_recovered"]
    assert 1 <= taken_up <= sum(ANSWERS.values()) + 1, "it was taken up more often than there was something to do"
    assert workflows(server, url) == {"SUCCESS"}


def workflows(server: Server, url: str) -> set[str]:
    """Return the states of DBOS's workflows."""
    with server.admin() as connection:
        schema = url.rpartition("=")[2]
        found = connection.execute(f"SELECT DISTINCT status FROM {schema}_dbos.workflow_status".encode()).fetchall()
        return {str(row[0]) for row in found}


# -- as somebody uses it -----------------------------------------------------------------------------------------------


def serve(url: str, *flows: TriggerFlow) -> Report:
    engine = Durable.dbos(url, global_concurrency=5, limiter={"limit": 100, "period": 1})
    return asyncio.run(engine.work(flows, once=True, services=Services(center=EventCenter())))


def test_a_flow_that_has_changed_is_shown_as_blocked(server: Server) -> None:
    """DBOS would let it lie; it is listed with what is missing, and goes on when that is back."""
    url = server.url()
    engine = Durable.dbos(url)
    name = engine.start(asking, 1)
    assert engine.start(asking, 1, execution_id=name) == name, "asking again is asking once"
    assert serve(url, asking).started == 1
    changed = TriggerFlow(name=asking.name)
    changed.to(("other", lambda data: data.input))
    changed._entrypoint = asking.entrypoint
    with engine.client() as client:
        asked = client.list_interrupts()
        assert [row.execution_id for row in asked] == [name]
        client.answer(asked[0].id, "yes", "ann")
        assert "lacks" in serve(url, changed).refused[name]
        row = client.get_execution(name)
        assert row is not None and row.status == "blocked_version"
        assert serve(url, asking).ended == 1
        row = client.get_execution(name)
        assert row is not None and row.status == "completed"


def test_what_other_processes_cannot_import_is_not_served(server: Server) -> None:
    """A flow that only this process has would be taken from the queue by nobody else."""
    flow = TriggerFlow()
    flow.to(("a", lambda data: data.input))

    async def resources(place: str) -> dict[str, Any]:
        return {}

    flow.resources(resources)
    assert [text.split(":")[0] for text in flow.check_portable("dbos")] == [
        "it has no name, and gets another one in every process",
        "no other process can import it",
        "its @flow.resources function is async",
    ]
    flow.resources(lambda place: {})
    assert flow.check_portable()[-1].endswith("nobody gives: place")
    assert asking.check_portable("dbos") == []
    with pytest.raises(ValueError, match="no engine 'temporal': choose from postgres, dbos"):
        asking.check_portable("temporal")

    with pytest.raises(DefinitionError, match="cannot be served on DBOS: it has no name"):
        serve(server.url(), flow)


def test_dbos_of_somebody_else_is_left_alone(server: Server, tmp_path: Path) -> None:
    """In a process that runs DBOS for its own workflows, ours would be taken for those of a dead process."""
    dbos.DBOS(config={"name": "theirs", "system_database_url": f"sqlite:///{tmp_path}/theirs.db"})
    try:
        with pytest.raises(StoreError, match="runs DBOS for something else"):
            serve(server.url(), asking)
    finally:
        dbos.DBOS.destroy()


# -- processes that end ------------------------------------------------------------------------------------------------


def test_killed_processes_lose_nothing(server: Server, tmp_path: Path) -> None:
    """What a killed process had taken from the queue is put back by the next one."""
    url = server.url()
    assert run_with_kills(url, tmp_path, 40, 1, 0.1, PROCESS, (0.9, 1.2)) == 1
    assert workflows(server, url) == {"SUCCESS"}


@pytest.mark.slow
def test_twenty_kills_on_dbos(server: Server, tmp_path: Path) -> None:
    """Twenty random kills, six hundred executions: none lost, no gap, no second key, no workflow left behind."""
    url = server.url()
    assert run_with_kills(url, tmp_path, 600, 20, 0.4, PROCESS, (0.6, 2.0)) == 20
    assert workflows(server, url) == {"SUCCESS"}


@pytest.mark.slow
def test_frozen_processes_on_dbos(server: Server, tmp_path: Path) -> None:
    """Three processes frozen past their lease, replaced and thawed: nothing is corrupted.

    What they hold is enqueued behind all else, so there is less than 200 to do: else nobody would come to it.
    """
    assert zombies(server, tmp_path, 100, 3, PROCESS, 3.0) > 0


@pytest.mark.slow
def test_two_processes_share_the_work(server: Server, tmp_path: Path) -> None:
    """Both serve the same queue, and nothing is done twice."""
    from tests.chaos.test_kills import ask_for, check
    from tests.postgres.test_zombies import spawn

    url, effects = server.url(), tmp_path / "effects"
    names = ask_for(url, 200)  # type: ignore[arg-type]
    both: list[subprocess.Popen[str]] = [spawn(url, effects, PROCESS, 0.2, 30.0) for _ in range(2)]
    for process in both:
        out, _ = process.communicate(timeout=120)
        assert out == "done {}\n"

    assert check(url, effects, names, 0) == 0  # type: ignore[arg-type]
    assert len({line.split()[3] for line in effects.read_text().splitlines()}) == 2, "one did it all"


def test_the_command_serves(server: Server, tmp_path: Path) -> None:
    """``flowdeck worker --engine dbos`` does the same from the command line; without a server it says what it needs."""
    url = server.url()
    name = Durable.dbos(url).start("asks", 1)

    command = [sys.executable, "-m", "flowdeck_devtools.cli"]
    place: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(PROCESS.parent)}, "text": True}

    def flowdeck(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *args], capture_output=True, timeout=60, **place)

    def work(store: str) -> subprocess.CompletedProcess[str]:
        return flowdeck("worker", "portable_flows:asking", "--store", store, "--engine", "dbos", "--once")

    done = work(url)
    assert done.returncode == 0, done.stderr
    with ControlClient(url) as client:
        assert [(row.execution_id, row.writer) for row in client.list_interrupts()] == [(name, "")]

    listed = flowdeck("interrupts", "list", "--store", url, "--all").stdout
    assert "  waiting  " in listed and "process" not in listed and "worker" not in listed
    serving = [*command, "worker", "portable_flows:asking", "--engine", "dbos", "--store", url]
    with ControlClient(url) as client, subprocess.Popen(serving, stderr=subprocess.PIPE, **place) as worker:
        try:
            assert worker.stderr is not None and "working on asks" in worker.stderr.readline()
            (asked,) = client.list_interrupts()
            answered = flowdeck("interrupts", "answer", asked.id, "--value", "1", "--wait", "30", "--store", url)
            assert answered.stdout.startswith(f"answered {asked.id}"), "nobody held it, and it was waited for"
        finally:
            worker.terminate()

    assert "DBOS needs a PostgreSQL store" in work("elsewhere").stderr
