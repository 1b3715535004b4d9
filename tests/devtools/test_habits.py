"""What makes a person quick: own keys, saved filters, jump labels, copying in every form, plain characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len
from tests.devtools.deck import make_app, press, running, screen_text, until
from tests.devtools.scene import Scene
from tests.devtools.terminal import Terminal

from flowdeck_devtools.core.preferences import Views, config_folder
from flowdeck_devtools.tui.actions import ACTIONS, use_keys
from flowdeck_devtools.tui.ascii import to_ascii
from flowdeck_devtools.tui.screens.jump import JumpScreen
from flowdeck_devtools.tui.screens.runs import RunsScreen

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a person who has none yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = config_folder()
    folder.mkdir(parents=True)
    return folder


async def test_a_keymap_changes_what_keys_do_and_what_the_screens_say(busy: Scene, config: Path) -> None:
    """Footer and help show the own key; what is wrong in the file is told and the rest of it holds."""
    (config / "keymap.toml").write_text('[keys]\nruns-follow = "ctrl+t"\nruns-opne = "f9"\nruns-mark = "d"\n')
    app = make_app(busy.store)
    try:
        async with running(app) as pilot:
            screen = app.screen
            assert isinstance(screen, RunsScreen)
            assert screen.table.follow
            await press(pilot, "f")
            assert screen.table.follow
            await press(pilot, "ctrl+t")
            assert not screen.table.follow
            text = screen_text(app)
            assert "^t Follow" in text
            told = " ".join(one.message for one in app._notifications)
            assert "did you mean 'runs-open'?" in told
            assert "runs-compare has that key" in told
    finally:
        use_keys({})


def test_every_action_can_be_rebound() -> None:
    """Ids are unique, so a keymap names one action each."""
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)


async def test_a_filter_is_saved_under_a_name_and_picked_again(busy: Scene) -> None:
    """ctrl+s in the filter line keeps it for every store, v picks it, the palette has it."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        await press(pilot, "slash", *"status:failed", "ctrl+s")
        await until(pilot, lambda: "Save this filter?" in screen_text(app), "the question for a name")
        await press(pilot, *'my "triage"', "enter", "enter")
        await until(pilot, lambda: Views().of("runs") == {'my "triage"': "status:failed"}, "the file")
        await press(pilot, "escape")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        await until(pilot, lambda: len(screen.table.rows) == 5, "all runs")
        assert any(one.title == 'View: my "triage"' for one in app.get_system_commands(screen))
        await press(pilot, "v")
        await until(pilot, lambda: "status:failed" in screen_text(app), "the views")
        await press(pilot, "enter")
        await until(pilot, lambda: len(screen.table.rows) == 1, "the filter in force")


def test_a_damaged_file_of_views_is_left_alone(config: Path) -> None:
    """Nothing of it is lost by saving another."""
    (config / "views.toml").write_text("[runs\nbroken")
    assert Views().of("runs") == {}
    with pytest.raises(ValueError, match=r"views\.toml cannot be read"):
        Views().save("runs", "a", "b")
    assert (config / "views.toml").read_text() == "[runs\nbroken"


async def test_jump_labels_lead_to_panes_and_fields(busy: Scene) -> None:
    """One letter each, drawn where it leads; any other key closes them."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        await press(pilot, "ctrl+o")
        assert isinstance(app.screen, JumpScreen)
        assert " a l" in screen_text(app) or " a " in screen_text(app)
        await press(pilot, "a")
        assert app.screen is screen
        assert screen.bar.editing
        await press(pilot, "escape", "ctrl+o", "8")
        assert app.screen is screen


async def test_a_run_is_copied_as_id_json_sql_command_and_python(busy: Scene) -> None:
    """And an event likewise; what is copied names the store where it is not the default one."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        choices = dict(app.screen.copy_choices())  # type: ignore[attr-defined]
        assert choices["run id"].startswith("r0000")
        assert '"status": "running"' in choices["run as JSON"]
        assert choices["command that shows it"] == f"flowdeck show x00000038 --store {busy.store}"
        assert "where root_run_id = 'r00000039'" in choices["SQL for its events"]
        compile(choices["Python for its events"], "copied", "exec")
        await press(pilot, "5")
        await until(pilot, lambda: app.screen.copy_choices() != [], "an event")  # type: ignore[attr-defined]
        labels = [label for label, _ in app.screen.copy_choices()]  # type: ignore[attr-defined]
        for wanted in ("event as JSON", "event id", "SQL for this event", "command for this event"):
            assert wanted in labels
        compile(dict(app.screen.copy_choices())["Python for this event"], "copied", "exec")  # type: ignore[attr-defined]


def test_ascii_keeps_every_line_as_wide_as_it_was() -> None:
    """One character a cell, escape sequences untouched, nothing left that is not ASCII."""
    line = "╭─ ✓ done ━━┄┄▌ 日本 e\u0301 ⣿⠁ … › ▁▂▇"
    plain = to_ascii(line)
    assert plain.isascii()
    assert len(plain) == cell_len(line)
    assert to_ascii("\x1b[38;2;1;2;3m│\x1b[0m") == "\x1b[38;2;1;2;3m|\x1b[0m"
    assert plain.startswith("+- + done ==..| ???? e")


_PLAIN = "import sys; from flowdeck_devtools.tui import run_devtools; run_devtools(sys.argv[1], ascii_only=True)"


def test_with_ascii_nothing_else_reaches_the_terminal_and_copying_does(busy: Scene) -> None:
    """A real terminal gets ASCII alone, and the clipboard by OSC 52 what was copied."""
    terminal = Terminal(busy.store, code=_PLAIN)
    try:
        terminal.wait_for("refund-agent")
        for key in ("\r", "3", "5", "8"):
            terminal.press(key)
        terminal.wait_for("runs started")
        assert bytes(terminal.output).isascii()
        terminal.press("1y")
        terminal.wait_for("run as JSON")
        terminal.press("\r")
        terminal.wait_for("\x1b]52;c;")
    finally:
        terminal.close()
