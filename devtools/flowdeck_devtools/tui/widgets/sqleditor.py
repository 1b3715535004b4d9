"""The SQL editor: a text area without syntax highlighting (tree-sitter may end the process), and its completions."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from flowdeck_devtools.core.sqlwords import complete
from flowdeck_devtools.core.text import cells, clean, fit
from flowdeck_devtools.tui.widgets.bars import HeadLine

__all__ = ["CompletionLine", "SqlEditor"]

OFFERED = 8


class SqlEditor(TextArea):
    """Tab takes the completion that is offered first, ``ctrl+n`` goes on to the next one."""

    class Offers(Message):
        """Other completions than before: ``(text, meaning)``, the one that tab takes first."""

        def __init__(self, offers: list[tuple[str, str]]) -> None:
            super().__init__()
            self.offers = offers

    def __init__(self, text: str = "", *, id: str | None = None) -> None:
        super().__init__(text, id=id, show_line_numbers=False, compact=True, tab_behavior="focus")
        self._offers: list[tuple[str, int, str]] = []

    def on_text_area_changed(self) -> None:
        self._look()

    def on_text_area_selection_changed(self) -> None:
        self._look()

    def _look(self) -> None:
        before = self.get_text_range((0, 0), self.cursor_location)
        found = list(dict.fromkeys(complete(before)))[:OFFERED] if before[-1:].strip() else []
        typed = before.rpartition(" ")[2].rpartition("\n")[2]
        found = [one for one in found if one[0].lower() != typed.lower()]
        if found != self._offers:
            self._offers = found
            self._say()

    def _say(self) -> None:
        self.post_message(self.Offers([(text, clean(about)) for text, _, about in self._offers]))

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "tab" and self._offers:
            event.stop()
            event.prevent_default()
            self.take()
        elif event.key == "ctrl+n" and self._offers:
            event.stop()
            event.prevent_default()
            self._offers = [*self._offers[1:], self._offers[0]]
            self._say()
        else:
            await super()._on_key(event)

    def take(self) -> None:
        """Put the first completion in place of the word that was begun."""
        text, length, _ = self._offers[0]
        row, column = self.cursor_location
        self._offers = []
        self._say()
        self.replace(text, (row, column - length), (row, column))

    def get_text_range(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        """The text between two places."""
        return self.document.get_text_range(start, end)


class CompletionLine(HeadLine):
    """One line that shows what tab would write, and what else fits."""

    def offer(self, offers: list[tuple[str, str]]) -> None:
        """Show these completions, or how to go on when there are none."""
        if not offers:
            self.show([(" ^j run   F8 history   F2 examples   ^b catalog", "faint")])
            return
        first, about = offers[0]
        parts: list[tuple[str, str]] = [(" tab ", "accent"), (first, "strong")]
        if about:
            parts.append((f"  {fit(about, min(40, cells(about)))}", "dim"))
        if len(offers) > 1:
            parts.append(("   ^n ", "accent"))
            parts.append(("  ".join(text for text, _ in offers[1:]), "dim"))
        self.show(parts)
