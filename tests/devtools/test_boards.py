"""What stands behind the SQL, Metrics and Evals screens, and the screens themselves over a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.devtools.deck import NARROW, WIDE, make_app, press, running, screen_text, until
from tests.devtools.scene import START_US, Scene

from flowdeck_devtools.core.asking import Answer, Question
from flowdeck_devtools.core.braille import axis_label, line_plot
from flowdeck_devtools.core.evalboard import compare
from flowdeck_devtools.core.metrics import WINDOWS, Prices, board, load_prices, sql
from flowdeck_devtools.core.sqlbook import EXAMPLES, QueryHistory, badge, cell_text, export, plot_columns
from flowdeck_devtools.tui.screens.evals import EvalsScreen
from flowdeck_devtools.tui.screens.metrics import MetricsScreen
from flowdeck_devtools.tui.screens.sql import SqlScreen
from flowdeck_devtools.tui.widgets.plot import Series
from flowdeck_sinks.store import query


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the history of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


# -- pure parts ------------------------------------------------------------------------------------------------------


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    """Each cell holds two by four dots; what lies outside the scale stays in the picture."""
    lines = line_plot([0.0, 1.0], 4, 2, low=0.0, high=1.0)
    assert [len(line) for line in lines] == [4, 4]
    assert lines[0][3] != " " and lines[0][0] == " "
    assert lines[1][0] != " " and lines[1][3] == " "
    assert line_plot([5.0], 2, 1, low=0.0, high=1.0) == ["⠉⠉"]
    assert line_plot([None, None], 2, 1, low=0.0, high=1.0) == ["  "]
    assert line_plot([], 2, 2, low=0.0, high=0.0) == ["  ", "  "]


def test_a_peak_survives_more_points_than_columns() -> None:
    """Of the points that fall on one column the largest is drawn."""
    values = [0.0] * 1_000
    values[777] = 1.0
    top = line_plot(values, 10, 4, low=0.0, high=1.0)[0]
    assert top.strip() and top.index(top.strip()[0]) == 7


@pytest.mark.parametrize(("value", "label"), [(0, "0"), (0.05, "0.05"), (1500, "1.5k"), (2.5e6, "2.5M"), (-3e9, "-3G")])
def test_axis_labels_are_short(value: float, label: str) -> None:
    """At most a few cells."""
    assert axis_label(value) == label


def test_cells_show_values_on_one_line_without_control_characters() -> None:
    """Whatever the SQL gave."""
    assert cell_text(None) == "–"
    assert cell_text(1234567) == "1,234,567"
    assert cell_text(float("nan")) == "nan"
    assert "\x1b" not in cell_text("\x1b[31mred\nline") and "\n" not in cell_text("a\nb")
    assert [badge(kind) for kind in ("BIGINT", "DOUBLE", "TIMESTAMP", "VARCHAR", "JSON")] == [
        "##",
        "#.#",
        "t",
        "s",
        "{}",
    ]


ANSWER = Answer("q", ("name", "n"), ("VARCHAR", "BIGINT"), (("a|b", 1), ('x"y', None)))


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "md"])
def test_rows_are_exported_by_the_ending_of_the_name(tmp_path: Path, ending: str) -> None:
    """Quotes and bars come through."""
    path = tmp_path / f"rows.{ending}"
    assert export(ANSWER, path) == 2
    text = path.read_text()
    if ending == "json":
        assert json.loads(text) == [{"name": "a|b", "n": 1}, {"name": 'x"y', "n": None}]
    assert ("a\\|b" if ending == "md" else "a|b") in text
    with pytest.raises(ValueError, match="ends with"):
        export(ANSWER, tmp_path / "rows.exe")


def test_numeric_columns_can_be_drawn() -> None:
    """The first column names the points."""
    assert plot_columns(ANSWER) == ("name", [("n", [1.0, None])])


def test_the_history_of_queries_outlives_a_window_and_a_damaged_file(tmp_path: Path) -> None:
    """The latest first, none twice."""
    path = tmp_path / "state" / "history"
    for one in ("select 1", "select 2", "select 1"):
        QueryHistory(path).add(one)
    assert QueryHistory(path).queries == ["select 1", "select 2"]
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("{broken")
    assert QueryHistory(path).queries == []


def test_every_example_query_works(busy: Scene) -> None:
    """What one begins with must not fail."""
    for label, text in EXAMPLES:
        assert query(busy.store, text).columns, label


def test_metrics_count_what_the_scene_holds(busy: Scene) -> None:
    """Started, failed, percentiles and errors, each in its bucket."""
    window = WINDOWS[0]
    now = START_US + 54_000_000
    shown = board(list(query(busy.store, sql(window, now))), window, Prices())
    assert (sum(shown.started), sum(shown.failed), shown.ended) == (5, 1, 3)
    assert shown.error_rate == pytest.approx(1 / 3)
    assert shown.flows[0][:3] == ("triage", 2, 0)
    assert len(shown.started) == window.buckets == 90
    assert shown.started[-6:] == [1, 0, 1, 1, 1, 1]
    assert shown.cost is None
    assert {name for name, _ in shown.errors} >= {"ToolTimeout"}


def test_cost_comes_from_the_price_table_and_is_unknown_without_a_price(tmp_path: Path) -> None:
    """The first pattern that fits; a table that cannot be read says why."""
    (tmp_path / "prices.toml").write_text('currency = "€"\n[models]\n"gpt-*" = { input = 2.0, output = 10.0 }\n')
    prices = load_prices(tmp_path)
    rows = [("tokens_in", "gpt-x", 3, 1e6), ("tokens_out", "gpt-x", 3, 5e5), ("tokens_in", "other", 3, 9.0)]
    shown = board(rows, WINDOWS[0], prices)
    assert shown.cost == pytest.approx(7.0)
    assert shown.models[1] == ("other", 9.0, 0.0, None)
    assert prices.sign == "€"
    (tmp_path / "prices.toml").write_text("[models]\nx = 3\n")
    assert "prices.toml" in (load_prices(tmp_path).problem or "")


def round_row(session: str, case: str, state: str, number: int = 1, case_hash: str = "h") -> tuple[Any, ...]:
    return (session, case, number, state, 1.0, "r1", case_hash, None, None, "{}")


def test_sessions_are_compared_case_by_case() -> None:
    """Worse first; a case of another version, a new and a gone one are not compared; rounds make a rate."""
    rows = [
        *(round_row("b", case, "passed") for case in ("same", "worse", "gone")),
        round_row("b", "better", "failed"),
        round_row("b", "edited", "passed", case_hash="old"),
        *(round_row("c", case, "passed") for case in ("same", "better", "new", "edited")),
        round_row("c", "worse", "passed", 1),
        round_row("c", "worse", "failed", 2),
        round_row("c", "same", "harness_error", 2),
    ]
    found = compare(rows, "b", "c")
    assert found.cases[0].id == "worse" and found.cases[0].delta == -0.5
    changes = {case.id: case.change for case in found.cases}
    assert changes == {
        "worse": "regressed", "better": "improved", "same": "same", "new": "new", "gone": "gone", "edited": "changed",
    }  # fmt: skip
    assert found.n == 3 and found.mean == pytest.approx((-0.5 + 1 + 0) / 3)
    assert found.low is not None and found.high is not None and found.low < found.mean < found.high
    assert found.p == 0.75 and "sign-flip" in found.method and found.sees is None  # three cases show nothing


def test_a_case_says_what_changed_and_a_control_is_good_when_it_fails() -> None:
    """Checks and output are told field by field; controls and replayed cases are no part of the interval."""

    def row(session: str, case: str, state: str, **record: Any) -> tuple[Any, ...]:
        return (*round_row(session, case, state)[:-1], json.dumps(record))

    checks = [{"name": "output match", "ok": False, "detail": "n: 1 instead of 2"}, {"name": "judge", "label": "no"}]
    rows = [
        row("b", "answer", "passed", checks=[{"name": "output match", "ok": True}], output={"n": 2, "text": "well"}),
        row("c", "answer", "failed", checks=checks, output={"n": 1, "text": "well"}),
        row("b", "control", "failed", control=True),
        row("c", "control", "passed", control=True),
        row("b", "taped", "passed", level="recorded"),
        row("c", "taped", "failed", level="recorded"),
    ]
    found = compare(rows, "b", "c")
    cases = {case.id: case for case in found.cases}
    assert cases["answer"].changes() == {
        "state": "passed → failed",
        "output match": "holds → n: 1 instead of 2",
        "judge": "not made → no",
        "output n": "1 instead of 2",
    }
    assert cases["control"].change == "regressed" and cases["control"].base_rate == 1.0
    assert cases["taped"].change == "regressed" and found.n == 1
    assert compare(rows, "c", "b").count("improved") == 3


def test_the_newest_question_wins_and_a_running_one_is_stopped(busy: Scene) -> None:
    """A query over billions of rows ends when another is asked; a wrong one and a missing store are words."""
    question = Question(busy.store)
    question.ask("select count(*) from range(100000000000) a, range(1000) b")
    question.ask("select 42")
    wait(question)
    assert question.answer is not None and question.answer.rows == ((42,),)
    question.ask("selec 1")
    wait(question)
    assert question.answer.problem and "selec" in question.answer.problem
    question.ask("create table x as select 1")
    wait(question)
    assert question.answer.problem
    lost = Question(busy.store / "nowhere")
    lost.ask("select 1")
    wait(lost)
    assert lost.answer is not None and lost.answer.problem


def wait(question: Question, seconds: float = 20.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while question.running:
        assert time.monotonic() < deadline, "the question never ended"
        time.sleep(0.005)


# -- screens ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_query_is_typed_completed_asked_drawn_and_its_row_opens_the_run(busy: Scene) -> None:
    """From an empty editor to the run, by keys alone."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "6", "i")
        screen = app.screen
        assert isinstance(screen, SqlScreen)
        screen.editor.text = ""
        await press(pilot, *"select run_id, flow_name, duration_m")
        await until(pilot, lambda: not screen_text(app).count("tab duration_ms"), "no view is named yet")
        screen.editor.text = "select run_id, events from runs where flow_name = 'refund-agent' and durat"
        screen.editor.move_cursor(screen.editor.document.end)
        await until(pilot, lambda: "tab duration_ms" in screen_text(app), "the completion")
        await press(pilot, "tab", *" > 0", "ctrl+j")
        await until(pilot, lambda: "rows 1" in screen_text(app), "the answer")
        await press(pilot, "escape", "P")
        await until(pilot, lambda: screen.plot.display, "the plot")
        await press(pilot, "escape", "v")
        await until(pilot, lambda: '"' in screen.viewer.text or "run_id" in screen.viewer.text, "the row")
        await press(pilot, "o")
        await until(pilot, lambda: app.current_place == "execution", "the run")


@pytest.mark.anyio
async def test_a_wrong_query_leaves_the_last_rows(busy: Scene) -> None:
    """With the words of the mistake above them."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "6", "ctrl+j")
        screen = app.screen
        assert isinstance(screen, SqlScreen)
        await until(pilot, lambda: len(screen.results.rows) == 4, "the rows")
        screen.editor.text = "select nothing_such from runs"
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: "nothing_such" in screen.headline.text, "the complaint")
        assert len(screen.results.rows) == 4


@pytest.mark.anyio
@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_metrics_show_numbers_and_lead_to_the_runs_of_a_flow(busy: Scene, size: tuple[int, int]) -> None:
    """Tiles, plots and flows; a key leads to the runs behind a number. One kind of error alone is named, too."""
    app = make_app(busy.store)
    async with running(app, size) as pilot:
        await press(pilot, "8", "h")
        screen = app.screen
        assert isinstance(screen, MetricsScreen)
        await until(pilot, lambda: len(screen.flows.rows) == 4, "the flows")
        text = screen_text(app)
        for expected in ("15 min", "33.3%", "triage", "runs started"):
            assert expected in text
        if size == WIDE:
            screen.plots["errors"].show([Series("OnlyError", [0.0, 1.0], told=True)])
            await until(pilot, lambda: "━ OnlyError" in screen_text(app), "the legend")
            assert "━ tokens" not in screen_text(app)
        screen.flows.focus()
        await press(pilot, "o")
        await until(pilot, lambda: "2 of 5" in screen_text(app), "the runs of triage")


@pytest.mark.anyio
async def test_evaluations_are_compared_with_the_session_before(scene: Scene) -> None:
    """What got worse is on top, with the check that failed."""
    for number, state in ((1, "passed"), (2, "failed")):
        session = f"s{number}"
        checks = [{"name": "output match", "ok": state == "passed", "detail": "a: 1 instead of 2"}]
        about = {"session_id": session, "suite": "refunds", "case_id": "late", "case_hash": "h", "round": 1}
        scene.emit("eval.session_started", at=number, payload={"session_id": session, "suite": "refunds"})
        scene.emit("eval.round_finished", at=number + 0.1, payload={**about, "state": state, "checks": checks})
        verdict = {"session_id": session, "suite": "refunds", "verdict": "pass" if number == 1 else "fail"}
        scene.emit("eval.verdict", at=number + 0.2, payload=verdict)
    app = make_app(scene.store)
    async with running(app) as pilot:
        await press(pilot, "7")
        screen = app.screen
        assert isinstance(screen, EvalsScreen)
        await until(pilot, lambda: "▼ worse" in screen_text(app), "the comparison")
        text = screen_text(app)
        for expected in ("Δ -1.000", "output match", "-100%", "a: 1 instead of 2", "fail"):
            assert expected in text
        await press(pilot, "j")
        await until(pilot, lambda: "▼ worse" not in screen_text(app), "the older session, which has none before it")
