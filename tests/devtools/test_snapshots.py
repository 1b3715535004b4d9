"""Pictures of the key states at both sizes; ``pytest --snapshot-update`` on this file takes them anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import textual
from tests.devtools.deck import NARROW, WIDE, make_app, press, settled, until
from tests.devtools.scene import TIMEOUT, Scene
from textual.pilot import Pilot

TAKEN_WITH = "8.2.8"
pytestmark = pytest.mark.skipif(
    textual.__version__ != TAKEN_WITH,
    reason=f"the pictures were taken with textual {TAKEN_WITH}; another version draws other SVG",
)

Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's place is shown relative to the working directory."""
    monkeypatch.chdir(tmp_path)


def steps(*keys: str, words: str = "") -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Wait for the store, press keys, wait until the screen says something, then hold still."""

    async def run(pilot: Pilot[Any]) -> None:
        from tests.devtools.deck import screen_text

        app: Any = pilot.app
        await settled(pilot)
        await press(pilot, *keys)
        await until(pilot, lambda: words in screen_text(app), words)
        await settled(pilot)
        seen = ""
        while seen != (seen := screen_text(app)):
            await pilot.pause(0.06)

    return run


SIZES = [pytest.param(WIDE, id="120x36"), pytest.param(NARROW, id="80x24")]


@pytest.mark.parametrize("size", SIZES)
def test_runs(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """All statuses, errors, activity; at 120x36 with the shape of the run below."""
    assert snap_compare(make_app(busy.store), terminal_size=size, run_before=steps("j", words="licence-audit"))


@pytest.mark.parametrize("size", SIZES)
def test_execution(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """Groups, attempts, dashes for waiting, events and payload of a step."""
    app = make_app(busy.store)
    keys = ("j", "enter", "j")
    assert snap_compare(app, terminal_size=size, run_before=steps(*keys, words="events of discover"))


def test_execution_failed(busy: Scene, snap_compare: Compare) -> None:
    """The step that failed first is chosen, its error beside it."""
    run = steps("j", "j", "enter", words="ToolTimeout")
    assert snap_compare(make_app(busy.store), terminal_size=WIDE, run_before=run)


@pytest.mark.parametrize("size", SIZES)
def test_events(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """The tail with the event under the cursor beside or below it."""
    run = steps("5", "k", "k", "enter", words="root_run_id" if size == WIDE else "payload")
    assert snap_compare(make_app(busy.store), terminal_size=size, run_before=run)


REVIEW = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["approve", "reject"], "title": "May we depend on it?"},
        "note": {"type": "string", "title": "Why (goes into the report)"},
        "months": {"type": "integer", "minimum": 1, "maximum": 24, "title": "For how long"},
        "notify": {"type": "boolean", "title": "Tell the maintainers", "default": True},
    },
    "required": ["decision"],
}


@pytest.mark.parametrize("size", SIZES)
def test_inbox(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """Questions on the left, the form of the chosen one on the right, or below it."""
    audit = busy.execution("licence-audit", at=45.0)
    more = {"licence": "MPL-2.0", "verdict": "weak_copyleft", "evidence": ["classifier", "LICENSE.txt"]}
    busy.ask(audit, "i1", "May we depend on certifi 2025.11.12 (MPL-2.0)?", at=46.0, schema=REVIEW, **more)
    busy.ask(audit, "i2", "May we depend on chardet 5.2 (LGPL)?", at=50.0, schema=REVIEW)
    app = make_app(busy.store)
    assert snap_compare(app, terminal_size=size, run_before=steps("3", "enter", "enter", words="(●) approve"))


@pytest.mark.parametrize("size", SIZES)
def test_metrics(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """Tiles, plots and flows; on a narrow screen one plot at a time."""
    app = make_app(busy.store)
    assert snap_compare(app, terminal_size=size, run_before=steps("8", "h", words="33.3%"))


@pytest.mark.parametrize("size", SIZES)
def test_ledger(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """Who did what to which run, and what came of it."""
    run = busy.execution("refund-agent", at=45.0)
    answered = {"interrupt_id": "i9", "actor": "ana", "value": {"decision": "approve", "note": "ok per manager"}}
    busy.emit("triggerflow.interrupt_answered", at=46.0, run=run.run, payload=answered)
    cancelled = {"kind": "cancel", "target": None, "actor": "bo", "outcome": "applied", "detail": None}
    busy.emit("triggerflow.inbox_applied", at=47.0, run=run.run, payload=cancelled)
    app = make_app(busy.store)
    assert snap_compare(app, terminal_size=size, run_before=steps("4", words="ok per manager"))


DEFINITION = {
    "version": "trigger_flow/v1",
    "name": "refund-agent",
    "operators": [
        {
            "id": f"op-{name}",
            "kind": "chunk",
            "name": name,
            "listen_signals": [{"trigger_type": "event", "trigger_event": after}],
            "emit_signals": [{"trigger_type": "event", "trigger_event": f"{name}-done"}],
        }
        for name, after in (("plan", "START"), ("act", "plan-done"), ("refuse", "plan-done"), ("tell", "act-done"))
    ],
}


def test_graph(scene: Scene, snap_compare: Compare) -> None:
    """The flow as boxes: what ran with its time, what failed, what was not reached dashed."""
    run = scene.execution("refund-agent", at=40.0, definition=DEFINITION)
    run.step("plan", "plan", at=40.1, lasts=0.4)
    run.fail(run.start("act", "act", at=40.6), at=41.0, error=TIMEOUT)
    run.finish(at=41.1, status="failed", error=TIMEOUT)
    keys = steps("enter", "m", words="not reached")
    assert snap_compare(make_app(scene.store), terminal_size=WIDE, run_before=keys)


@pytest.mark.parametrize("size", SIZES)
def test_sql(busy: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """Catalog, query and how to begin."""
    run = steps("6", words="Ask the event history")
    assert snap_compare(make_app(busy.store), terminal_size=size, run_before=run)


def test_a_lost_run_stops_where_its_process_did(busy: Scene, snap_compare: Compare) -> None:
    """Nothing grows after the last sign of life; what was open is lost, and says so."""
    busy.die()
    run = steps("enter", words="? lost")
    assert snap_compare(make_app(busy.store), terminal_size=WIDE, run_before=run)


def test_why(busy: Scene, snap_compare: Compare) -> None:
    """The chain of causes behind the first failure, on a small terminal."""
    run = steps("j", "j", "enter", "w", words="in the run begun by")
    assert snap_compare(make_app(busy.store), terminal_size=NARROW, run_before=run)


def test_copy_menu(busy: Scene, snap_compare: Compare) -> None:
    """Everything that can be taken out of a run."""
    app = make_app(Path(busy.store.name))  # beside us: no path of the machine in the picture

    async def opened(pilot: Pilot[Any]) -> None:
        await steps("j", words="licence-audit")(pilot)  # with the shape of that run below, before the menu covers it
        await steps("y", words="Python")(pilot)

    assert snap_compare(app, terminal_size=WIDE, run_before=opened)


def test_jump_labels(busy: Scene, snap_compare: Compare) -> None:
    """A letter on every pane and field."""

    async def labelled(pilot: Pilot[Any]) -> None:
        await steps("j", "enter", "j", words="events of discover")(pilot)
        await steps("ctrl+o", words=" s ")(pilot)

    assert snap_compare(make_app(busy.store), terminal_size=NARROW, run_before=labelled)


def test_execution_in_daylight(busy: Scene, snap_compare: Compare) -> None:
    """Bars, statuses and values on a light ground."""
    app = make_app(busy.store, theme="flowdeck-light")
    run = steps("j", "enter", "j", words="events of discover")
    assert snap_compare(app, terminal_size=WIDE, run_before=run)


@pytest.mark.parametrize("size", SIZES)
def test_evals(scene: Scene, snap_compare: Compare, size: tuple[int, int]) -> None:
    """Two sessions of a suite: what got worse, by how much, and the check that failed."""
    for number, bad in ((1, ()), (2, ("late", "twice"))):
        about = {"session_id": f"s000{number}", "suite": "refunds"}
        begun = {**about, "git_sha": f"{number}f3a9c17", "level": "release"}
        scene.emit("eval.session_started", at=number, payload=begun)
        for place, case in enumerate(("late", "twice", "partial", "other currency")):
            good = case not in bad
            checks = [{"name": "output match", "ok": good, "detail": "amount: 12.5 instead of 0"}]
            case_id = {"case_id": case, "case_hash": "h", "round": 1, "wall_ms": 120.0 + place, "checks": checks}
            state = "passed" if good else "failed"
            scene.emit("eval.round_finished", at=number + 0.1, payload={**about, **case_id, "state": state})
        scene.emit("eval.verdict", at=number + 0.5, payload={**about, "verdict": "fail" if bad else "pass"})
    run = steps("7", words="12.5 instead of 0")
    assert snap_compare(make_app(scene.store), terminal_size=size, run_before=run)


def test_help(busy: Scene, snap_compare: Compare) -> None:
    """All keys, this screen's first."""
    app = make_app(busy.store)

    async def still(pilot: Pilot[Any]) -> None:
        await steps("question_mark", words="Keys and filters")(pilot)
        pilot.app.screen.query_one("Input").cursor_blink = False  # type: ignore[attr-defined]
        await pilot.pause()

    assert snap_compare(app, terminal_size=WIDE, run_before=still)


def test_light_theme(busy: Scene, snap_compare: Compare) -> None:
    """The same in daylight."""
    app = make_app(busy.store, theme="flowdeck-light")
    assert snap_compare(app, terminal_size=WIDE, run_before=steps("j", words="licence-audit"))


def test_no_store(snap_compare: Compare) -> None:
    """The empty state says how to fill it."""
    app = make_app(Path("/somewhere/.flowdeck"))
    assert snap_compare(app, terminal_size=NARROW, run_before=steps(words="No store here yet"))


def test_too_small(busy: Scene, snap_compare: Compare) -> None:
    """The size it needs and the size it has."""
    assert snap_compare(make_app(busy.store), terminal_size=(40, 10), run_before=steps(words="needs 80x24"))
