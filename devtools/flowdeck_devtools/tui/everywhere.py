"""What works on every screen: help, jump labels, copying, the zone of time, a picture, the command palette."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.screen import Screen

from flowdeck_devtools.core import text
from flowdeck_devtools.core.preferences import Views
from flowdeck_devtools.tui.actions import ACTIONS, COMMANDS
from flowdeck_devtools.tui.screens.base import DeckScreen
from flowdeck_devtools.tui.screens.dialogs import HelpDialog, PickDialog
from flowdeck_devtools.tui.screens.views import ViewsMixin

if TYPE_CHECKING:
    from textual.app import App

    _Base = App[None]
else:
    _Base = object

__all__ = ["EverywhereMixin"]


class EverywhereMixin(_Base):
    """The part of the app that belongs to no screen."""

    if TYPE_CHECKING:

        @property
        def current_place(self) -> str: ...

        def _redraw_places(self) -> None: ...

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpDialog):
            self.push_screen(HelpDialog(self.current_place))

    def action_jump(self) -> None:
        """Show a letter on every pane and field; the one typed gets the focus."""
        screen = self.screen
        targets = [widget for widget in screen.focus_chain if widget.region.area]
        if isinstance(screen, DeckScreen) and targets:
            from flowdeck_devtools.tui.screens.jump import JumpScreen

            self.push_screen(JumpScreen(targets), lambda chosen: chosen.focus() if chosen is not None else None)

    def action_copy(self) -> None:
        screen = self.screen
        choices = screen.copy_choices() if isinstance(screen, DeckScreen) else []
        if not choices:
            self.notify("nothing to copy here", timeout=2)
            return

        def copy(chosen: int | None) -> None:
            if chosen is not None and chosen >= 0:
                label, value = choices[chosen]
                self.copy_to_clipboard(value)
                self.notify(f"copied: {label} ({len(value):,} characters)", timeout=3, markup=False)

        rows = [(label, value.partition("\n")[0]) for label, value in choices]
        self.push_screen(PickDialog("Copy", rows), copy)

    def action_toggle_utc(self) -> None:
        self._utc = not getattr(self, "_utc", False)
        text.use_utc(self._utc)
        self._redraw_places()
        self.notify("times in UTC" if self._utc else "times in the local zone", timeout=2)

    def action_screenshot_svg(self) -> None:
        path = self.deliver_screenshot()
        self.notify(f"screenshot saved {path or ''}", timeout=4, markup=False)

    def zoom_pane(self) -> None:
        """The focused pane over the whole screen, and back."""
        screen = self.screen
        if screen.maximized is not None:
            screen.minimize()
        elif screen.focused is not None:
            screen.maximize(screen.focused, container=False)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        place = self.current_place
        for action in ACTIONS:
            if action.scope in ("app", place) and action.id not in ("palette", "interrupt"):
                target = self if action.scope == "app" else screen

                def run(command: str = action.command, node: Any = target) -> Any:
                    return self.run_action(command, node)

                yield SystemCommand(action.label, action.help or action.label, run)
        for title, command, about in COMMANDS:
            yield SystemCommand(title, about, lambda command=command: self.run_action(command))
        if isinstance(screen, ViewsMixin):
            for name, wanted in Views().of(place).items():
                yield SystemCommand(
                    f"View: {text.clean(name)}", text.clean(wanted), lambda wanted=wanted: screen.use_view(wanted)
                )
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)
