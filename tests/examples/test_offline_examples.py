"""The examples people copy: each does what its page says, against a server that speaks HTTP, and without a provider."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from examples.approval_restart import __main__ as approval_restart
from examples.daily_report import __main__ as daily_report
from examples.daily_report import flow as daily_flow
from examples.daily_report.job import Tasks, run_daily_report
from examples.document_review import __main__ as document_review
from examples.model_gate import __main__ as model_gate
from examples.record import NAMES
from examples.research_agent import __main__ as research_agent
from examples.research_agent import model as research_model
from examples.ticket_triage import __main__ as ticket_triage
from tests.workspace.conftest import Collector

from flowdeck import runtime
from flowdeck.durable import ControlClient
from flowdeck.events.catalogue import problems
from flowdeck.testing import LocalModel
from flowdeck_evals import Suite
from flowdeck_evals.single import replay_tape
from flowdeck_evals.tapes import Tape
from flowdeck_evals.targets import find_target
from flowdeck_sinks import store

EXAMPLES = Path(__file__).parents[2] / "examples"
TAPES = sorted(path for name in NAMES for path in (EXAMPLES / name / "evals" / "tapes").glob("*.tape"))
INSIDE = re.compile(r"full_data|wildcard|layer_mark|chunk[-_]|operator|delta")
"""What no product event may hold: names of the parser's and of the engine's."""


@pytest.fixture(autouse=True)
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """An empty folder, and everything that is told; it must be in the catalogue."""
    monkeypatch.chdir(tmp_path)
    for agent in (daily_flow.writer, research_agent.agent):
        monkeypatch.setattr(agent, "workspace", None)

    collector = Collector()
    runtime.center.add_sink(collector, None, "DEBUG")
    yield collector
    runtime.center.remove_sink(collector)
    research_agent.agent.deactivate_session()
    assert [problem for record in collector.records for problem in problems(record)] == []


def items_of(events: Collector) -> list[dict[str, Any]]:
    """What was put on runtime streams, without the framework's own items."""
    found = [record.payload["item"] for record in events.of("triggerflow.stream_item_emitted")]
    return [item for item in found if "event_type" in item]


def test_document_review(capsys: pytest.CaptureFixture[str]) -> None:
    """What came while the model read changes the risk at the planned point, and is written down as applied."""
    asyncio.run(document_review.main())
    said = capsys.readouterr().out
    assert "ready     The risk is high" in said
    assert "ann inserted ['assess_risk']" in said
    assert "intern rejected []" in said


def test_ticket_triage(capsys: pytest.CaptureFixture[str]) -> None:
    """Hints reach the steps they are for, although the run was under way when they came."""
    asyncio.run(ticket_triage.main())
    said = capsys.readouterr().out
    assert "ready     ticket_understood" in said
    assert "'severity': 'high'" in said and "'team': 'night shift'" in said
    assert "{'hint': 'outage in region EU'} -> classify" in said
    assert "{'team': 'night shift'} -> assign" in said


def test_approval_restart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A run that was killed goes on elsewhere, with an answer given in between; the letter goes out once."""
    approval_restart.main(tmp_path)
    said, worker = capfd.readouterr()
    assert "killed: -9" in said
    assert "epoch 2" in worker
    with ControlClient(tmp_path / ".flowdeck") as client:
        (asked,) = client.list_interrupts(open_only=False)
        (run,) = client.list_executions()

    assert (asked.response, asked.actor, asked.execution_id, run.status) == (
        {"approved": True},
        "ann",
        run.id,
        "completed",
    )
    (sent,) = (tmp_path / "outbox.txt").read_text().splitlines()
    assert sent.startswith(f"{run.id}:t")  # the idempotency key leads back to the run
    with closing(store.connect(tmp_path / ".flowdeck")) as history:
        ((asked_model, traces),) = history.sql(
            "SELECT count(*) FILTER (event_type = 'model.request_started'), count(DISTINCT root_run_id) FROM events "
            "WHERE root_run_id IS NOT NULL"
        ).fetchall()

    # What was done before the crash is not done again, and it is one trace. The kill may cost its last events.
    assert (asked_model <= 1, traces) == (True, 1)


KILLED_WHILE_SENDING = """
import asyncio, os, signal
from flowdeck import runtime
from examples.approval_restart.flow import flow

class Mail:
    def send(self, letter, key):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    execution = flow.create_execution(auto_close=False, runtime_resources={"mail": Mail()})
    await execution.async_start({"to": "ann@example.org", "about": "x"})
    await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), {"approved": True})

runtime.use_store(".flowdeck")
asyncio.run(main())
"""


def test_a_letter_that_may_have_been_sent_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash in the middle of sending nobody sends again by itself; what the run needs to go on is named."""
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_SENDING], check=False, timeout=60)
    assert killed.returncode == -9
    subprocess.run(approval_restart.flowdeck("worker", approval_restart.FLOW, "--once"), check=True, timeout=60)
    with ControlClient(tmp_path / ".flowdeck") as client:
        (asked,) = client.list_interrupts()
        assert asked.type == "replay_unsafe"
        assert client.stored_state(asked.execution_id)["resource_keys"] == ["mail"]

    assert not (tmp_path / "outbox.txt").exists()


def test_model_gate(capsys: pytest.CaptureFixture[str]) -> None:
    """The model asks twice through the same step, and decides with both answers."""
    asyncio.run(model_gate.main())
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in said[:2]] == [
        "When did it happen? On Monday.",
        "Are there photos? yes, three",
    ]
    assert said[-1] == "pay"


def test_daily_report(events: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    """Triggered twice, the report is written once; users see its stages, and the artifact is what the table says."""
    asyncio.run(daily_report.main())
    said = capsys.readouterr().out
    assert said.count("A section is ready") == 3
    assert said.count("Collecting the news") == 1
    assert "completed workspace://" in said
    assert "## Harbour today" in said
    assert asyncio.run(daily_flow.writer.workspace.audit(verify=True)) == []
    shown = items_of(events)
    assert [item["status"] for item in shown] == ["started", "ready", "ready", "ready", "ready"]
    assert all(item["task_id"].startswith("daily-report-") for item in shown)
    assert not INSIDE.search(repr(shown))


def test_a_daily_report_survives_its_readers(events: Collector) -> None:
    """Whoever stopped listening finds the result in the task table; a report that failed says so there and to users."""

    def gone(event: dict[str, Any]) -> None:
        raise ConnectionError("the client has left")

    tasks = Tasks(Path("tasks.db"))
    asyncio.run(run_daily_report("t-1", tasks, gone))
    found = tasks.get("t-1")
    assert found is not None and found["status"] == "completed" and found["report"].startswith("workspace://")
    assert {record.run.execution_id for record in events.of("triggerflow.execution_completed") if record.run} == {
        found["execution_id"]
    }

    told: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daily_flow, "read_news", Path("no-feed.txt").read_text)
        with pytest.raises(FileNotFoundError):
            asyncio.run(run_daily_report("t-2", tasks, told.append))

    assert [(event["stage"], event["title"]) for event in told if event["status"] == "failed" and "stage" in event] == [
        ("collecting", "Today's news could not be read")
    ]
    assert [event["title"] for event in told][-1] == "There is no report today"
    assert "FileNotFoundError" not in repr(told)
    failed = tasks.get("t-2")
    assert failed is not None and (failed["status"], failed["report"]) == ("failed", None)
    asyncio.run(run_daily_report("t-2", tasks, told.append))  # triggered again, it is tried again
    again = tasks.get("t-2")
    assert again is not None and again["status"] == "completed" and again["execution_id"] != failed["execution_id"]


def test_research_agent(events: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent finds its sources with tools, gets over a tool nobody has, and its evidence can be trusted."""
    asyncio.run(research_agent.main())
    said = capsys.readouterr().out
    assert "sixty compartments" in said
    assert said.count("based_on") == 2
    assert "['user', 'assistant']" in said
    audited = asyncio.run(research_agent.agent.workspace.audit(verify=True))
    assert audited == []
    written = [record.run for record in events.of("workspace.record_ingested")]
    assert {(run.run_kind, run.meta["chunk_name"]) for run in written if run} == {("chunk_execution", "keep")}

    runs = {record.run.run_id: record.run for record in events.records if record.run}
    failed = events.of("action.failed")
    assert [record.payload["action_name"] for record in failed] == ["browse"]
    above, run = [], failed[0].run
    while run is not None:
        above.append(run.run_kind)
        run = runs.get(run.parent_run_id or "")

    assert above == ["action", "action_loop", "request", "agent_turn", "chunk_execution", "workflow_execution"]


def test_an_answer_with_a_source_nobody_has_is_asked_for_again(
    events: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept as evidence exists: the model is told which document does not, and answers anew."""
    told: list[str] = []

    def invents(request: dict[str, Any]) -> Any:
        said = research_model.answer(request)
        if request.get("tools") or told:
            return said

        told.append("a source")
        return {**said, "sources": ["night-train", "../flow"]}

    with LocalModel(invents) as server:
        agent = research_agent.agent
        monkeypatch.setattr(agent, "_model", None)
        agent.use_model("local", base_url=server.base_url, api_key=server.api_key)
        asyncio.run(research_agent.main())
        assert "there is no document ../flow" in str(server.requests[-1]["messages"])

    assert [record.payload["retry_reason"] for record in events.of("model.retrying")] == ["validation"]
    kept = [record for record in events.of("workspace.record_ingested") if record.payload["collection"] == "evidence"]
    assert len(kept) == 2


def test_the_checklists_name_what_there_is() -> None:
    """Every test, file and example the page refers to exists."""
    page = (EXAMPLES.parent / "docs" / "checklists.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8")
    assert all((EXAMPLES / name).is_dir() for name in re.findall(r"`examples/(\w+)`", page))
    for file, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page):
        assert test in (EXAMPLES.parent / file).read_text(encoding="utf-8")

    named = re.findall(r"`(test_\w+)`", page)
    assert len(set(named)) >= 6
    assert [name for name in named if f"def {name}(" not in here] == []


@pytest.mark.parametrize("path", TAPES, ids=lambda path: f"{path.parents[2].name}/{path.stem}")
def test_a_tape_replays_to_the_same_end(path: Path) -> None:
    """Today's code, given what was recorded, asks the same and ends the same; no server is started."""
    tape = Tape.load(path)
    suite = Suite.load(next(path.parents[1].glob("*.yaml")))
    case = next(case for case in suite.cases if case.tape and Path(case.tape).name == path.name)
    if case.intervene:  # what came from outside is not on a tape: the suite brings it in again
        suite.assert_case(case)
        return

    single = asyncio.run(replay_tape(tape, find_target(suite.target)))
    assert single.findings == []
    assert single.evidence.output == tape.header["output"]


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_passes_from_its_tapes(name: str, tmp_path: Path) -> None:
    """The suite says yes, its control says no, and nothing is asked of a model."""
    suite = Suite.load(next((EXAMPLES / name / "evals").glob("*.yaml")))
    report = suite.run_sync(tags="release", store=tmp_path / "store")
    verdict = report.judge(baseline=None)
    assert verdict.ok, verdict.reasons


@pytest.mark.parametrize("name", NAMES)
def test_what_belongs_to_an_example(name: str) -> None:
    """A page that says how to run, evaluate and record it, a picture of its trace, files read in one sitting."""
    folder = EXAMPLES / name
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 10
    for command in (
        f"python -m examples.{name}",
        f"evals run examples/{name}/evals",
        f"python -m examples.record {name}",
    ):
        assert command in page

    assert "<svg" in (folder / "trace.svg").read_text(encoding="utf-8")[:200]
    assert all(len(file.read_text(encoding="utf-8").splitlines()) < 120 for file in folder.glob("*.py"))
