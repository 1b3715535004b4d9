"""What a person does on each screen, over a store that is held still."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from rich.cells import cell_len
from tests.devtools.deck import NARROW, WIDE, make_app, press, running, screen_text, settled, until
from tests.devtools.scene import START_US, TIMEOUT, Scene

from flowdeck_devtools.core import live
from flowdeck_devtools.core.clock import FixedClock
from flowdeck_devtools.tui.screens.events import EventsScreen
from flowdeck_devtools.tui.screens.execution import ExecutionScreen
from flowdeck_devtools.tui.screens.runs import RunsScreen

pytestmark = pytest.mark.anyio


async def test_runs_are_listed_newest_first_with_their_status(busy: Scene) -> None:
    """Status is glyph and word; a failed run shows its error, a waiting one its question."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        text = screen_text(app)
        rows = [line for line in text.splitlines() if "02:00:" in line]
        assert [row.split()[1] for row in (line.strip("│ ") for line in rows)][:3] == ["●", "!", "✗"] or rows
        for expected in ("● running", "! waiting", "✗ failed", "⊘ cancelled", "✓ completed"):
            assert expected in text
        assert "ToolTimeout: upstream 504" in text
        assert "May we depend on certifi?" in text
        assert "5 runs" in text
        await pilot.pause()


async def test_a_new_run_appears_above_and_the_cursor_stays(busy: Scene) -> None:
    """Arrivals never move what one looks at, unless one follows."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "j", "j")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        chosen = screen.table.current
        assert chosen is not None and chosen.name == "refund-agent"
        busy.execution("late-arrival", at=53.0)
        await until(pilot, lambda: screen.table.rows[0].name == "late-arrival", "the new run")
        assert screen.table.current is chosen
        await press(pilot, "f")
        await until(pilot, lambda: screen.table.cursor == 0, "the cursor to follow")


async def test_a_filter_narrows_the_runs_and_escape_widens_them(busy: Scene) -> None:
    """What is no filter leaves the old one in force and says why."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        await press(pilot, "slash", *"status:failed", "enter")
        await until(pilot, lambda: len(screen.table.rows) == 1, "one run")
        await until(pilot, lambda: "1 of 5" in screen_text(app), "how many")
        await press(pilot, "slash", *" foo:x", "enter")
        await until(pilot, lambda: "no field 'foo'" in screen_text(app), "the complaint")
        assert len(screen.table.rows) == 1
        await press(pilot, "escape")
        await until(pilot, lambda: len(screen.table.rows) == 5, "all runs")


async def test_a_failed_run_opens_at_the_step_that_failed_first(busy: Scene) -> None:
    """With its error beside it, without a further key."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "j", "j", "enter")
        screen = app.screen
        assert isinstance(screen, ExecutionScreen)
        await until(pilot, lambda: screen.waterfall.count() == 4, "the tree")
        node = screen.waterfall.current
        assert node is not None and node.name == "refund"
        await until(pilot, lambda: "upstream 504 after 3 tries" in screen.viewer.text, "the error")
        assert "↻3" in screen_text(app)


async def test_the_waterfall_shows_groups_attempts_and_waits(busy: Scene) -> None:
    """for_each with progress, items by what they are about, dashes while waiting."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "j", "enter")
        screen = app.screen
        assert isinstance(screen, ExecutionScreen)
        await until(pilot, lambda: screen.waterfall.count() > 20, "the tree")
        text = screen_text(app)
        assert "for_each 7/8" in text
        assert "[1] numpy" in text
        assert "┄┄┄" in text
        await press(pilot, "H")
        await until(pilot, lambda: screen.waterfall.count() == 3, "all folded")
        await press(pilot, "right_square_bracket")
        waiting = screen.waterfall.current
        assert waiting is not None and (waiting.name, waiting.status) == ("ask", "waiting")
        await press(pilot, "H", "g")
        await press(pilot, "j", "j", "l", "l", "j")
        node = screen.waterfall.current
        assert node is not None and node.member == "1"
        await press(pilot, "h", "h")
        node = screen.waterfall.current
        assert node is not None and node.name == "for_each"


async def test_following_a_step_shows_its_events_and_their_payload(busy: Scene) -> None:
    """Tab goes to the events; the payload is that of the event under the cursor."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "j", "enter")
        screen = app.screen
        assert isinstance(screen, ExecutionScreen)
        await until(pilot, lambda: screen.waterfall.count() > 20, "the tree")
        await press(pilot, "j")
        await until(pilot, lambda: "numpy" in screen.viewer.text, "the output of discover")
        await press(pilot, "enter", "k")
        await until(pilot, lambda: "chunk.started" in screen.viewer.text, "the first event")
        await press(pilot, "escape")
        assert screen.focused is screen.waterfall


async def test_screens_keep_their_place_while_one_looks_elsewhere(busy: Scene) -> None:
    """Cursor, folding and filter survive; escape goes back where one came from."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "j", "enter")
        screen = app.screen
        assert isinstance(screen, ExecutionScreen)
        await until(pilot, lambda: screen.waterfall.count() > 20, "the tree")
        await press(pilot, "j", "j", "j", "h")
        before = (screen.waterfall.cursor, screen.waterfall.count())
        await press(pilot, "5", "1", "2")
        assert app.screen is screen
        assert (screen.waterfall.cursor, screen.waterfall.count()) == before
        await press(pilot, "escape", "escape")
        assert app.current_place in ("events", "runs")


async def test_the_tail_follows_pauses_and_filters(busy: Scene) -> None:
    """Following stays at the newest line; a pause freezes the view and counts what waits."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "5")
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        tail = screen.tail
        await until(pilot, lambda: tail.count() == len(app.session.live.ring), "all lines")
        shown = tail.count()
        busy.emit("user.first", at=54.0)
        await until(pilot, lambda: tail.count() == shown + 1 and tail.cursor == shown, "the tail to follow")
        await press(pilot, "space")
        busy.emit("user.second", at=54.1)
        await until(pilot, lambda: tail.window.pending == 1, "the pending line")
        assert tail.count() == shown + 1
        await press(pilot, "space")
        await until(pilot, lambda: tail.count() == shown + 2, "the view to go on")
        await press(pilot, "slash", *"level>=warn -retry", "enter")
        await until(pilot, lambda: tail.window.filtered and 0 < tail.count() < 15, "the filter")
        busy.emit("user.third", at=54.2, level="CRITICAL")
        await until(pilot, lambda: b"user.third" in (tail.current_line() or b""), "a new line that passes")


async def test_an_event_is_read_beside_the_tail_and_leads_to_its_run(busy: Scene) -> None:
    """Inspecting stops following; o opens the owning run."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "5")
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        await until(pilot, lambda: screen.tail.count() > 50, "the lines")
        await press(pilot, "k", "enter")
        await until(pilot, lambda: "root_run_id" in screen.inspector.text, "the event")
        assert not screen.tail.following
        await press(pilot, "o")
        assert app.current_place == "execution"
        await until(pilot, lambda: "triage" in screen_text(app), "the run")


async def test_help_lists_every_key_and_narrows_as_one_types(busy: Scene) -> None:
    """This screen's keys first; escape closes it."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "question_mark")
        await until(pilot, lambda: "Keys and filters" in screen_text(app), "the help")
        await press(pilot, *"screenshot")
        text = screen_text(app)
        assert "^x" in text
        assert "Half page" not in text
        await press(pilot, "escape")
        assert isinstance(app.screen, RunsScreen)


async def test_copying_offers_ids_json_and_commands(busy: Scene) -> None:
    """The chosen text goes to the clipboard as it is."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "y")
        await until(pilot, lambda: "execution id" in screen_text(app), "the choices")
        await press(pilot, "enter")
        await until(pilot, lambda: app.clipboard.startswith("r0000"), "the run id")


async def test_too_small_a_terminal_says_so_and_loses_nothing(busy: Scene) -> None:
    """At 40x10 only quitting works; made larger again, everything is where it was."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "j", "j")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        cursor = screen.table.cursor
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: "needs 80x24" in screen_text(app), "the message")
        assert "now 40x10" in screen_text(app)
        await press(pilot, "j", "5", "enter")
        assert app.current_place == "runs"
        await pilot.resize_terminal(*NARROW)
        await until(pilot, lambda: "needs 80x24" not in screen_text(app), "the table")
        assert screen.table.cursor == cursor


async def test_started_in_too_small_a_terminal_it_comes_up_when_enlarged(busy: Scene) -> None:
    """Nothing is shown, nothing fails."""
    app = make_app(busy.store)
    async with running(app, (40, 10)) as pilot:
        assert "needs 80x24" in screen_text(app)
        await pilot.resize_terminal(*WIDE)
        await until(pilot, lambda: "refund-agent" in screen_text(app), "the runs")


async def test_without_a_store_it_waits_for_one(store: Path) -> None:
    """An empty state with the command that fills it; the store is picked up when it appears."""
    app = make_app(store)
    async with running(app) as pilot:
        assert "No store here yet" in screen_text(app)
        assert "flowdeck demo" in screen_text(app)
        scene = Scene(store)
        scene.execution("first", at=50.0)
        await until(pilot, lambda: "first" in screen_text(app), "the first run")
        scene.close()


async def test_an_empty_store_says_how_to_fill_it(scene: Scene) -> None:
    """Every screen has words for nothing."""
    app = make_app(scene.store)
    async with running(app) as pilot:
        assert "No runs yet" in screen_text(app)
        for key, words in (("2", "No run opened"), ("3", "Nothing waits"), ("5", "No events yet")):
            await press(pilot, key)
            await until(pilot, lambda words=words: words in screen_text(app), words)  # type: ignore[misc]


async def test_a_store_of_a_newer_version_is_an_error_in_words(scene: Scene) -> None:
    """The message names the mend, and the window goes on looking."""
    scene.layout.store_json.write_text('{"format": 99, "id": "x"}')
    app = make_app(scene.store)
    async with running(app) as pilot:
        await until(pilot, lambda: "newer" in screen_text(app).lower(), "the message")
        assert "store error" in screen_text(app)


async def test_a_damaged_control_store_is_an_error_in_words(busy: Scene) -> None:
    """The inbox says so; everything else goes on."""
    busy.layout.state_db.write_bytes(b"this is no database" * 100)
    app = make_app(busy.store)
    async with running(app) as pilot:
        assert "refund-agent" in screen_text(app)
        await press(pilot, "3")
        await until(pilot, lambda: "The inbox cannot be read" in screen_text(app), "the message")


async def test_questions_of_a_killed_process_are_told_apart(busy: Scene) -> None:
    """They can still be answered, but nobody is there to apply it."""
    audit = busy.execution("orphan", at=45.0)
    busy.ask(audit, "i1", "Is anybody there?", at=46.0)
    busy.die()
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "3")
        await until(pilot, lambda: "its process is gone" in screen_text(app), "the note")
        assert "? Is anybody there?" in screen_text(app)


async def test_a_run_whose_process_was_killed_becomes_lost(busy: Scene) -> None:
    """Seen within seconds, without any event."""
    clock = FixedClock(START_US + 54_000_000)
    app = make_app(busy.store, clock=clock)
    async with running(app) as pilot:
        assert "● live" in screen_text(app)
        busy.die()
        clock.advance(3.0)
        await until(pilot, lambda: "? lost" in screen_text(app), "the lost run")
        assert "○ idle" in screen_text(app)


@pytest.mark.parametrize(
    "size", [pytest.param(WIDE, id="120x36"), pytest.param(NARROW, id="80x24", marks=pytest.mark.slow)]
)
async def test_hostile_data_is_only_text(scene: Scene, size: tuple[int, int]) -> None:
    """Escapes, markup, right-to-left, wide and combining characters, huge values: every screen keeps its shape."""
    evil = "\x1b[2J\x1b]0;pwned\x07[bold red]x[/bold red] \u202eesrever שלום 日本語 e\u0301\u0301\u0301 👩‍👩‍👧 ${x} {y}"
    run = scene.execution(evil, at=40.0, value={evil: evil}, run_id=evil)
    step = run.start(f"for_each[{evil}]/{evil}", evil, at=40.1, value={"name": evil, "big": "x" * 300_000})
    run.fail(step, at=41.0, error={**TIMEOUT, "message": evil, "type": "[/]"})
    scene.emit(evil, at=41.5, run=run.run, level=evil, message=evil, payload={"[red]": [evil] * 50})
    scene.write(b"\xff\xfe not json \x1b[31m")
    scene.write(b'{"event_type": "huge", "payload": "' + b"y" * 5_000_000 + b'", "timestamp": 1763690441000}')
    # A run that is its own parent, two that are each other's, and one that begins before everything.
    for name, parent in (("own", "own"), ("left", "right"), ("right", "left")):
        circle = {**run.step_run(), "run_id": name, "parent_run_id": parent}
        scene.emit("chunk.started", at=41.8, run=circle, payload={"chunk_name": evil}, scope=evil)
    scene.emit("triggerflow.interrupt_raised", at=-(2.0**40), run=run.run, payload={"interrupt": {"id": evil}})
    run.finish(at=42.0, status="failed", error={"type": "[", "message": evil})
    app = make_app(scene.store)
    async with running(app, size) as pilot:
        pages = (["w"], ["m"], ["u"], ["b"], ["r"], ["c"])
        events = (["5"], ["g", "i"], ["j", "j", "j"], ["y"], ["escape"], ["ctrl+o"], ["escape"])
        for keys in (["enter"], ["]", "tab", "tab"], *pages, *events, ["3"], ["4"], ["6", "f5"], ["8"], ["x"]):
            await press(pilot, *keys)
            await settled(pilot)
            text = screen_text(app)
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert {cell_len(line) for line in text.splitlines()} == {size[0]}


@pytest.mark.parametrize("spans", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_a_run_of_very_many_spans_in_circles_is_walked_like_any_other(scene: Scene, spans: int) -> None:
    """Parents that come later, never, or below their own children: everything has a row once, every page works."""
    chance = random.Random(spans)
    run = scene.execution("tangle", at=0.0, run_id="tangle")
    lines = []
    for number in range(spans):
        parent = chance.choice(
            (f"n{number - 1}", f"n{chance.randrange(spans)}", f"n{number}", "tangle", f"gone{number % 9}")
        )
        lineage = {**run.step_run(), "run_id": f"n{number}", "parent_run_id": parent}
        name = "\x1b[31m[b]step" if number % 7 else "שלום 日本語"
        more = {"scope": f"for_each[{number % 50}]/{name}"} if number % 3 else {}
        lines.append(scene.line("chunk.started", at=1.0, run=lineage, payload={"chunk_name": name}, **more))
        if number % 2:
            error = TIMEOUT if number % 5 == 0 else None
            kind = "chunk.failed" if error else "chunk.completed"
            lines.append(scene.line(kind, at=2.0, run=lineage, error=error, duration_us=9, **more))
    scene.write(b"\n".join(lines))
    app = make_app(scene.store)
    async with running(app) as pilot:
        await until(pilot, lambda: app.session.run("tangle") is not None and "tangle" in screen_text(app), "the run")
        await press(pilot, "enter")
        opened = app.session.open_run("tangle")
        await until(pilot, lambda: opened.trace.events > len(lines), "the whole run", timeout=120.0)
        outline = app.screen.waterfall.outline  # type: ignore[attr-defined]
        await press(pilot, "L")
        await settled(pilot)
        keys = [row.node.key for row in outline.rows]
        merged = {row.merged.key for row in outline.rows if row.merged is not None}
        assert len(keys) == len(set(keys))
        assert set(keys) | merged == set(opened.trace.nodes)
        for key in ("G", "pageup", "]", "w", "m", "s", "c", "z", "z", "H", "g"):
            await press(pilot, key)
            await settled(pilot)
            text = screen_text(app)
            assert "\x1b" not in text
            assert {cell_len(line) for line in text.splitlines()} == {WIDE[0]}


@pytest.mark.parametrize(
    "keys",
    [
        ["5"],
        ["colon"],
        ["y"],
        *(pytest.param([key], marks=pytest.mark.slow) for key in ("1", "2", "3", "question_mark")),
    ],
)
async def test_quitting_works_from_everywhere(busy: Scene, keys: list[str]) -> None:
    """ctrl+q leaves, whatever is open."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, *keys)
        await press(pilot, "ctrl+q")
        await until(pilot, lambda: not app.is_running, "the end")
    assert app.return_code == 0


async def test_interrupt_must_be_pressed_twice(busy: Scene) -> None:
    """One ctrl+c only says what a second one does."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "ctrl+c")
        assert app.is_running
        await press(pilot, "ctrl+c")
        await until(pilot, lambda: not app.is_running, "the end")


async def test_a_run_with_events_left_out_is_opened_again(busy: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it from the runs shows all of it, also on a terminal that has no room for a preview."""
    monkeypatch.setattr(live, "MAX_FEED_BYTES", 2_000)
    app = make_app(busy.store)
    async with running(app, NARROW) as pilot:
        run = busy.execution("crowded", at=50.0)
        await until(pilot, lambda: app.session.runs()[0].name == "crowded", "the run")
        await press(pilot, "g", "enter")
        await until(pilot, lambda: "crowded" in screen_text(app), "its tree")
        opened = app.session.open_run(str(run.run["run_id"]))
        await press(pilot, "1")
        for index in range(20):
            run.step(f"for_each[{index}]/work", "work", at=51.0, lasts=0.5)
        await until(pilot, lambda: app.session.runs()[0].events == 42, "its steps")
        await press(pilot, "2")
        await until(pilot, lambda: opened.left_out + opened.trace.events == 42, "what is left out")
        words = f"{opened.trace.events} of 42 events: reopen in 1 Runs"
        await until(pilot, lambda: words in screen_text(app), "the words")
        await press(pilot, "1", "enter")
        await until(pilot, lambda: "42 events " in screen_text(app), "all of it")
        assert "reopen" not in screen_text(app)
