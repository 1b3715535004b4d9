"""Small dialogs: confirm before something leaves this terminal, pick one of a few, all keys by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from flowdeck_devtools.core.text import cells, clean, fit
from flowdeck_devtools.filter import FIELDS
from flowdeck_devtools.tui.actions import ACTIONS, key_label, keys_of, scopes_in_order
from flowdeck_devtools.tui.theme import Look
from flowdeck_devtools.tui.widgets.lineview import LineView

__all__ = ["ConfirmDialog", "HelpDialog", "PickDialog"]


class ConfirmDialog(ModalScreen[bool]):
    """Asks once. Escape and ``n`` say no; enter presses the button that has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n", "answer(False)", "No", show=False),
        Binding("y", "answer(True)", "Yes", show=False),
        Binding("left,right", "app.focus_next", "Other", show=False),
    ]

    def __init__(self, title: str, lines: list[str], yes: str, no: str = "Cancel") -> None:
        super().__init__()
        self._title, self._lines, self._yes, self._no = title, lines, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(clean(self._title), markup=False, classes="dialog-title")
            for line in self._lines:
                yield Static(clean(line, limit=1_000), markup=False, classes="dialog-line")
            with Horizontal(classes="dialog-buttons"):
                yield Button(Content(self._yes), variant="primary", id="yes", compact=True)
                yield Button(Content(self._no), id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one("#yes", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class _Choices(LineView):
    """Rows of text in columns; the last column takes what is left."""

    def __init__(self, rows: list[tuple[str, ...]], roles: tuple[str, ...], widths: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.rows = rows
        self._roles = roles
        self._widths = widths or tuple(
            max((cells(row[place]) for row in rows), default=8) for place in range(len(roles) - 1)
        )

    def count(self) -> int:
        return len(self.rows)

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        row = self.rows[index]
        if len(row) == 1:
            return [Segment(" " + fit(row[0], width - 1), look["title"])]
        segments = [Segment(" ", look["text"])]
        room = width - 1
        for place, (text, role) in enumerate(zip(row, self._roles, strict=True)):
            wide = min(self._widths[place], width // 2) if place < len(self._widths) else room
            if room <= 0:
                break
            segments.append(Segment(fit(text, min(wide, room)) + "  ", look[role]))
            room -= wide + 2
        return segments


class PickDialog(ModalScreen[int]):
    """Pick one of a few. Gives the index, or -1."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(-1)", "Close", show=False)]

    def __init__(self, title: str, rows: list[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._list = _Choices([(clean(left), clean(right)) for left, right in rows], ("text", "dim"))

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog pick"):
            yield Static(clean(self._title), markup=False, classes="dialog-title")
            yield self._list

    def on_mount(self) -> None:
        self._list.styles.height = min(len(self._list.rows), 14)
        self._list.focus()

    @on(LineView.Activated)
    def _picked(self, event: LineView.Activated) -> None:
        event.stop()
        self.dismiss(event.index)


@dataclass(frozen=True, slots=True)
class _HelpRow:
    where: str
    keys: str
    label: str
    text: str

    @property
    def searched(self) -> str:
        return f"{self.where} {self.keys} {self.label} {self.text}".lower()


class HelpDialog(ModalScreen[None]):
    """Every key and filter field, this screen's first; typing narrows the list at once."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Close", show=False)]

    def __init__(self, place: str) -> None:
        super().__init__()
        self._all = _help_rows(place)
        self._list = _Choices([], ("accent", "text", "dim"), (12, 16))
        self._input = Input(placeholder="type to find a key or a word", compact=True)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog help"):
            yield Static("Keys and filters", classes="dialog-title")
            yield self._input
            yield self._list
            yield Static("↑↓ scroll   esc close", classes="dialog-note")

    def on_mount(self) -> None:
        self._show("")
        self._input.focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._show(event.value)

    def _show(self, wanted: str) -> None:
        words = wanted.lower().split()
        rows: list[tuple[str, ...]] = []
        where = ""
        for row in self._all:
            if not all(word in row.searched for word in words):
                continue
            if row.where != where:
                where = row.where
                rows += [("",), (where,)] if rows else [(where,)]
            rows.append((f" {row.keys}", row.label, row.text))
        self._list.rows = rows
        self._list.empty = [("no key does that", "dim")]
        self._list.show_cursor = False
        self._list.move_to(0, notify=False)
        self._list.repaint()

    def on_key(self, event: events.Key) -> None:
        if event.key in ("up", "down", "pageup", "pagedown"):
            event.stop()
            step = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10}[event.key]
            self._list.scroll_rows(step)


_PLACES = {
    "app": "everywhere",
    "list": "in lists",
    "runs": "Runs",
    "execution": "Execution",
    "inbox": "Inbox",
    "ledger": "Ledger",
    "events": "Events",
    "sql": "SQL",
    "evals": "Evals",
    "metrics": "Metrics",
}


def _help_rows(place: str) -> list[_HelpRow]:
    rows = [
        _HelpRow(_PLACES.get(scope, scope), key_label(keys_of(action), every=True), action.label, action.help)
        for scope in scopes_in_order(place)
        for action in ACTIONS
        if action.scope == scope
    ]
    rows.append(_HelpRow("filter", "word", '"a phrase"', "must occur anywhere, whatever its case"))
    rows.append(_HelpRow("filter", "-term", "not", "must not hold: -kind:chunk.*; also NOT term"))
    rows.append(_HelpRow("filter", "a OR (b c)", "groups", "one of them; what stands side by side must all hold"))
    rows.append(_HelpRow("filter", "/regex/", "pattern", "found anywhere; field:/regex/ in a field"))
    rows.append(_HelpRow("filter", "last:15m", "time", "also ts>-1h and ts<2026-11-20T10:00; tab completes"))
    rows.append(_HelpRow("filter", "field>=value", "compare", "> >= < <= = != as in level>=warn dur>200ms"))
    rows.append(_HelpRow("filter", "field:a,b*", "any of", "* stands for anything"))
    rows += [_HelpRow("filter", name, "field", meaning) for name, meaning in FIELDS.items()]
    rows.append(_HelpRow("filter", "data.<path>", "field", "a member of the payload: data.amount>25"))
    return rows
