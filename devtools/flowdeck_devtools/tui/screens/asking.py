"""A dialog that asks for a few values before something is done, and shows what will happen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from flowdeck_devtools.core.text import clean

__all__ = ["AskDialog", "Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One value to type. ``as_json``: the text must be JSON; ``whole``: a number without a fraction, or nothing."""

    name: str
    hint: str
    required: bool = False
    as_json: bool = False
    whole: bool = False

    def read(self, text: str) -> Any:
        """The value of a text.

        Raises:
            ValueError: It is none; the message says why.
        """
        text = text.strip()
        if not text:
            if self.required:
                raise ValueError(f"{self.name} is needed")
            return None
        if self.as_json:
            try:
                return json.loads(text)
            except ValueError as error:
                raise ValueError(f'{self.name} is no JSON: {error} (text goes in quotes: "like this")') from None
        if self.whole:
            if not text.isdecimal():
                raise ValueError(f"{self.name} is no whole number")
            return int(text)
        return text


class AskDialog(ModalScreen[dict[str, Any] | None]):
    """Gives the values by name, or ``None``. Escape leaves; enter in the last field, or the button, sends."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]

    def __init__(self, title: str, lines: list[str], fields: list[Asked], yes: str) -> None:
        super().__init__()
        self._title, self._lines, self._fields, self._yes = title, lines, fields, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog ask"):
            yield Static(clean(self._title), markup=False, classes="dialog-title")
            for line in self._lines:
                yield Static(clean(line, limit=1_000), markup=False, classes="dialog-line")
            for place, field in enumerate(self._fields):
                yield Static(field.name, markup=False, classes="ask-label")
                yield Input(placeholder=field.hint, compact=True, id=f"ask-{place}")
            yield Static("", markup=False, id="ask-problem")
            with Horizontal(classes="dialog-buttons"):
                yield Button(Content(self._yes), variant="primary", id="yes", compact=True)
                yield Button(Content("Leave it"), id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one("#ask-0" if self._fields else "#no").focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        last = f"ask-{len(self._fields) - 1}"
        self.focus_next() if event.input.id != last else self.query_one("#yes").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "no":
            self.dismiss(None)
            return
        values: dict[str, Any] = {}
        for place, field in enumerate(self._fields):
            widget = self.query_one(f"#ask-{place}", Input)
            try:
                values[field.name] = field.read(widget.value)
            except ValueError as error:
                self.query_one("#ask-problem", Static).update(Content(clean(str(error))))
                widget.focus()
                return
        self.dismiss(values)

    def action_leave(self) -> None:
        self.dismiss(None)
