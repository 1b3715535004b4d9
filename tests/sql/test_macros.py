"""The macros: one run, its tree, its causes, the slowest, the newest, and two runs side by side."""

from __future__ import annotations

from collections.abc import Callable

from tests.sinks.support import Story
from tests.sql.conftest import Ask

from flowdeck.events import RunContext
from flowdeck_sinks.store.views import MACROS, VIEWS

ARGUMENTS = {"run_events": "'x'", "run_tree": "'x'", "diff_runs": "'x', 'y'", "why": "'x'"}
HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000


def test_macros_have_the_columns_they_document(ask: Ask) -> None:
    """Every macro answers on an empty store, with just the columns it says it has; defaults may be left out."""
    for macro in MACROS:
        expected = list(macro.columns) or list(next(view for view in VIEWS if view.name == macro.like).columns)
        call = f"{macro.name}({ARGUMENTS.get(macro.name, '')})"
        assert [row[0] for row in ask(f"DESCRIBE FROM {call}")] == expected, macro.name
        assert ask(f"FROM {call}") == [], macro.name


def family(story: Story) -> tuple[RunContext, RunContext, RunContext]:
    """Tell of an execution with a step in which a sub flow runs a step; return execution, step, inner step."""
    run = story.execution("outer")
    step = story.chunk(run, "call")
    child = RunContext.create(
        run_kind="workflow_execution", run_id="run-inner", execution_id="inner", parent=step, meta={"flow_name": "sub"}
    )
    inner = story.chunk(child, "work")
    story.tell(run, "triggerflow.execution_started", seq=1)
    story.tell(step, "chunk.started", seq=2, cause=1, scope="call")
    story.tell(child, "triggerflow.execution_started", seq=1)
    story.tell(inner, "chunk.started", seq=2, cause=1, scope="work")
    story.tell(inner, "chunk.completed", seq=3, cause=2, scope="work", duration_us=1000)
    story.tell(child, "triggerflow.execution_completed", seq=4, duration_us=2000)
    story.tell(step, "chunk.completed", seq=3, cause=2, scope="call", duration_us=3000)
    return run, step, inner


def test_run_events_takes_any_id(story: Story, ask: Ask) -> None:
    """An execution's id gives its own events, a root run's those of the tree, a step's run those of the attempt."""
    run, step, inner = family(story)
    ((root,),) = ask("SELECT DISTINCT root_run_id FROM events WHERE execution_id = 'outer'")
    story.tell(story.execution("other"), "triggerflow.execution_started")
    count = {name: len(ask("FROM run_events(?)", name)) for name in ("outer", "inner", root, step.run_id, inner.run_id)}
    assert count == {"outer": 3, "inner": 4, root: 7, step.run_id: 2, inner.run_id: 2}
    assert ask("FROM run_events('nobody')") == []
    assert run.run_id == root


def test_run_events_are_in_the_order_of_the_execution(raw: Callable[..., None], ask: Ask) -> None:
    """Neither the order of lines nor a clock that jumps back an hour disturbs it, and a line written twice is one."""
    run = {"run_id": "r", "execution_id": "e", "root_run_id": "r"}
    for seq, epoch, hours in ((3, 1, 0), (1, 1, 0), (2, 1, 0), (1, 2, -1), (2, 2, -1), (4, 1, -1)):
        raw(
            event_id=f"{epoch}-{seq}", event_type="x", run=run, timestamp=NOW_MS + hours * HOUR_MS + seq,
            meta={"epoch": epoch, "seq": seq},
        )  # fmt: skip
    raw(event_id="1-3", event_type="x", run=run, timestamp=NOW_MS + 3, meta={"epoch": 1, "seq": 3})
    assert [row[0] for row in ask("SELECT event_id FROM run_events('e')")] == ["1-1", "1-2", "1-3", "1-4", "2-1", "2-2"]


def test_run_tree_is_indented_and_ordered(story: Story, ask: Ask) -> None:
    """A run's tree has its steps and sub flows below it, whichever of its ids is given."""
    run, step, _ = family(story)
    expected = [(0, "audit"), (1, "  call"), (2, "    sub"), (3, "      work")]
    for name in ("outer", run.run_id):
        assert ask("SELECT depth, name FROM run_tree(?)", name) == expected
    below = [(depth - 1, name[2:]) for depth, name in expected[1:]]
    assert ask("SELECT depth, name FROM run_tree(?)", step.run_id) == below
    assert ask("SELECT depth, name FROM run_tree('inner')") == [(0, "sub"), (1, "  work")]


def test_a_tree_of_cycles_ends(raw: Callable[..., None], ask: Ask) -> None:
    """A run that is its own parent, and runs that are each other's, are listed once, at once."""
    pairs = [("self", "self"), ("a", "b"), ("b", "a"), ("top", None), ("c", "d"), ("d", "c")]
    for number, (name, parent) in enumerate(pairs):
        raw(
            event_id=f"x{number}", event_type="chunk.started", timestamp=NOW_MS + number,
            run={"run_id": name, "parent_run_id": parent, "root_run_id": "top", "execution_id": "e", "run_kind": "x"},
        )  # fmt: skip
    assert [row[0] for row in ask("SELECT run_id FROM run_tree('self')")] == ["self"]
    assert [row[0] for row in ask("SELECT run_id FROM run_tree('a')")] == ["a", "b"]
    assert [row[0] for row in ask("SELECT run_id FROM run_tree('top')")] == ["top", "self"]
    assert [row[0] for row in ask("SELECT run_id FROM run_tree('c')")] == ["c", "d"]


def test_a_very_deep_tree_is_cut(raw: Callable[..., None], ask: Ask) -> None:
    """A chain of two hundred runs is followed 64 levels, not for ever."""
    for number in range(200):
        parent = f"r{number - 1}" if number else None
        raw(
            event_id=f"x{number}", event_type="x", timestamp=NOW_MS + number,
            run={"run_id": f"r{number}", "parent_run_id": parent, "root_run_id": "r0", "execution_id": "e"},
        )  # fmt: skip
    assert ask("SELECT count(*), max(depth) FROM run_tree('r0')") == [(65, 64)]


def test_why_goes_back_to_the_beginning(story: Story, ask: Ask) -> None:
    """From an event through what caused it, the start of its run, and the runs above, to the first event."""
    family(story)
    ((event,),) = ask("SELECT event_id FROM events WHERE step_name = 'work' AND event_type = 'chunk.completed'")
    assert ask("SELECT back, because, event_type, coalesce(step_name, flow_name) FROM why(?)", event) == [
        (0, "this", "chunk.completed", "work"),
        (1, "caused by", "chunk.started", "work"),
        (2, "caused by", "triggerflow.execution_started", "sub"),
        (3, "in the run above", "chunk.started", "call"),
        (4, "caused by", "triggerflow.execution_started", "audit"),
    ]
    assert ask("FROM why('nobody')") == []


def test_why_of_a_failure_goes_to_where_it_was_raised(story: Story, ask: Ask) -> None:
    """An execution's failure, and that of every step it passed through, lead to the attempt where it began."""
    run = story.execution("e1")
    outer, inner = story.chunk(run, "outer"), story.chunk(run, "inner")
    story.tell(run, "triggerflow.execution_started")
    story.tell(outer, "chunk.started", cause=1)
    story.tell(inner, "chunk.started", cause=2)
    story.tell(inner, "chunk.failed", {"propagated_from": None}, cause=3, error=ValueError("x"))
    story.tell(outer, "chunk.failed", {"propagated_from": inner.run_id}, cause=2, error=ValueError("x"))
    story.tell(run, "triggerflow.execution_failed", {"origin_run_id": inner.run_id}, error=ValueError("x"))
    chain = [
        ("raised in", "chunk.failed", "inner"),
        ("caused by", "chunk.started", "inner"),
        ("caused by", "chunk.started", "outer"),
        ("caused by", "triggerflow.execution_started", None),
    ]
    for run_id in (run.run_id, outer.run_id):
        ((event,),) = ask("SELECT event_id FROM events WHERE run_id = ? AND error_type IS NOT NULL", run_id)
        assert ask("SELECT because, event_type, step_name FROM why(?) WHERE back > 0", event) == chain


def test_why_ends_on_circular_causes(raw: Callable[..., None], ask: Ask) -> None:
    """Events that name each other, themselves or the future as cause lead nowhere, and the answer ends."""
    for seq, cause in ((1, 2), (2, 1), (3, 3), (4, 2)):
        raw(
            event_id=f"e{seq}", event_type="x", timestamp=NOW_MS + seq, meta={"seq": seq, "cause": cause, "epoch": 1},
            run={"run_id": "r", "parent_run_id": "r", "root_run_id": "r", "execution_id": "e"},
        )  # fmt: skip
    assert [row[0] for row in ask("SELECT event_id FROM why('e4')")] == ["e4", "e2", "e1"]
    assert [row[0] for row in ask("SELECT event_id FROM why('e3')")] == ["e3", "e1"]


def test_slowest_are_the_slowest(story: Story, ask: Ask) -> None:
    """The longest attempts come first; executions are not among them."""
    run = story.execution("e1")
    for number in (5, 30, 10, 20):
        story.tell(story.chunk(run, f"s{number}"), "chunk.completed", duration_us=number * 1000)
    story.tell(run, "triggerflow.execution_completed", duration_us=10**9)
    assert ask("SELECT step_name, duration_ms FROM slowest(3)") == [("s30", 30.0), ("s20", 20.0), ("s10", 10.0)]


def test_diff_runs_names_what_differs(story: Story, ask: Ask) -> None:
    """Places of two runs are paired by scope: same, another output, status, more attempts, or only in one."""
    for name, mode in (("a", 0), ("b", 1)):
        run = story.execution(name)
        for scope, output in (("same", 1), ("output", mode)):
            step = story.chunk(run, scope)
            story.tell(step, "chunk.started", scope=scope, attempt=1)
            story.tell(
                step, "chunk.completed", {"output": output}, scope=scope, attempt=1, duration_us=1000 + 500 * mode
            )
        step = story.chunk(run, "status")
        end = "chunk.failed" if mode else "chunk.completed"
        story.tell(step, end, scope="status", attempt=1, duration_us=7, error=KeyError("k") if mode else None)
        for attempt in range(1, 2 + mode):
            step = story.chunk(run, "retried")
            last = attempt == 1 + mode
            story.tell(step, "chunk.completed" if last else "chunk.failed", scope="retried", attempt=attempt)
        story.tell(story.chunk(run, f"only-{name}"), "chunk.started", scope=f"only-{name}", attempt=1)
    rows = ask("SELECT scope, difference, status_a, status_b, attempts_a, attempts_b FROM diff_runs('a', 'b')")
    assert set(rows) == {
        ("same", "same", "completed", "completed", 1, 1),
        ("output", "output", "completed", "completed", 1, 1),
        ("status", "status", "completed", "failed", 1, 1),
        ("retried", "attempts", "completed", "completed", 1, 2),
        ("only-a", "only in a", "running", None, 1, None),
        ("only-b", "only in b", None, "running", None, 1),
    }
    assert rows[0][0] == "same"
    assert ask("SELECT slower_ms FROM diff_runs('a', 'b') WHERE scope = 'same'") == [(0.5,)]


def test_recent_runs_keep_open_ones_however_old(raw: Callable[..., None], ask: Ask) -> None:
    """Ended runs leave with their hour; one that waits stays for years, with the status its events give it."""
    ((now_us,),) = ask("SELECT epoch_us(utc_now())")

    def tell(name: str, hours: float, *steps: str) -> None:
        run = {"run_id": name, "root_run_id": name, "execution_id": name, "run_kind": "workflow_execution",
               "meta": {"flow_name": "f"}}  # fmt: skip
        for seq, step in enumerate(steps, 1):
            raw(
                event_id=f"{name}-{seq}", event_type=f"triggerflow.execution_{step}", run=run,
                timestamp=int(now_us / 1000 - hours * HOUR_MS) + seq, meta={"seq": seq, "epoch": 1},
            )  # fmt: skip

    tell("waits", 24 * 400, "started", "waiting")
    tell("answered", 24 * 40, "started", "waiting", "resumed", "completed")
    tell("done", 5, "started", "completed")
    tell("fresh", 0.5, "started", "completed")
    tell("long", 3, "started")
    raw(
        event_id="long-9", event_type="triggerflow.execution_completed", timestamp=now_us // 1000 - 1000,
        run={"run_id": "long", "root_run_id": "long", "execution_id": "long", "run_kind": "workflow_execution"},
        meta={"seq": 9, "epoch": 1},
    )  # fmt: skip
    rows = ask("SELECT execution_id, status, events FROM recent_runs(1)")
    assert rows == [("fresh", "completed", 2), ("long", "completed", None), ("waits", "waiting", None)]
    ((started, expected),) = ask(
        "SELECT r.started_at, (SELECT started_at FROM runs WHERE execution_id = 'long') FROM recent_runs(1) AS r "
        "WHERE r.execution_id = 'long'"
    )
    assert started == expected
    assert {row[0] for row in ask("SELECT execution_id FROM recent_runs(6)")} == {"fresh", "long", "done", "waits"}
    assert ask("FROM recent_runs(20000)") == ask("FROM runs ORDER BY started_at DESC")
