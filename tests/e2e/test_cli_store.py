"""`flowdeck store`, the SQL shell and `--watch`, as a person at a terminal uses them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import duckdb
import pexpect
import pytest
from tests.e2e.cli_shell import Shell, eventually
from tests.sinks.support import Story

from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store._keeping import Timing
from flowdeck_sinks.store.maintenance import publish


@pytest.fixture
def told(shell: Shell) -> Shell:
    """A shell over a store with three finished runs, one of them failed, and one that waits."""
    sink = JournalSink(shell.store)
    story = Story(sink)
    for name in ("e1", "e2", "e3"):
        run = story.execution(name)
        story.tell(run, "triggerflow.execution_started")
        step = story.chunk(run, "work")
        story.tell(step, "chunk.completed", {"output": 1}, scope="work", duration_us=1000)
        story.tell(run, "triggerflow.execution_failed" if name == "e2" else "triggerflow.execution_completed")
    story.tell(story.execution("e4"), "triggerflow.execution_waiting", {"interrupt_ids": ["i"]})
    sink.close()
    return shell


@pytest.fixture
def terminal(told: Shell, tmp_path: Path) -> pexpect.spawn[str]:
    """The SQL shell in a pseudo-terminal."""
    told.env |= {"XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = told.terminal("sql", columns=120, lines=40)
    child.expect("flowdeck>")
    return child


def test_the_shell_answers_and_remembers(terminal: pexpect.spawn[str], tmp_path: Path) -> None:
    """A statement may take several lines; mistakes are one line; what was typed is kept for the next shell."""
    terminal.send("SELECT status, count(*)\rFROM runs\rGROUP BY ALL ORDER BY 1;\r")
    terminal.expect("completed +2")
    terminal.expect("failed +1")
    terminal.expect("3 rows")
    terminal.expect("flowdeck>")
    terminal.send("SELECT nonsense;\r")
    terminal.expect("SQL: .*nonsense")
    terminal.expect("flowdeck>")
    terminal.send("COPY (SELECT 1) TO 'x.csv';\r")
    terminal.expect("Only one query")
    terminal.expect("flowdeck>")
    terminal.send("\\d interrupts\r")
    terminal.expect("assignees +Who was asked")
    terminal.expect("flowdeck>")
    terminal.send("\\q\r")
    terminal.expect(pexpect.EOF)
    history = tmp_path / "state" / "flowdeck" / "sql_history"
    assert "GROUP BY ALL" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_stops_the_query_and_not_the_shell(terminal: pexpect.spawn[str]) -> None:
    """A query that would take for ever ends at Ctrl-C; the prompt comes back and works."""
    terminal.send("SELECT count(*) FROM range(10000000) a, range(10000000) b;\r")
    time.sleep(1)  # it runs: there is nothing to see that could be waited for
    terminal.sendintr()
    terminal.expect("the query was stopped")
    terminal.expect("flowdeck>")
    terminal.send("SELECT 6 * 7 AS answer;\r")
    terminal.expect("42")


def test_a_hundred_million_rows_are_bounded(terminal: pexpect.spawn[str]) -> None:
    """The shell shows the first rows of an enormous answer at once and says that there are more."""
    begun = time.monotonic()
    terminal.send("SELECT range AS n FROM range(100000000);\r")
    terminal.expect("more than 200 rows")
    terminal.expect("flowdeck>")
    assert time.monotonic() - begun < 20


def test_completion_knows_views_and_columns(terminal: pexpect.spawn[str]) -> None:
    """Tab completes a view's name, and columns of the views that are named."""
    terminal.send("SELECT count(*) AS n FROM intervent\t")
    terminal.expect("ions")
    terminal.send(";\r")
    terminal.expect("1 row")
    terminal.expect("flowdeck>")
    terminal.send("\\watch 0.2\r")
    for _ in range(3):
        terminal.expect("every 0.2 s")
    terminal.sendintr()
    terminal.expect("flowdeck>")


def test_watch_asks_again_until_ctrl_c(told: Shell) -> None:
    """In a pipe each answer follows the last; Ctrl-C ends with 130 and without a word."""
    running = told.start("sql", "SELECT count(*) AS n FROM runs", "--watch", "0.2", "--format", "csv")
    eventually(lambda: running.text.count("n\n4\n") >= 3, "three answers")
    assert running.end(signal.SIGINT) == 130


def test_a_store_is_kept_in_order(told: Shell, tmp_path: Path) -> None:
    """info, publish, compact, export, import, doctor, quarantine and prune do what they say."""
    assert json.loads(told.ok("store", "info", "--json"))["events"] == 10
    assert "1 segment published: 10 events" in told.ok("store", "publish")
    text = told.ok("store", "info")
    assert "parts        1 files" in text
    assert "nothing to merge" in told.ok("store", "compact")
    assert "sound" in told.ok("store", "doctor")
    exported = tmp_path / "out.duckdb"
    assert "10 events" in told.ok("store", "export", str(exported), "--where", "execution_id IS NOT NULL")
    with duckdb.connect(str(exported), read_only=True) as client:
        assert client.execute("SELECT count(*) FROM runs").fetchone() == (4,)
    other = ["--store", str(tmp_path / "other")]
    done = json.loads(told.ok("store", "import", str(exported), "--json", *other))
    assert (done["events"], done["duplicates"]) == (10, 0)
    again = json.loads(told.ok("store", "import", str(exported), "--json", *other))
    assert (again["events"], again["duplicates"]) == (0, 10)
    assert "0 events would be removed" in told.ok("store", "prune", "--max-age", "30", "--dry-run")
    assert json.loads(told.ok("store", "quarantine", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prune"], "--max-age"),
        (["prune", "--max-age", "soon"], "such as 30d"),
        (["prune", "--max-size", "much"], "such as"),
        (["export", "out.txt"], "end it in .duckdb"),
        (["import", "nothing.duckdb"], "nothing.duckdb"),
    ],
)
def test_a_wrong_request_is_one_line(told: Shell, arguments: list[str], said: str) -> None:
    """What cannot be done is said in a line that names the mend, and nothing is changed."""
    done = told.run("store", *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 6
    assert "Traceback" not in done.stderr


def test_a_mistake_in_sql_is_pointed_at(told: Shell) -> None:
    """The line at fault stands below the message, with a caret below the word, and nothing a terminal obeys."""
    done = told.run("sql", "SELECT 1,\n\t'\x1b[31m' AS red, nonsense FROM runs")
    assert done.returncode == 1
    said, line, caret, page = done.stderr.rstrip("\n").split("\n")
    assert 'SQL: Binder Error: Referenced column "nonsense" not found' in said
    assert "\x1b" not in done.stderr
    assert line[caret.index("^") :].startswith("nonsense") and page == "  see: flowdeck docs sql#views"


def test_events_and_runs_read_published_history(told: Shell) -> None:
    """What has left the journal is still listed by `events` and `runs`, filtered and in order."""
    before = told.ok("events", "-n", "100", "--json")
    sink = JournalSink(told.store)  # only to have its layout
    sink.close()
    at_once = Timing(visible_after_ms=0, keep_ms=0)
    publish(sink.layout, timing=at_once)
    assert told.ok("events", "-n", "100", "--json").count("\n") == before.count("\n")
    publish(sink.layout, timing=at_once)
    assert [path.name for path in sink.layout.journal.glob("w*.jsonl")] == []
    ids = [json.loads(line)["event_id"] for line in before.splitlines()]
    after = [json.loads(line) for line in told.ok("events", "-n", "100", "--json").splitlines()]
    assert [event["event_id"] for event in after] == ids
    assert [event["wseq"] for event in after] == [json.loads(line)["wseq"] for line in before.splitlines()]
    few = [json.loads(line) for line in told.ok("events", "-n", "2", "--json", "--filter", "type:chunk.*").splitlines()]
    chunks = [event["event_id"] for event in after if event["event_type"] == "chunk.completed"]
    assert [event["event_id"] for event in few] == chunks[-2:]
    runs = json.loads(told.ok("runs", "-n", "1", "--json"))
    assert [run["execution_id"] for run in runs] == ["e4"]


WAITING = """
from flowdeck import TriggerFlow

flow = TriggerFlow(name="ask")


async def ask(data):
    return await data.async_pause_for(type="approval", payload={"question": "May we?"}, resume_to="next")


flow.to(ask)
"""


def test_a_killed_run_that_can_be_resumed_is_not_called_lost(shell: Shell) -> None:
    """`runs` and `sql` ask state.db: a durable run whose process was killed waits on, and says that it can go on."""
    (shell.folder / "asking.py").write_text(WAITING)
    running = shell.start("run", "asking:flow", "--input", "1", "--durability", "full")
    eventually(shell.open_interrupts, "the question")
    eventually(lambda: shell.statuses() == ["waiting"], "the run in the journal, which is written 10 ms later")
    running.end(signal.SIGKILL)
    assert "waiting (resumable)" in shell.ok("runs")
    asked = shell.ok("sql", "SELECT status, resumable FROM recent_runs(1)", "--format", "csv")
    assert asked == "status,resumable\nwaiting,true\n"
