"""A dialog that shows something to scroll through: what lies behind a link."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from flowdeck_devtools.core.facts import Section
from flowdeck_devtools.core.text import clean
from flowdeck_devtools.tui.widgets.jsonview import JsonView

if TYPE_CHECKING:
    from flowdeck_devtools.tui.app import DevToolsApp

__all__ = ["ViewDialog"]


class ViewDialog(ModalScreen[None]):
    """Sections over the screen; ``y`` copies them as JSON, escape closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,b", "dismiss", "Close", show=False),
        Binding("y", "copy", "Copy", show=False),
    ]

    def __init__(self, title: str, sections: list[Section]) -> None:
        super().__init__()
        self._title, self._sections = title, sections
        self.view = JsonView(id="link-view")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog help"):
            yield Static(clean(self._title), markup=False, classes="dialog-title")
            yield self.view
            yield Static("↑↓ scroll   y copy as JSON   esc close", classes="dialog-note")

    def on_mount(self) -> None:
        self.view.show(None, self._sections)
        self.view.focus()

    def action_copy(self) -> None:
        """Copy the values shown."""
        values = [value for _, value, _ in self._sections if value is not None]
        text = json.dumps(values[0] if len(values) == 1 else values, ensure_ascii=False, indent=2, default=str)
        deck: DevToolsApp = self.app  # type: ignore[assignment]
        deck.copy_to_clipboard(text)
        self.notify(f"copied ({len(text):,} characters)", timeout=2)
