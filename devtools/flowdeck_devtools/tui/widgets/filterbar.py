"""The filter line: ``/`` edits, enter keeps, escape clears. A text that is no filter leaves the old one in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from flowdeck_devtools.core.text import clean
from flowdeck_devtools.filter import FilterError, parse
from flowdeck_devtools.filter.complete import Completion, Counts, complete

__all__ = ["FilterBar"]

SETTLE_SECONDS = 0.15
"""Typing is applied after this pause, so that a filter is not compiled per keystroke."""


class FilterBar(Horizontal):
    """One line with the filter on the left and what it leaves on the right."""

    class Changed(Message):
        """Another valid filter is in force."""

        def __init__(self, bar: FilterBar, text: str) -> None:
            super().__init__()
            self.bar = bar
            self.text = text

        @property
        def control(self) -> FilterBar:
            return self.bar

    class Save(Message):
        """This filter should be kept under a name."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """Editing ended: the list should have the focus again."""

    def __init__(self, hint: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._hint = hint
        self.filter_text = ""
        """The filter in force."""
        self.error: str | None = None
        self._note = ""
        self.counts: Callable[[], Counts] | None = None
        """Gives the values seen in the data, for completion with tab."""
        self._offers: list[Completion] = []
        self._offered = 0
        self._input = Input(placeholder=hint, compact=True, select_on_focus=False, classes="filter-input")
        self._status = Static("", markup=False, classes="filter-status")

    def compose(self) -> ComposeResult:
        yield Static("/", classes="filter-slash")
        yield self._input
        yield self._status

    def edit(self) -> None:
        """Let the person type."""
        self._input.focus()
        self._input.cursor_position = len(self._input.value)

    @property
    def editing(self) -> bool:
        return self._input.has_focus

    def note(self, text: str) -> None:
        """What the filter leaves, said at the right: ``12 of 4,210``."""
        if text != self._note:
            self._note = text
            self._show_status()

    def clear(self) -> None:
        self._input.value = ""
        self._apply("")

    def set(self, text: str) -> None:
        """Put a filter in force, as if it had been typed."""
        self._input.value = text
        self._apply(text)

    def _show_status(self) -> None:
        self._status.update(Content(self.error or self._offer_text() or self._note))
        self.set_class(self.error is not None, "-error")

    # -- completion --------------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """See what could stand at the cursor; shown at the right, tab takes the first."""
        typed, at = self._input.value, self._input.cursor_position
        counts: Counts = self.counts() if self.counts is not None else lambda field: Counter()
        self._offers = complete(typed, at, counts) if typed else []
        self._offered = 0
        self._show_status()

    def _offer_text(self) -> str:
        if not self._offers or not self.editing:
            return ""
        shown = [f"{one.text} {one.note}".strip() if len(one.note) < 12 else one.text for one in self._offers]
        return "tab: " + "  ".join(clean(one, limit=40) for one in shown[self._offered :][:4])

    def _take_offer(self) -> None:
        """Put the offered text in; the next tab puts the next one in its place."""
        if self._offered >= len(self._offers):
            self._offered = 0
        offer = self._offers[self._offered]
        self._offered += 1
        value = self._input.value
        end = offer.start
        while end < len(value) and not value[end].isspace() and value[end] != ")":
            end += 1
        with self._input.prevent(Input.Changed):
            self._input.value = value[: offer.start] + offer.text + value[end:]
            self._input.cursor_position = offer.start + len(offer.text)
        taken = self._input.value
        self._show_status()
        self.set_timer(SETTLE_SECONDS, lambda: self._apply(taken) if self._input.value == taken else None)
        if len(self._offers) == 1 and offer.text.endswith(":"):
            self._offer()

    def _apply(self, text: str) -> None:
        text = text.strip()
        try:
            parse(text)
        except FilterError as error:
            self.error = f"{error} (column {error.column + 1})"
            self._show_status()
            return
        self.error = None
        self._show_status()
        if text != self.filter_text:
            self.filter_text = text
            self.post_message(self.Changed(self, text))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        typed = event.value
        self._offer()
        self.set_timer(SETTLE_SECONDS, lambda: self._apply(typed) if self._input.value == typed else None)

    @on(Input.Submitted)
    def _kept(self, event: Input.Submitted) -> None:
        event.stop()
        self._apply(event.value)
        if self.error is None:
            self.post_message(self.Left())

    def on_key(self, event: events.Key) -> None:
        if event.key == "tab" and self._input.has_focus and self._offers:
            event.stop()
            event.prevent_default()
            self._take_offer()
            return
        if event.key == "ctrl+s" and self._input.has_focus:
            event.stop()
            event.prevent_default()
            self._apply(self._input.value)
            if self.error is None:
                self.post_message(self.Save(self.filter_text))
            return
        if event.key in ("escape", "down") and self._input.has_focus:
            event.stop()
            event.prevent_default()
            if event.key == "escape":
                self.clear()
            self.post_message(self.Left())
