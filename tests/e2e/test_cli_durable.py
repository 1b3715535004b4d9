"""`flowdeck worker`, `executions` and `intervene`: what was left behind goes on, from any terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from tests.e2e.cli_shell import Shell, eventually

from flowdeck.layout import Layout
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.maintenance import publish

FLOWS = """
import asyncio, os, signal
from flowdeck import TriggerFlow, runtime

flow = TriggerFlow(name="refund")

async def work(data):
    await data.async_set_state("order", data.input)
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return data.input

async def ask(data):
    return await data.async_pause_for(type="approval", payload={"order": data.input},
        schema={"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]})

def keep(data):
    data.set_state("answer", data.input)
    data.set_state("notes", [each["payload"] for each in data.get_interventions()])

flow.to(work).to(ask).intervention_point(name="notes", target="notes").to(keep)

@flow.resources
def resources():
    return {"bank": "connected"}

async def main():
    execution = flow.create_execution(auto_close_timeout=0.0, runtime_resources={"bank": "x"})
    print(execution.id, flush=True)
    await execution.async_start(7)

if __name__ == "__main__":
    runtime.use_store()
    from refunds import flow, main
    asyncio.run(main())
"""


@pytest.fixture
def died(shell: Shell) -> tuple[Shell, str]:
    """A run whose process was killed in its first step."""
    (shell.folder / "refunds.py").write_text(FLOWS)
    done = subprocess.run(
        [sys.executable, "refunds.py"], cwd=shell.folder, env={**shell.env, "DIE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == -9
    return shell, done.stdout.strip()


def shown(shell: Shell, execution_id: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell.run("executions", "show", execution_id, "--json", *more).stdout)
    return found


def test_retention_keeps_what_an_open_execution_needs(died: tuple[Shell, str]) -> None:
    """However old, its beginning stays while state.db holds it; what is too new to be touched is said."""
    shell, execution = died
    shell.ok("worker", "refunds:flow", "--once")
    at_once = Timing(visible_after_ms=0, keep_ms=0)
    publish(Layout(shell.store), timing=at_once)
    said = shell.ok("store", "prune", "--max-age", "0.000001")
    assert "0 events removed" in said
    assert "left out" in said
    publish(Layout(shell.store), timing=at_once)
    done = json.loads(shell.ok("store", "prune", "--max-age", "0.000001", "--json"))
    assert done["events_removed"] > 0
    assert done["events_kept"] > 0
    left = shell.ok("sql", "--format", "csv", "SELECT DISTINCT execution_id, event_type FROM events")
    assert f"{execution},triggerflow.execution_started" in left
    assert "chunk.started" not in left


def test_a_killed_run_is_taken_up_answered_and_ended(died: tuple[Shell, str]) -> None:
    """Kill -9, a worker, an answer while nobody runs it, a worker again: the same execution, the next epoch."""
    shell, name = died
    row = shown(shell, name)
    assert (row["status"], row["process"], row["durable"]["resource_keys"]) == ("running", "gone", ["bank"])
    listing = shell.run("executions", "list")
    assert name in listing.stdout and "gone" in listing.stdout

    worker = shell.run("worker", "refunds:flow", "--once")
    assert worker.returncode == 0 and f"took up {name}" in worker.stderr and "1 wait" in worker.stderr
    (open_,) = json.loads(shell.run("interrupts", "list", "--json").stdout)
    assert "waiting, needs a worker" in shell.ok("interrupts", "list")
    wrong = shell.run("interrupts", "answer", open_["id"], "--value", '{"ok": "yes"}', "--actor", "ann")
    assert wrong.returncode == 2 and "does not fit" in wrong.stderr
    answered = shell.run("interrupts", "answer", open_["id"], "--value", '{"ok": true}', "--actor", "ann")
    assert answered.returncode == 0 and "flowdeck worker refunds:flow" in answered.stderr
    again = shell.run("interrupts", "answer", open_["id"], "--value", '{"ok": false}', "--actor", "bob")
    assert again.returncode == 1 and "already answered by ann" in again.stderr

    noted = shell.run("intervene", name, "--value", '"check the address"', "--target", "notes", "--actor", "bob")
    assert noted.returncode == 0 and "kept" in noted.stderr
    assert shell.run("worker", "refunds:flow", "--once").returncode == 0
    row = shown(shell, name, "--state", "--history")
    assert (row["status"], row["durable"]["token"]) == ("completed", 3)
    assert row["state"]["order"] == 7 and row["state"]["answer"] == {"ok": True}
    assert [point["at"] for point in row["history"]] == sorted({point["at"] for point in row["history"]})


def test_a_dead_run_is_cancelled_by_the_next_worker(died: tuple[Shell, str]) -> None:
    """The request is kept, and names who asked; a worker applies it."""
    shell, name = died
    asked = shell.run("executions", "cancel", name[-8:], "--actor", "ann", "--json")
    assert asked.returncode == 0 and json.loads(asked.stdout)["actor"] == "ann"
    assert shell.run("worker", "refunds:flow", "--once").returncode == 0
    assert shown(shell, name)["status"] == "cancelled"


def test_a_run_is_resumed_by_hand_and_forked(died: tuple[Shell, str]) -> None:
    """`resume` runs it here until it waits; `fork` makes a second one from a committed point."""
    shell, name = died
    resumed = shell.run("executions", "resume", name)
    assert resumed.returncode == 0 and f"{name} is waiting" in resumed.stdout
    points = shown(shell, name, "--history")["history"]
    wrong = shell.run("executions", "fork", name, "--at", "99999")
    assert wrong.returncode == 2 and "no committed point 99999" in wrong.stderr and "--history" in wrong.stderr
    forked = shell.run("executions", "fork", name, "--at", str(points[-1]["at"]), "--actor", "ann")
    new = forked.stdout.strip()
    row = shown(shell, new)
    assert row["durable"]["forked_from"] == name and row["durable"]["forked_at"] == points[-1]["at"]
    assert shell.run("worker", "refunds:flow", "--once").returncode == 0
    waiting = json.loads(shell.run("interrupts", "list", "--json").stdout)
    assert sorted(each["execution_id"] for each in waiting) == sorted([name, new])


def test_bad_requests_are_told_in_one_line(died: tuple[Shell, str]) -> None:
    """Unknown ids, flows that cannot be imported, values that are no JSON: a line each, and a code."""
    shell, name = died
    for arguments, text in (
        (("executions", "show", "nobody"), "there is no execution 'nobody'"),
        (("executions", "cancel", "nobody"), "there is no execution 'nobody'"),
        (("worker", "nowhere:flow", "--once"), "there is no module 'nowhere'"),
        (("worker", "refunds:nothing", "--once"), "has no 'nothing'"),
        (("worker", "refunds:flow", "--resources", "refunds:none", "--once"), "has no function 'none'"),
        (("worker", "refunds:flow", "--durability", "most"), "choose from exit, process, full"),
        (("intervene", name), "--value"),
        (("intervene", name, "--value", "{"), "no valid JSON"),
    ):
        done = shell.run(*arguments)
        assert done.returncode == 2 and text in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_changed_flow_blocks_its_runs_visibly(died: tuple[Shell, str]) -> None:
    """The worker says what is missing and the list shows blocked_version; with the step back it goes on."""
    shell, name = died
    source = (shell.folder / "refunds.py").read_text()
    (shell.folder / "refunds.py").write_text(source.replace("flow.to(work).to(ask)", 'flow.to(("renamed", work))'))
    refused = shell.run("worker", "refunds:flow", "--once")
    assert refused.returncode == 1 and "operator 'work'" in refused.stderr
    row = shown(shell, name)
    assert row["status"] == "blocked_version" and "operator 'work'" in row["durable"]["blocked"]
    (shell.folder / "refunds.py").write_text(source)
    assert shell.run("worker", "refunds:flow", "--once").returncode == 0
    assert shown(shell, name)["status"] == "waiting"


def test_a_worker_serves_answers_until_it_is_stopped(died: tuple[Shell, str]) -> None:
    """A worker that stays applies an answer within a moment, and leaves the rest for the next one."""
    shell, name = died
    worker = shell.start("worker", "refunds:flow")
    eventually(lambda: shown(shell, name)["status"] == "waiting", "the worker took it up")
    (open_,) = json.loads(shell.run("interrupts", "list", "--json").stdout)
    answered = shell.run("interrupts", "answer", open_["id"], "--value", '{"ok": true}', "--actor", "ann")
    assert f"answered {open_['id']} as ann" in answered.stdout
    eventually(lambda: shown(shell, name)["status"] == "completed", "it ended")
    assert worker.end(signal.SIGTERM) == 143
