"""What every screen shares: the lines above and below, the size it needs, and going back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Static

from flowdeck_devtools.tui.actions import bindings_for
from flowdeck_devtools.tui.widgets.bars import FooterBar, TopBar

if TYPE_CHECKING:
    from flowdeck_devtools.core.model import RunRow
    from flowdeck_devtools.core.session import Session
    from flowdeck_devtools.tui.app import DevToolsApp

__all__ = ["MIN_SIZE", "DeckScreen", "TooSmall", "scoped"]

MIN_SIZE = (80, 24)


class TooSmall(Static):
    """Covers a screen the terminal has no room for."""

    def __init__(self) -> None:
        super().__init__("", markup=False, classes="too-small")

    def say(self, width: int, height: int) -> None:
        need = f"{MIN_SIZE[0]}x{MIN_SIZE[1]}"
        self.update(f"Flowdeck needs {need},\nnow {width}x{height}.\n\nMake the window larger,\nor press ^q to leave.")


def scoped(scope: str) -> list[BindingType]:
    """The bindings of a screen, from the action table."""
    return [*bindings_for(scope)]


class DeckScreen(Screen[None]):
    """A top-level place. Subclasses give ``place``, ``body`` and ``tick``."""

    place: ClassVar[str] = ""
    ready = False
    """Its widgets are there: ticks may come."""

    @property
    def deck(self) -> DevToolsApp:
        app: DevToolsApp = self.app  # type: ignore[assignment]
        return app

    @property
    def session(self) -> Session:
        return self.deck.session

    def compose(self) -> ComposeResult:
        self.top = TopBar(id="top")
        yield self.top
        with Vertical(id="body"):
            yield from self.body()
        yield FooterBar(id="footer")
        yield TooSmall()

    def body(self) -> ComposeResult:
        """The widgets between the two bars."""
        yield from ()

    def tick(self) -> None:
        """Take over what changed; called ten times a second while this screen is on top."""

    def back(self) -> bool:
        """Close whatever is open within the screen. False when nothing was."""
        return False

    def subject(self) -> RunRow | None:
        """The run that acting here is about: the one under the cursor."""
        return None

    def copy_choices(self) -> list[tuple[str, str]]:
        """What can be copied here, as ``(label, text)``."""
        return []

    def zone_changed(self) -> None:
        """Times are shown in another zone, or colours changed."""

    @property
    def too_small(self) -> bool:
        return self.has_class("-too-small")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # Keys must not work on what nobody can see.
        return not self.too_small

    def on_resize(self, event: events.Resize) -> None:
        small = event.size.width < MIN_SIZE[0] or event.size.height < MIN_SIZE[1]
        if small:
            self.query_one(TooSmall).say(event.size.width, event.size.height)
        self.set_class(small, "-too-small")

    def on_mount(self) -> None:
        self.ready = True
        self.tick()

    def on_screen_resume(self) -> None:
        if self.ready:
            self.top.refresh()
            self.tick()
