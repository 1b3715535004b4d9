"""What stands beside the waterfall: why, graph, state, stream, raw; the critical path; and two runs compared."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.devtools.deck import make_app, running, until
from tests.devtools.scene import TIMEOUT, Scene

from flowdeck_devtools.core.bars import TimeScale, draw
from flowdeck_devtools.core.compare import NOTHING, changes, compare
from flowdeck_devtools.core.critical import critical_path
from flowdeck_devtools.core.failure import failures, first_failure
from flowdeck_devtools.core.outline import Outline
from flowdeck_devtools.core.stretches import stretches
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.views import VIEWS, graph_page, state_page, stream_page, why_page
from flowdeck_devtools.core.wire import head
from flowdeck_devtools.tui.screens.comparison import ComparisonDialog
from flowdeck_devtools.tui.screens.events import EventsScreen
from flowdeck_devtools.tui.screens.execution import ExecutionScreen
from flowdeck_devtools.tui.screens.runs import RunsScreen

pytestmark = pytest.mark.anyio


def traced(scene: Scene, root: str) -> Trace:
    """The run as a tree, read back from the journal's file."""
    trace = Trace(root)
    lines = scene.layout.segment_path(scene.writer, 1).read_bytes().splitlines()[1:]
    trace.extend((scene.writer, line, head(line)) for line in lines)
    return trace


def failing(scene: Scene) -> str:
    """An inner step fails, the outer one and the run pass it on; another step failed later by itself."""
    run = scene.execution("refund", at=0.0)
    outer = run.start("act", "act", at=0.1)
    inner_run = {**run.step_run(), "parent_run_id": outer["run"]["run_id"]}
    inner = {"run": inner_run, "scope": "act/pay", "name": "pay", "at": 0.2, "attempt": 1}
    scene.emit("chunk.started", at=0.2, run=inner_run, scope="act/pay", attempt=1, payload={"chunk_name": "pay"})
    other = run.start("log", "log", at=0.2)
    run.fail(inner, at=1.0, error=TIMEOUT)
    payload = {"chunk_name": "act", "status": "failed", "propagated_from": inner_run["run_id"]}
    scene.emit("chunk.failed", at=1.1, run=outer["run"], payload=payload, error=TIMEOUT, level="ERROR", scope="act")
    run.fail(other, at=1.2, error={"type": "Late", "message": "later"})
    origin = {"origin_run_id": inner_run["run_id"]}
    scene.emit("triggerflow.execution_failed", at=1.3, run=run.run, payload=origin, error=TIMEOUT, level="ERROR")
    return str(run.run["run_id"])


def test_the_first_failure_is_where_the_error_was_raised(scene: Scene) -> None:
    """Events say where an error began; what passed it on is marked, what failed by itself is not."""
    trace = traced(scene, failing(scene))
    first = first_failure(trace)
    assert first is not None
    assert (first.node.name, first.text) == ("pay", "ToolTimeout: upstream 504 after 3 tries")
    assert {one.node.name: one.propagated for one in failures(trace)} == {"act": True, "pay": False, "log": False}


def test_without_a_name_the_earliest_failure_began_it(scene: Scene) -> None:
    """A foreign producer's events do not say where an error began: the step that failed first did."""
    run = scene.execution("flow", at=0.0)
    late, early = run.start("late", "late", at=0.1), run.start("early", "early", at=0.2)
    run.fail(early, at=0.5, error=TIMEOUT)
    run.fail(late, at=0.9, error=TIMEOUT)
    run.finish(at=1.0, status="failed", error=TIMEOUT)
    first = first_failure(traced(scene, str(run.run["run_id"])))
    assert first is not None
    assert first.node.name == "early"


def test_the_critical_path_covers_the_run_exactly(scene: Scene) -> None:
    """Its own times add up to the run's length; a step hidden behind a longer one is not on it."""
    run = scene.execution("flow", at=0.0)
    run.step("long", "long", at=0.1, lasts=2.0)
    run.step("short", "short", at=0.2, lasts=0.5)
    run.step("last", "last", at=2.2, lasts=0.7)
    run.finish(at=3.0)
    trace = traced(scene, str(run.run["run_id"]))
    path = critical_path(trace, 0)
    assert [share.node.name for share in path] == ["flow", "long", "last"] or path[0].node is trace.root
    assert {share.node.name for share in path[1:]} == {"long", "last"}
    assert sum(share.own_us for share in path) == trace.root.duration_us(0)


def test_a_run_with_itself_is_the_same(scene: Scene) -> None:
    """Comparing is exact: a run with itself differs nowhere, whatever it holds."""
    trace = traced(scene, failing(scene))
    found = compare(trace, trace)
    assert not found.differing
    assert not found.state
    assert len(found.places) == 3


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ({"x": 1}, {"x": 1}, []),
        ({"x": {"y": [1, 2]}}, {"x": {"y": [1, 3, 4]}}, [("x.y[1]", 2, 3), ("x.y[2]", NOTHING, 4)]),
        (1, 1.0, [("value", 1, 1.0)]),
        ({"x": None}, {}, [("x", None, NOTHING)]),
        ([], {}, [("value", [], {})]),
    ],
)
def test_changes_are_told_at_the_deepest_value(a: Any, b: Any, found: list[tuple[str, Any, Any]]) -> None:
    """Paths name the member; a missing one and null are two things."""
    assert [(one.path, one.a, one.b) for one in changes(a, b)] == found


def test_the_graph_shows_what_was_not_reached(scene: Scene) -> None:
    """Operators of the definition are laid over the run; a branch nobody took is dim and says so."""
    from flowdeck import TriggerFlow

    flow = TriggerFlow(name="f")
    flow.to(("plan", lambda d: 1)).if_condition(lambda d: True).to(("big", lambda d: 1)).else_condition().to(
        ("small", lambda d: 2)
    ).end_condition()
    definition = flow.describe()
    ids = {op["name"]: op["id"] for op in definition["operators"]}
    run = scene.execution("f", at=0.0)
    for name in ("plan", "big"):
        step = run.step_run()
        scene.emit("chunk.started", at=0.1, run=step, scope=name, attempt=1, payload={"chunk_id": ids[name]})
        scene.emit("chunk.completed", at=0.2, run=step, scope=name, attempt=1, payload={}, duration_us=100_000)
    page = graph_page(traced(scene, str(run.run["run_id"])), definition, 0)
    lines = {text.split()[1]: role for text, _, role in page.sections[1:] if len(text.split()) > 1}
    assert (lines["plan"], lines["big"], lines["small"]) == ("ok", "ok", "faint")
    assert page.sections[0][0].startswith("2 of 3 steps")


def test_state_by_version_is_that_after_the_step(scene: Scene) -> None:
    """The state of a step is what stood when it ended; later writes are not in it."""
    run = scene.execution("f", at=0.0)
    one = run.start("one", "one", at=0.1)
    scene.emit("triggerflow.state_changed", at=0.2, run=one["run"], payload={"key": "n", "version": 1, "value": 1})
    run.end(one, at=0.3)
    two = run.start("two", "two", at=0.4)
    scene.emit("triggerflow.state_changed", at=0.5, run=two["run"], payload={"key": "n", "version": 2, "value": 2})
    scene.emit("triggerflow.stream_item_emitted", at=0.5, run=two["run"], payload={"item": {"text": "hi"}})
    run.end(two, at=0.6)
    trace = traced(scene, str(run.run["run_id"]))
    nodes = {node.name: node for node in trace.nodes.values()}
    assert state_page(trace, nodes["one"]).sections[0][1] == {"n": 1}
    assert state_page(trace, trace.root).sections[0][1] == {"n": 2}
    assert '{"text":"hi"}' in stream_page(trace).sections[1][0]


def test_a_circle_of_causes_ends(scene: Scene) -> None:
    """Hostile events that name each other as their cause make a chain that stops."""
    run = scene.execution("f", at=0.0)
    step = run.start("a", "a", at=0.1)
    named = {"propagated_from": step["run"]["run_id"]}
    scene.emit("chunk.failed", at=0.2, run=step["run"], error=TIMEOUT, payload=named)
    other = run.step_run()
    scene.emit("chunk.failed", at=0.3, run=other, error=TIMEOUT, payload={"propagated_from": "nobody"}, cause=99)
    page = why_page(traced(scene, str(run.run["run_id"])), None)
    assert 0 < len(page.sections) < 50


async def test_pages_are_leafed_through(store: Path) -> None:
    """A failed run opens at its first failure; w tells why, m shows the map, v goes on, escape comes back."""
    scene = Scene(store)
    root = failing(scene)
    app = make_app(store)
    async with running(app) as pilot:
        app.open_run(root)
        await until(pilot, lambda: isinstance(app.screen, ExecutionScreen) and app.screen.ready, "the screen")
        screen = app.screen
        assert isinstance(screen, ExecutionScreen)
        await until(pilot, lambda: screen.waterfall.current is not None, "the run")
        await until(pilot, lambda: getattr(screen.waterfall.current, "name", "") == "pay", "the first failure")
        await pilot.press("w")
        await until(pilot, lambda: "in the run begun by" in screen.viewer.text, "the causes")
        await pilot.press("m")
        await until(pilot, lambda: "definition" in screen.viewer.text or "reached" in screen.viewer.text, "the graph")
        for view in (*VIEWS[3:], "event"):
            await pilot.press("v")
            assert screen.viewer.view == view
        await pilot.press("w", "escape")
        assert screen.viewer.view == "event"
        await pilot.press("c")
        assert app.screen is screen
    scene.close()


async def test_two_runs_are_marked_and_compared(busy: Scene) -> None:
    """Space marks, d compares, escape closes."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("g", "space", "space", "d")
        await until(pilot, lambda: isinstance(app.screen, ComparisonDialog), "the dialog")
        dialog = app.screen
        assert isinstance(dialog, ComparisonDialog)
        await until(pilot, lambda: "they part at" in dialog.page.text, "the comparison")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the list")


async def test_tab_completes_a_filter_from_what_was_seen(busy: Scene) -> None:
    """Fields first, then values with how often they were seen; dim leaves other lines in their place."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: isinstance(app.screen, EventsScreen), "the tail")
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        await pilot.press("slash", *"kin", "tab", *"chunk.f", "tab", "enter")
        await until(pilot, lambda: screen.bar.filter_text == "kind:chunk.failed", "the filter")
        shown = len(screen.tail.window)
        assert 0 < shown < len(app.session.live.ring)
        await pilot.press("backslash")
        await until(pilot, lambda: len(screen.tail.window) == len(app.session.live.ring), "all lines, dim")
        await pilot.press("N")
        line = screen.tail.current_line()
        assert line is not None
        assert b"chunk.failed" in line


def test_a_frame_of_a_large_run_costs_what_one_of_a_small_run_does(store: Path) -> None:
    """Drawing looks at the rows one can see: fifty times as many steps do not make a frame dearer."""

    def frame_seconds(number: int) -> float:
        scene = Scene(store / str(number))
        run = scene.execution("large", at=0.0)
        trace = Trace(str(run.run["run_id"]))
        for index in range(number):
            payload = {"chunk_name": "work"}
            line = scene.line(
                "chunk.started", at=index / 1000, run=run.step_run(), payload=payload, scope=f"for_each[{index}]/work"
            )
            trace.apply(line, head(line))
        scene.close()
        outline = Outline(trace)
        outline.refresh(0.0)
        scale = TimeScale(trace.started_us or 0, (trace.started_us or 0) + 20_000_000, 60)
        rows = outline.rows[len(outline.rows) // 2 :][:34]
        best = 1.0
        for _ in range(5):
            begun = time.process_time()
            outline.refresh(time.monotonic())
            for row in rows:
                draw(scale, stretches(row.node, row.node.status, scale.end_us))
            best = min(best, time.process_time() - begun)
        return best

    assert frame_seconds(10_000) < 5 * frame_seconds(200)
