"""Two runs side by side, over the list one chose them from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from flowdeck_devtools.core.views import diff_page
from flowdeck_devtools.tui.widgets.pages import PageView

if TYPE_CHECKING:
    from flowdeck_devtools.tui.app import DevToolsApp

__all__ = ["ComparisonDialog"]


class ComparisonDialog(ModalScreen[None]):
    """What differs between two runs: path, outcome, output, timing, input and final state."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,d", "dismiss", "Close", show=False),
        Binding("a", "all", "All", show=False),
    ]

    def __init__(self, a: str, b: str) -> None:
        super().__init__()
        self._ids = (a, b)
        self._everything = False
        self._opened = False
        self.page = PageView(id="comparison")
        self.page.view = "diff"

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog help"):
            yield Static("Comparison", classes="dialog-title")
            yield self.page
            yield Static("↑↓ scroll   a what is the same, too   esc close", classes="dialog-note")

    def on_mount(self) -> None:
        self.page.show(None, [("reading both runs …", None, "dim")])
        self.page.focus()
        self.set_interval(0.1, self._tick)
        self._tick()

    def action_all(self) -> None:
        self._everything = not self._everything
        self._tick()

    def _tick(self) -> None:
        deck: DevToolsApp = self.app  # type: ignore[assignment]
        session = deck.session
        a, b = (session.open_run(one, again=not self._opened) for one in self._ids)
        self._opened = True
        for run in (a, b):
            run.advance()
        if a.loading or b.loading:
            return
        names = [row.name if (row := session.run(one)) is not None else "" for one in self._ids]
        state = (a.trace.version, b.trace.version, self._everything)
        everything, now_us = self._everything, session.clock.now_us()
        self.page.keep_up(state, lambda: diff_page(a.trace, b.trace, now_us, names=names, everything=everything))
