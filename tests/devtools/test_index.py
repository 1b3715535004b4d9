"""Runs built from journal lines."""

from __future__ import annotations

from tests.devtools.scene import START_US, TIMEOUT, RunScene, Scene

from flowdeck_devtools.core.index import RunIndex
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.status import StatusTracker
from flowdeck_devtools.core.wire import head


class Recorder(Scene):
    """Keeps the lines in memory instead of writing them."""

    def __init__(self) -> None:
        self._wseq = self._ids = 0
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


def built(lines: list[bytes], **options: int) -> RunIndex:
    index = RunIndex(**options)
    index.apply([head(line) for line in lines], lines, "w1", 0)
    return index


def only(index: RunIndex) -> RunRow:
    (row,) = index.newest()
    return row


def test_a_run_tells_its_name_status_times_and_counts() -> None:
    """From its own events; steps count as events of their root."""
    tape = Recorder()
    run = tape.execution("audit", at=1.0)
    run.step("read", "read", at=1.1, lasts=0.5)
    run.finish(at=2.0)
    row = only(built(tape.lines))
    assert (row.name, row.status, row.execution_id, row.task_id) == ("audit", "completed", run.execution_id, "T-1")
    assert (row.started_us, row.ended_us) == (START_US + 1_000_000, START_US + 2_000_000)
    assert (row.events, row.errors, row.steps_done, row.partial) == (6, 0, 1, False)
    assert row.duration_us(0) == 1_000_000


def test_status_follows_the_catalogue_through_a_pause() -> None:
    """Running, waiting with its question, running again, completed."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    ask = run.start("ask", "ask", at=0.1)
    run.pause(ask, "i1", at=0.2, payload={"question": "May we?"})
    run.end(ask, at=0.3, paused=True)
    run.waiting(at=0.4)
    row = only(built(tape.lines))
    assert (row.status, row.step()) == ("waiting", "May we?")
    run.resume("i1", at=5.0)
    row = only(built(tape.lines))
    assert (row.status, row.waits) == ("running", {})
    run.finish(at=6.0)
    assert only(built(tape.lines)).status == "completed"


def test_an_event_name_never_makes_a_status() -> None:
    """A user's ``job.failed`` and an unknown framework type leave the run as it is."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    tape.emit("job.failed", at=0.1, run=run.run, level="ERROR", error={"type": "E", "message": "m"})
    tape.emit("triggerflow.something_completed", at=0.2, run=run.run)
    row = only(built(tape.lines))
    assert (row.status, row.errors) == ("running", 1)


def test_late_and_repeated_events_do_not_bring_a_finished_run_back() -> None:
    """Order is by epoch and seq; only a new epoch begins anew."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    run.finish(at=1.0)
    lines = [*tape.lines, tape.lines[1]]
    assert only(built(lines)).status == "completed"
    tape.emit("triggerflow.execution_recovered", at=2.0, run=run.run, epoch=2)
    row = only(built([*lines, tape.lines[-1]]))
    assert (row.status, row.ended_us) == ("running", None)


def test_a_failure_that_was_retried_is_no_error_of_the_run() -> None:
    """The first error that was not made good explains the run."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    step = run.start("read", "read", at=0.1)
    run.fail(step, at=0.2, error={"type": "Flaky", "message": "again"}, will_retry=True)
    row = only(built(tape.lines))
    assert (row.errors, row.retries, row.error) == (0, 1, None)
    again = run.start("read", "read", at=0.3, attempt=2)
    run.fail(again, at=0.4, error=TIMEOUT)
    run.finish(at=0.5, status="failed", error={"type": "Later", "message": "passed on"})
    row = only(built(tape.lines))
    assert (row.status, row.error) == ("failed", "ToolTimeout: upstream 504 after 3 tries")


def test_a_run_whose_writer_is_gone_is_lost_until_it_shows_life() -> None:
    """An ended run is never lost."""
    tape = Recorder()
    tape.execution("open", at=0.0)
    ended = tape.execution("ended", at=1.0)
    ended.finish(at=2.0)
    index = built(tape.lines)
    index.mark_lost({"w1"})
    assert {row.name: row.status for row in index} == {"open": "lost", "ended": "completed"}
    index.mark_lost(set())
    assert {row.name: row.status for row in index} == {"open": "running", "ended": "completed"}


def test_a_run_seen_from_its_middle_is_partial() -> None:
    """Its counts are lower bounds, which history can complete."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    run.step("a", "a", at=0.1, lasts=0.1)
    index = built(tape.lines[2:])
    assert only(index).partial
    whole = RunRow(run.run["run_id"], name="audit", events=40, partial=False, tracker=StatusTracker("running"))
    index.merge([whole])
    assert (only(index).name, only(index).events) == ("audit", 40)


def test_runs_are_listed_newest_first_and_bounded() -> None:
    """The runs that were silent longest leave first; open ones stay."""
    tape = Recorder()
    tape.execution("open", at=0.0)
    for number in range(40):
        RunScene(tape, f"flow-{number}", number + 1.0, None, None).finish(at=number + 1.5)
    index = built(tape.lines, max_runs=10)
    names = [row.name for row in index]
    assert len(names) <= 13
    assert names[0] == "flow-39"
    assert "open" in names


def test_activity_counts_the_last_minute() -> None:
    """Twelve buckets of five seconds, moving with the clock."""
    tape = Recorder()
    run = tape.execution("audit", at=0.0)
    run.step("a", "a", at=7.0, lasts=0.1)
    row = only(built(tape.lines))
    now = START_US + 9_000_000
    assert row.activity.last_minute(now)[-2:] == [2, 2]
    assert sum(row.activity.last_minute(now + 70_000_000)) == 0


def test_lines_without_lineage_belong_to_no_run_and_drops_are_counted() -> None:
    """What a sink lost is summed up for the top bar."""
    tape = Recorder()
    tape.emit("sink.dropped", at=0.0, payload={"sink": "store", "count": 7, "reason": "full"}, level="WARNING")
    tape.emit("runtime.info", at=0.0)
    index = built(tape.lines)
    assert (len(index), index.dropped) == (0, 7)
