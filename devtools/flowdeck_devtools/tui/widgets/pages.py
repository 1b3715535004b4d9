"""The pane of the Execution screen one leafs through: event, why, graph, state, stream, links, raw.

A page is computed in a thread from the trace and shown when it is there. A page that was dear to make waits longer for
the next time, so that a run of 100,000 steps never costs more than a twentieth of a core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.segment import Segment

from flowdeck_devtools.core.drawing import Drawing
from flowdeck_devtools.core.opening import Link
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.text import clean
from flowdeck_devtools.core.views import VIEWS, Page
from flowdeck_devtools.tui.theme import Look
from flowdeck_devtools.tui.widgets.jsonview import JsonView

__all__ = ["PageView"]

AGAIN_SECONDS = 0.5
COST_SHARE = 20


class PageView(JsonView):
    """Shows one of the pages. ``event`` is shown by the screen itself, at once."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = "event"
        self._page = Page()
        self._drawn_picture: tuple[tuple[int, int], Drawing] = ((0, 0), Drawing())
        self._clicked: tuple[int, str | None] = (-1, None)
        self._made_for: object = None
        self._made_at = 0.0
        self._cost = 0.0
        self._busy = False
        self._ready: tuple[str, object, Page] | None = None

    def turn_to(self, view: str) -> None:
        """Show another page; the same one again goes back to the event."""
        self.view = "event" if view == self.view else view
        self._made_for, self._made_at, self._ready = None, 0.0, None
        self._page = Page()
        self.show(("page", self.view), [("…", None, "dim")])

    def turn(self, step: int) -> None:
        """The next (1) or previous (-1) page."""
        self.turn_to(VIEWS[(VIEWS.index(self.view) + step) % len(VIEWS)])

    def keep_up(self, state: object, make: Callable[[], Page]) -> None:
        """Show the page for ``state``, making it in a thread where it is not made yet. Called on each tick."""
        ready, self._ready = self._ready, None
        if ready is not None and ready[0] == self.view:
            self._page = ready[2]
            self.show(("page", self.view), self._page.sections)
        wait = max(AGAIN_SECONDS, self._cost * COST_SHARE) if self._made_for is not None else 0.0
        if self._busy or state == self._made_for or time.monotonic() - self._made_at < wait:
            return
        self._made_for, self._busy = state, True
        threading.Thread(target=self._make, args=(self.view, state, make), name="flowdeck-page", daemon=True).start()

    def _make(self, view: str, state: object, make: Callable[[], Page]) -> None:
        begun = time.perf_counter()
        try:
            page = make()
        except Exception as error:  # whatever a store or a foreign event holds: words, not a crash
            page = Page()
            page.say(f"cannot be shown: {clean(str(error))}", "failed")
        self._cost = time.perf_counter() - begun
        self._made_at = time.monotonic()
        self._ready = (view, state, page)
        self._busy = False

    # -- the picture above the lines ----------------------------------------------------------------------------

    def _picture(self) -> Drawing:
        """The page's picture at this width; empty where there is none."""
        width = max(20, self.size.width - 2)
        known, drawing = self._drawn_picture
        if known != (id(self._page), width):
            make = self._page.picture if self.view != "event" else None
            drawing = (make(width) if make is not None else None) or Drawing()
            self._drawn_picture = ((id(self._page), width), drawing)
        return drawing

    def count(self) -> int:
        return len(self._picture().lines) + super().count()

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        lines = self._picture().lines
        if index >= len(lines):
            return super().draw(index - len(lines), width, look)
        return [
            Segment(" ", look["text"]),
            *(Segment(text, look.get(role, look["text"])) for text, role in lines[index]),
        ]

    def clicked_row(self, index: int, x: int) -> None:
        spots = self._picture().spots.get(index, ())
        self._clicked = (index, next((key for low, high, key in spots if low <= x - 1 < high), None))

    @property
    def target(self) -> SpanNode | None:
        """The step the line under the cursor speaks of."""
        if self.view == "event":
            return None
        drawing = self._picture()
        if self.cursor < len(drawing.lines):
            spots = drawing.spots.get(self.cursor, [])
            row, key = self._clicked
            if row != self.cursor or key is None:
                key = spots[0][2] if spots else None
            return self._page.pictured.get(key or "")
        return self._page.targets.get(self.cursor - len(drawing.lines))

    @property
    def link(self) -> Link | None:
        """What the line under the cursor opens."""
        return self._page.links.get(self.cursor - len(self._picture().lines)) if self.view != "event" else None
