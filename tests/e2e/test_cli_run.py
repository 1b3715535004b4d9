"""`flowdeck run`, `interrupts`, `runs`, `sql` and `events` on flows a user would write."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cli_shell import Shell, eventually

FLOWS = """
import asyncio
from flowdeck import TriggerFlow

async def double(data):
    await data.async_set_state("doubled", data.input * 2)

async def fail(data):
    raise ValueError("no such customer: 7")

async def ask(data):
    return await data.async_pause_for(
        type="approval",
        payload={"question": f"Refund {data.input}?"},
        schema={"type": "object", "properties": {"approved": {"type": "boolean"}}, "required": ["approved"]},
        resume_to="next",
    )

async def keep(data):
    await data.async_set_state("answer", data.input)

async def forever(data):
    await asyncio.Event().wait()

doubling = TriggerFlow(name="doubling")
doubling.to(double)
failing = TriggerFlow(name="failing")
failing.to(fail)
approval = TriggerFlow(name="approval")
approval.to(ask).to(keep)
failing_late = TriggerFlow(name="failing-late")
failing_late.to(("ask_first", ask)).to(("fail_after", fail))
endless = TriggerFlow(name="endless")
endless.to(forever)
number = 7
"""


@pytest.fixture
def flows(shell: Shell) -> Shell:
    """A shell whose working directory holds a module of flows."""
    (shell.folder / "flows.py").write_text(FLOWS)
    return shell


def count(shell: Shell, where: str) -> int:
    """How many events match."""
    return sum(row["n"] for row in shell.sql(f"select count(*) as n from events where {where}"))


def test_a_flow_runs_and_its_snapshot_is_printed(flows: Shell) -> None:
    """The close snapshot comes as JSON, and every event is in the store."""
    assert json.loads(flows.ok("run", "flows:doubling", "--input", "21")) == {"doubled": 42}
    assert count(flows, "event_type = 'chunk.completed'") == 1
    assert count(flows, "event_type = 'triggerflow.execution_completed'") == 1


def test_json_output_of_a_run_is_one_record(flows: Shell) -> None:
    """--json adds what a program needs to find the run again."""
    record = flows.json("run", "flows:doubling", "--input", "4", "--json")
    assert record["status"] == "completed"
    assert record["snapshot"] == {"doubled": 8}
    (run,) = flows.json("runs", "--json")
    assert (run["execution_id"], run["status"], run["flow_name"]) == (record["execution_id"], "completed", "doubling")


def test_input_comes_from_a_file_or_stdin(flows: Shell) -> None:
    """@file and - are read as JSON."""
    (flows.folder / "in.json").write_text("5")
    assert json.loads(flows.ok("run", "flows:doubling", "--input", "@in.json")) == {"doubled": 10}
    assert json.loads(flows.ok("run", "flows:doubling", "--input", "-", input="6")) == {"doubled": 12}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("flows", "write module:attribute, for example flows:flow"),
        ("flows.py:doubling", "write the module, flows:doubling"),
        ("nowhere:flow", "there is no module 'nowhere'"),
        ("flows:missing", "flows has no 'missing'; flows there: approval, doubling"),
        ("flows:number", "flows:number is of type int, no TriggerFlow; flows there"),
        ("json:loads", "there is no flow in that module"),
        ("broken_import:flow", "ModuleNotFoundError: No module named 'not_installed_at_all' at broken_import.py:1"),
        ("broken_syntax:flow", "broken_syntax.py:1: "),
        ("broken_value:flow", "ZeroDivisionError: division by zero at broken_value.py:2"),
        ("leaving:flow", "ends the process while it is imported (exit 3)"),
    ],
)
def test_a_flow_that_cannot_be_found_is_one_clear_error(flows: Shell, spec: str, said: str) -> None:
    """The line names what is wrong and where; nothing is written to a store."""
    (flows.folder / "broken_import.py").write_text("import not_installed_at_all\n")
    (flows.folder / "broken_syntax.py").write_text("def flow(:\n")
    (flows.folder / "broken_value.py").write_text("flow = None\n1 / 0\n")
    (flows.folder / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    assert said in flows.fails("run", spec)
    assert not flows.store.exists()


def test_bad_input_is_refused_before_anything_runs(flows: Shell) -> None:
    """What is no JSON leaves no run behind."""
    assert "--input is no valid JSON" in flows.fails("run", "flows:doubling", "--input", "{")
    assert not flows.store.exists()


@pytest.mark.parametrize("name", ["failing", "failing-late"])
def test_a_failing_flow_exits_1_with_its_error_and_place(flows: Shell, name: str) -> None:
    """The line names the flow, the error and the line of the user's file, also when it fails after an answer."""
    if name == "failing":
        line = flows.fails("run", "flows:failing", code=1)
    else:
        running = flows.start("run", "flows:failing_late", "--input", "9")
        (waiting,) = eventually(flows.open_interrupts, "the flow waits")
        flows.ok("interrupts", "answer", waiting["id"], "--value", '{"approved": true}')
        assert running.end() == 1
        line = running.output[-1]

    assert f"flow '{name}' failed: ValueError: no such customer: 7 at flows.py:9" in line
    assert flows.statuses() == ["failed"]


def test_a_timeout_ends_the_run_and_says_what_it_waited_for(flows: Shell) -> None:
    """A run that is not done in time is cancelled, recorded and reported."""
    done = flows.run("run", "flows:approval", "--input", "9", "--timeout", "0.5")
    assert done.returncode == 1
    assert "was not done after 0.5 s and is recorded as cancelled; it waited for: " in done.stderr
    assert flows.statuses() == ["cancelled"]
    assert flows.open_interrupts() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["endless", "approval"])
def test_a_stopped_run_is_recorded_as_cancelled(flows: Shell, name: str, number: int, code: int) -> None:
    """Ctrl-C and SIGTERM in the middle, at work or waiting, leave no loose ends."""
    running = flows.start("run", f"flows:{name}", "--input", "1")
    eventually(lambda: count(flows, "event_type = 'chunk.started'"), "the run is in the store")
    assert running.end(number) == code, running
    assert "is recorded as cancelled" in running.text
    assert "Traceback" not in running.text
    assert flows.statuses() == ["cancelled"]
    assert flows.open_interrupts() == []


def test_an_answer_from_another_process_continues_the_run(flows: Shell) -> None:
    """The waiting run says how to answer; the printed command, edited, does it."""
    running = flows.start("run", "flows:approval", "--input", "9")
    hint = running.wait_for("flowdeck interrupts answer")
    assert "waiting for approval: Refund 9?" in running.text
    assert '{"approved": true}' in hint
    (waiting,) = flows.open_interrupts()
    assert waiting["id"] in hint

    said = flows.ok("interrupts", "answer", waiting["id"][-12:], "--value", '{"approved": false}', "--actor", "ana")
    assert said == f"answered {waiting['id']} as ana\n"
    assert running.end() == 0, running
    assert '"approved": false' in running.text
    shown = flows.json("interrupts", "show", waiting["id"], "--json")
    assert (shown["status"], shown["actor"], shown["response"]) == ("resumed", "ana", {"approved": False})


def test_the_second_answer_is_told_who_was_first(flows: Shell) -> None:
    """An answered interrupt refuses another answer, and a bad one is refused before it is sent."""
    running = flows.start("run", "flows:approval", "--input", "9")
    (waiting,) = eventually(flows.open_interrupts, "the flow waits")
    line = flows.fails("interrupts", "answer", waiting["id"], "--value", '{"approved": "yes"}')
    assert "the answer does not fit" in line
    assert "'{\"approved\": true}'" in line
    flows.ok("interrupts", "answer", waiting["id"], "--value", '{"approved": true}', "--actor", "ana")
    assert running.end() == 0
    line = flows.fails("interrupts", "answer", waiting["id"], "--value", '{"approved": false}', code=1)
    assert "answered already by ana" in line
    assert "there is no interrupt 'nonsense'" in flows.fails("interrupts", "show", "nonsense")


def test_listing_interrupts(flows: Shell) -> None:
    """The table shows type and question, and --all what was answered, too."""
    running = flows.start("run", "flows:approval", "--input", "9")
    (waiting,) = eventually(flows.open_interrupts, "the flow waits")
    assert "Refund 9?" in flows.ok("interrupts", "list")
    flows.ok("interrupts", "answer", waiting["id"], "--value", '{"approved": true}')
    assert running.end() == 0
    assert flows.run("interrupts", "list").stderr == "nothing waits for an answer\n"
    assert "Refund 9?" in flows.ok("interrupts", "list", "--all")


def test_a_killed_run_is_lost_and_keeps_its_history(flows: Shell) -> None:
    """After kill -9 the store answers at once, the run is lost, and a late answer is kept and said to be."""
    running = flows.start("run", "flows:approval", "--input", "9")
    (waiting,) = eventually(flows.open_interrupts, "the flow waits")
    eventually(lambda: count(flows, "event_type = 'triggerflow.interrupt_raised'"), "the journal has it, too")
    running.end(signal.SIGKILL)
    assert count(flows, "event_type = 'triggerflow.interrupt_raised'") == 1
    (run,) = flows.json("runs", "--json")
    assert run["status"] in ("lost", "waiting")
    done = flows.run("interrupts", "answer", waiting["id"], "--value", '{"approved": true}', "--wait", "0.2")
    assert done.returncode == 0 and "no worker can take it up" in done.stderr and "--durability full" in done.stderr
    assert "lost with its process" in flows.ok("interrupts", "list")


FORMATS: dict[str, Any] = {
    "json": json.loads,
    "csv": lambda text: list(csv.DictReader(io.StringIO(text))),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_sql_for_programs_is_complete(flows: Shell, kind: str) -> None:
    """CSV and JSON carry every row, however many."""
    flows.ok("run", "flows:doubling", "--input", "1")
    rows = FORMATS[kind](flows.ok("sql", "select i from range(5000) t(i) order by i", "--format", kind))
    assert [int(row["i"]) for row in rows] == list(range(5000))


def test_sql_as_a_table_stops_at_a_bound(flows: Shell) -> None:
    """A table shows 1,000 rows by default and says that there are more; --limit 0 shows all."""
    flows.ok("run", "flows:doubling", "--input", "1")
    text = flows.ok("sql", "select i from range(5000) t(i)")
    assert len(text.splitlines()) == 1003
    assert "more than 1000 rows" in text
    assert len(flows.ok("sql", "select i from range(5000) t(i)", "--limit", "0").splitlines()) == 5002


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select nonsense from events", "nonsense"),
        ("selec 1", "selec"),
        ("select * from nowhere", "nowhere"),
        ("  ", "the query is empty"),
    ],
)
def test_bad_sql_is_one_error(flows: Shell, query: str, said: str) -> None:
    """An SQL error is one line that names what is wrong, with the place below it where there is one; no traceback."""
    flows.ok("run", "flows:doubling", "--input", "1")
    done = flows.run("sql", query)
    assert done.returncode in (1, 2)
    first, *place = done.stderr.splitlines()
    assert said in first
    if place:
        line, caret, page = place
        assert "flowdeck docs sql" in page
        assert line.strip() == f"LINE 1: {query}"
        assert line[caret.index("^") :].startswith(said)


def test_sql_cannot_change_the_store(flows: Shell) -> None:
    """The views are made for the query; whatever it does, the history stays."""
    flows.ok("run", "flows:doubling", "--input", "1")
    before = count(flows, "true")
    for query in ("drop view events", "delete from events", "create table t as select 1"):
        flows.run("sql", query)

    assert count(flows, "true") == before


def test_sql_reads_from_stdin(flows: Shell) -> None:
    """- reads the statement from stdin."""
    flows.ok("run", "flows:doubling", "--input", "1")
    assert flows.ok("sql", "-", "--format", "csv", input="select 42 as answer") == "answer\n42\n"


def test_events_are_shown_and_filtered(flows: Shell) -> None:
    """The newest events come oldest first; --json writes them as stored; a filter picks some."""
    flows.ok("run", "flows:doubling", "--input", "21")
    records = [json.loads(line) for line in flows.ok("events", "--json", "--limit", "0").splitlines()]
    assert records == []
    records = [json.loads(line) for line in flows.ok("events", "--json", "--limit", "500").splitlines()]
    assert [record["wseq"] for record in records] == sorted(record["wseq"] for record in records)
    assert len(records) == count(flows, "true")
    (line,) = flows.ok("events", "--filter", "kind:chunk.completed").splitlines()
    assert "chunk.completed" in line
    assert "double" in line
    assert "--filter" in flows.fails("events", "--filter", "level>=")


def test_following_shows_what_another_process_does(flows: Shell) -> None:
    """--follow prints new events while they happen, each once, and Ctrl-C ends it quietly."""
    flows.ok("run", "flows:doubling", "--input", "1")
    follower = flows.start("events", "--follow", "--json", "--limit", "2")
    eventually(lambda: len(follower.output) >= 2, "the newest events are shown")
    flows.ok("run", "flows:doubling", "--input", "2")
    follower.wait_for("triggerflow.execution_closed")
    eventually(lambda: follower.text.count("triggerflow.execution_closed") >= 2, "the second run's end is shown")
    assert follower.end(signal.SIGINT) == 130
    ids = [json.loads(line)["event_id"] for line in follower.output]
    assert len(ids) == len(set(ids))


def test_runs_of_several_processes_are_listed_newest_first(flows: Shell) -> None:
    """Every run has a row, the newest first, and --limit bounds them."""
    for number in range(3):
        flows.ok("run", "flows:doubling", "--input", str(number))

    runs = flows.json("runs", "--json")
    assert [run["flow_name"] for run in runs] == ["doubling"] * 3
    assert [run["started_at"] for run in runs] == sorted((run["started_at"] for run in runs), reverse=True)
    assert len(flows.json("runs", "--json", "--limit", "2")) == 2
    assert len(flows.ok("runs", "--limit", "2").splitlines()) == 4


def test_the_store_is_private_and_where_it_was_asked_for(flows: Shell) -> None:
    """--store outranks the environment; other users cannot look in."""
    elsewhere = flows.folder / "elsewhere"
    flows.ok("run", "flows:doubling", "--input", "1", "--store", str(elsewhere))
    assert not flows.store.exists()
    assert elsewhere.stat().st_mode & 0o077 == 0
    for folder, _, files in os.walk(elsewhere):
        assert all((Path(folder) / name).stat().st_mode & 0o077 == 0 for name in files)


def test_a_query_plan_keeps_its_lines(flows: Shell) -> None:
    """EXPLAIN is shown as the drawing it is."""
    flows.ok("run", "flows:doubling", "--input", "1")
    assert len(flows.ok("sql", "explain select 1").splitlines()) > 3


def test_a_long_query_stops_at_ctrl_c(flows: Shell) -> None:
    """Ctrl-C ends a query that would take hours, with one line."""
    flows.ok("run", "flows:doubling", "--input", "1")
    query = "select count(*) from range(10000000000) a(i), range(1000) b(j) where a.i + b.j = 7"
    running = flows.start("sql", query, program=[sys.executable, "-c", ANNOUNCING])
    running.wait_for("asking")
    assert running.end(signal.SIGINT) == 130
    assert running.output[-1] == "the query was stopped\n"


ANNOUNCING = """
import sys
from flowdeck_sinks.store import reader
original = reader.Reader.query
def query(self, sql, parameters=None):
    print("asking", flush=True)
    return original(self, sql, parameters)
reader.Reader.query = query
from flowdeck_devtools.cli import main
main(sys.argv[1:])
"""


def test_a_damaged_journal_hides_only_what_is_damaged(flows: Shell) -> None:
    """Garbage and a torn last line neither stop a command nor hide the events around them."""
    flows.ok("run", "flows:doubling", "--input", "1")
    whole = count(flows, "true")
    (segment,) = [path for path in (flows.store / "journal").iterdir() if path.stat().st_size]
    with segment.open("ab") as file:
        file.write(b'\xff\x00 garbage \x1b[2J\n{"event_type": 7}\n{"wseq": 99, "event_id": "torn", "event_ty')

    assert count(flows, "true") == whole
    assert flows.statuses() == ["completed"]
    lines = flows.ok("events", "--limit", "500").splitlines()
    assert len(lines) == whole + 2
    assert not any("\x1b" in line for line in lines)
    flows.ok("run", "flows:doubling", "--input", "2")
    assert flows.statuses() == ["completed", "completed"]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_follow_the_terminal_and_no_color(flows: Shell, no_color: str) -> None:
    """A failure is red on a terminal, and plain where NO_COLOR is set."""
    flows.run("run", "flows:failing")
    flows.env["NO_COLOR"] = no_color
    terminal = flows.terminal("events", "--filter", "level>=ERROR")
    terminal.wait()
    text = terminal.read()
    assert "chunk.failed" in text
    assert ("\x1b[31m" in text) is (not no_color)
