"""One table of actions, from which everything else is made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.devtools.deck import make_app, press, running
from tests.devtools.scene import Scene
from textual.screen import Screen

from flowdeck_devtools.tui.actions import ACTIONS, MODES, bindings_for, footer_actions, key_label
from flowdeck_devtools.tui.app import DevToolsApp
from flowdeck_devtools.tui.screens.dialogs import _help_rows
from flowdeck_devtools.tui.widgets.lineview import LineView

SCOPES = {action.scope for action in ACTIONS}


def test_ids_are_unique_and_each_footer_entry_has_its_own_command() -> None:
    """A keymap needs ids; a footer that merges entries hides one."""
    assert max(Counter(action.id for action in ACTIONS).values()) == 1
    for mode in MODES:
        commands = [action.command for action in footer_actions(mode.id)]
        assert len(commands) == len(set(commands))


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_no_key_does_two_things_in_one_place(scope: str) -> None:
    """A screen's keys may not hide what works everywhere or in its lists."""
    shared = {"app", "list"} if scope not in ("app", "list") else {"app", "list"} - {scope}
    own = [key for action in ACTIONS if action.scope == scope for key in action.keys.split(",")]
    others = {key for action in ACTIONS if action.scope in shared for key in action.keys.split(",")}
    assert max(Counter(own).values()) == 1
    assert not set(own) & others


def test_every_action_is_in_the_help_of_every_place() -> None:
    """With its keys and its words."""
    for mode in MODES:
        rows = _help_rows(mode.id)
        listed = {(row.keys, row.label) for row in rows}
        assert {(key_label(action.keys, every=True), action.label) for action in ACTIONS} <= listed


async def _find_handler(app: DevToolsApp, screen: Screen[None], scope: str, command: str) -> bool:
    name = f"action_{command.partition('(')[0]}"
    if scope == "app":
        return hasattr(app, name)
    return hasattr(LineView if scope == "list" else screen, name)


@pytest.mark.anyio
async def test_every_action_has_a_handler_and_a_binding_and_is_in_the_palette(busy: Scene) -> None:
    """No key, footer entry or command leads nowhere."""
    app = make_app(busy.store)
    async with running(app) as pilot:
        for mode in MODES:
            await press(pilot, mode.digit)
            screen = app.screen
            commands = [command.title for command in app.get_system_commands(screen)]
            for action in ACTIONS:
                if action.scope not in ("app", "list", mode.id):
                    continue
                assert await _find_handler(app, screen, action.scope, action.command), action.id
                if action.scope == mode.id:
                    assert action.label in commands
            bound = {binding.id for binding in screen._bindings.key_to_bindings.get("o", [])}
            assert bound <= {binding.id for binding in bindings_for(mode.id)}


def test_keys_are_written_as_people_write_them() -> None:
    """Caret for control, signs for signs."""
    assert [key_label(keys) for keys in ("ctrl+s", "question_mark", "pagedown", "j,down")] == ["^s", "?", "pgdn", "j"]


def test_no_screen_module_is_too_long() -> None:
    """A file is read in one sitting, and the app is no dumping ground."""
    package = Path(__import__("flowdeck_devtools").__file__).parent
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] in ("core", "filter", "tui"):
            assert len(path.read_text().splitlines()) <= 400, path.name
    assert len((package / "tui" / "app.py").read_text().splitlines()) <= 300
