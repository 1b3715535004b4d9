"""Several stores in one window: what one asks and does goes to the store it is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.devtools.deck import QuickApp, press, running, screen_text, settled, until
from tests.devtools.scene import START_US, Scene, busy_store
from tests.devtools.test_boards import wait

from flowdeck.durable import ControlClient
from flowdeck_devtools.core.asking import Question
from flowdeck_devtools.core.clock import FixedClock
from flowdeck_devtools.core.metrics import WINDOWS, Prices, board, sql, together
from flowdeck_devtools.core.session import Session

pytestmark = pytest.mark.anyio


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Scene, Scene]]:
    """The store of every screen's tests, and another with a run that asks, an act and an evaluation."""
    first, second = busy_store(tmp_path / "one"), Scene(tmp_path / "two", writer="w00000000other")
    run = second.execution("elsewhere", at=52.0, run_id="r-elsewhere")
    second.ask(run, "i1", "May we go on?", at=52.5)
    session = {"session_id": "s-else", "suite": "refunds"}
    second.emit("eval.session_started", at=53.0, payload=session)
    about = {**session, "case_id": "late", "case_hash": "h", "round": 1, "state": "passed", "checks": []}
    second.emit("eval.round_finished", at=53.1, payload=about)
    second.emit("eval.verdict", at=53.2, payload={**session, "verdict": "pass"})
    with ControlClient(second.store) as client:
        client.put_inbox("cancel", run.execution_id, None, {"reason": "a duplicate"}, "bo")
    yield first, second
    first.close()
    second.close()


def deck(two: tuple[Scene, Scene]) -> QuickApp:
    clock = FixedClock(START_US + 54_000_000)
    return QuickApp(Session(two[0].store, clock=clock, actor="ana", also=[two[1].store]))


async def test_several_stores_stand_side_by_side(two: tuple[Scene, Scene]) -> None:
    """Runs of both, each with its store; a question is answered, and a run acted on, where it came from."""
    first, second = two
    app = deck(two)
    async with running(app) as pilot:
        await until(pilot, lambda: "elsewhere" in screen_text(app), "the run of the other store")
        text = screen_text(app)
        assert "STORE" in text
        assert "refund-agent" in text
        session = app.session
        row = session.run("r-elsewhere")
        assert session.store_of(row) == second.store
        assert session.store_of(session.runs()[-1]) == first.store
        await until(pilot, lambda: session.inbox.waiting == 1, "the question")
        await press(pilot, "3")
        await settled(pilot)
        assert "May we go on?" in screen_text(app)


async def test_ledger_sql_evals_and_metrics_are_about_all_of_them(two: tuple[Scene, Scene]) -> None:
    """Each row says its store; SQL and metrics can be about one alone."""
    app = deck(two)
    async with running(app) as pilot:
        await press(pilot, "4")
        await until(pilot, lambda: "a duplicate" in screen_text(app), "the act in the other store")
        assert "two" in next(line for line in screen_text(app).splitlines() if "a duplicate" in line)
        await press(pilot, "7")
        await until(pilot, lambda: "refunds" in screen_text(app), "the evaluation in the other store")
        assert "two" in next(line for line in screen_text(app).splitlines() if "refunds" in line)
        await press(pilot, "6")
        app.screen.editor.text = "select count(*) as n from runs where parent_run_id is null"  # type: ignore[attr-defined]
        rows = app.screen.results  # type: ignore[attr-defined]
        for key, expected in (("f5", [("one", 5), ("two", 1)]), ("s", [(5,)]), ("s", [(1,)]), ("s", 2)):
            await press(pilot, key)
            held = expected if isinstance(expected, list) else [("one", 5), ("two", 1)]
            await until(pilot, lambda held=held: [row for _, row in rows.rows] == held, f"{held}")  # type: ignore[misc]
        await press(pilot, "8", "h")
        flows = app.screen.flows  # type: ignore[attr-defined]
        await until(pilot, lambda: {row[0] for row in flows.rows} >= {"elsewhere", "triage"}, "the flows of both")
        assert "all 2 stores" in screen_text(app)
        await press(pilot, "s", "s")
        await until(pilot, lambda: [row[0] for row in flows.rows] == ["elsewhere"], "those of the second")


def test_a_store_that_is_gone_leaves_the_others_their_answer(two: tuple[Scene, Scene]) -> None:
    """Its words stand beside their rows; a wrong query is wrong for all."""
    gone = two[1].store.parent / "gone"
    question = Question(two[0].store, also=(gone, two[1].store))
    question.ask("select 1")
    wait(question)
    answer = question.answer
    assert answer is not None
    assert (answer.problem, answer.rows, answer.origins) == (None, ((1,), (1,)), (two[0].store, two[1].store))
    assert "gone" in (answer.unanswered or "")
    question.ask("selec 1")
    wait(question)
    assert question.answer is not None and "selec" in (question.answer.problem or "")
    question.rest()


def test_percentiles_of_several_stores_are_those_of_all_their_runs(scene: Scene) -> None:
    """Within 1 % of what one store would say that held them all; counts are the same."""
    window, now = WINDOWS[0], START_US + 54_000_000
    for number in range(40):
        run = scene.execution(("slow", "quick")[number % 2], at=number * 1.0)
        run.finish(at=number * 1.0 + 0.01 * 1.3**number)
    question = Question(scene.store, limit=100_000)
    found = []
    for spread in (False, True):
        question.ask(sql(window, now, spread=spread))
        wait(question)
        assert question.answer is not None and question.answer.problem is None
        rows = question.answer.rows
        found.append(board(together(rows) if spread else rows, window, Prices()))
    exact, near = found
    for name in ("p50", "p95"):
        for one, other in zip(getattr(exact, name), getattr(near, name), strict=True):
            assert (one is None) == (other is None)
            assert one is None or one == pytest.approx(other, rel=0.01)
    assert near.all_p95 == pytest.approx(exact.all_p95, rel=0.01)
    assert [row[:3] for row in near.flows] == [row[:3] for row in exact.flows]
    bare = replace(near, p50=exact.p50, p95=exact.p95, all_p95=exact.all_p95, flows=exact.flows)
    assert bare == exact
    one_value = [("spread", f"f\x1f{461}", 3, 7), ("spread", f"g\x1f{461}", 3, 1)]
    assert board(together(one_value), window, Prices()).all_p95 == pytest.approx(100.0, rel=0.01)
