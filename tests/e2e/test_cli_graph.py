"""`flowdeck graph` on flows and runs a user would have."""

from __future__ import annotations

import json
import signal

import pytest
from tests.e2e.cli_shell import Shell, eventually

FLOWS = """
from flowdeck import Retry, TriggerFlow

def split(data):
    return [1, 2, 3]

def work(data):
    if data.input == 2 and data.attempt < 2:
        raise ValueError("try again")
    return data.input

def ask(data):
    return data.pause_for(type="approval", payload={"question": "OK?"})

def last(data):
    return data.input

notify = TriggerFlow(name="notify")
notify.to(("mail", last))
flow = TriggerFlow(name="refund \\x1b[31mred")
(
    flow.to(split)
    .for_each(name="items").to(work, retry=Retry(attempts=2)).end_for_each()
    .if_condition(lambda data: False).to(("big", last)).else_condition().to(("small", last)).end_condition()
    .to_sub_flow(notify)
    .to(ask).to(last)
)
wide = TriggerFlow(name="wide")
for k in range(900):
    wide.to((f"a step with quite a long name, number {k}", last))
"""


@pytest.fixture
def flows(shell: Shell) -> Shell:
    (shell.folder / "flows.py").write_text(FLOWS)
    return shell


def test_a_flow_without_a_run(flows: Shell) -> None:
    """A flow is shown as a table of steps, as Mermaid, and as JSON; no store is needed."""
    table = flows.ok("graph", "flows:flow")
    steps = [line.split("  ")[0] for line in table.splitlines()[2:]]
    assert steps[:3] == ["split", "for each items", ""]
    assert "  work" in table
    assert "\x1b" not in table
    assert flows.ok("graph", "flows:flow", "--mermaid").startswith("flowchart TD\n")
    assert '|"Chunk[ask]' in flows.ok("graph", "flows:flow", "--mermaid", "--detailed")
    data = flows.json("graph", "flows:flow", "--json")
    assert [n["name"] for n in data["nodes"] if n["kind"] == "sub_flow"] == ["notify"]
    assert "run" not in data
    assert not flows.store.exists()


def test_a_run_shows_how_far_it_has_come(flows: Shell) -> None:
    """Each step has its status, how often it ran and how long; retried ones count once, waiting ones wait."""
    running = flows.start("run", "flows:flow")
    eventually(flows.open_interrupts, "the flow asks")
    (row,) = flows.sql("select execution_id from runs where flow_name like 'refund%'")
    run = row["execution_id"]
    data = eventually(lambda: _waiting(flows.json("graph", run, "--json")), "ask waits")
    found = {n["name"]: (n["status"], n["times"]) for n in data["nodes"] if n["kind"] in ("chunk", "sub_flow")}
    assert found == {
        "split": ("completed", 1),
        "work": ("completed", 3),
        "big": (None, 0),
        "small": ("completed", 1),
        "notify": ("completed", 1),
        "ask": ("waiting", 1),
        "last": (None, 0),
    }
    assert data["run"] == {"execution_id": run, "status": "waiting"}
    mermaid = flows.ok("graph", run[:-1], "--mermaid")
    assert mermaid.count("classDef ") == 3
    assert mermaid.count("not_reached\n") == 1
    table = flows.run("graph", run)
    assert "waiting" in table.stdout
    assert "\x1b" not in table.stdout + table.stderr
    running.end(signal.SIGINT)
    (child,) = flows.sql("select execution_id from runs where flow_name = 'notify'")
    assert "mail" in flows.ok("graph", child["execution_id"])


def _waiting(data: dict[str, object]) -> dict[str, object] | None:
    return data if '"waiting", "times"' in json.dumps(data) else None


def test_a_large_definition(flows: Shell) -> None:
    """A definition too large for an event is read from its blob."""
    flows.ok("run", "flows:wide")
    (row,) = flows.sql("select execution_id from runs")
    (event,) = flows.sql("select payload::varchar as p from events where event_type like '%definition_declared'")
    assert "$blob" in event["p"]
    data = flows.json("graph", row["execution_id"], "--json")
    assert sum(node["status"] == "completed" for node in data["nodes"]) == 900


def test_what_cannot_be_shown(flows: Shell) -> None:
    """A run nobody knows, a flow nobody has, two forms at once, and a lost definition: one line each."""
    assert "store" in flows.fails("graph", "1234")
    flows.ok("run", "flows:wide")
    assert "there is no run 'nope'; see: flowdeck runs" in flows.fails("graph", "nope")
    assert "flows there: flow, notify, wide" in flows.fails("graph", "flows:nope")
    assert "choose one of --mermaid, --text and --json" in flows.fails("graph", "x", "--json", "--mermaid")
    assert "--detailed belongs to --mermaid" in flows.fails("graph", "x", "--detailed")
    (row,) = flows.sql("select execution_id from runs")
    for blob in (flows.store / "blobs").iterdir():
        blob.unlink()

    line = flows.fails("graph", row["execution_id"], code=1)
    assert "the definition of wide is not in the store" in line
    assert line.endswith("its flow is flows:wide: flowdeck graph flows:wide")
