"""A form from a JSON Schema: one field per property, or one of JSON text where the schema says too little.

Values come from people and schemas from flows, so labels and hints are literal text, and fields are found by their
place, never by a name from outside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Checkbox, Input, RadioButton, RadioSet, Select, Static, TextArea

from flowdeck_devtools.core.schema import FieldSpec, FormSpec, collect
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean

__all__ = ["SchemaForm"]

RADIO_CHOICES = 6
"""More choices than this become a drop-down."""


class _Choice(RadioButton):
    """``(●) approve``: chosen or not can be told without colour."""

    BUTTON_LEFT = BUTTON_RIGHT = ""

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]
        return "(●)" if self.value else "( )"


class _Tick(Checkbox):
    """``[x] notify``: a switch whose state can be told without colour."""

    BUTTON_LEFT = BUTTON_RIGHT = ""

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]
        return "[x]" if self.value else "[ ]"


class FieldRow(Vertical):
    """A label, the widget that takes the value, and what is wrong with it."""

    def __init__(self, spec: FieldSpec, draft: Any, given: bool) -> None:
        super().__init__(classes="field")
        self.spec = spec
        self._value = draft if given else spec.default if spec.has_default else None
        self._widget = self._make()
        self._error = Static("", markup=False, classes="field-error")

    def _make(self) -> Widget:
        spec, value = self.spec, self._value
        match spec.kind:
            case "choice" if len(spec.choices) <= RADIO_CHOICES:
                buttons = [
                    _Choice(Content(_shown(choice)), value=choice == value and value is not None, compact=True)
                    for choice in spec.choices
                ]
                return RadioSet(*buttons, compact=True)
            case "choice":
                options = [(Content(_shown(choice)), place) for place, choice in enumerate(spec.choices)]
                chosen = spec.choices.index(value) if value in spec.choices else Select.NULL
                return Select(options, value=chosen, compact=True, prompt="choose")
            case "bool":
                return _Tick(Content(clean(spec.label, limit=120)), bool(value), compact=True)
            case "longtext" | "json":
                text = value if isinstance(value, str) else "" if value is None else json.dumps(value, indent=2)
                return TextArea(text, compact=True, highlight_cursor_line=False, tab_behavior="focus")
            case _:
                text = "" if value is None else str(value)
                return Input(text, placeholder=clean(spec.hint), compact=True, select_on_focus=False)

    def compose(self) -> ComposeResult:
        spec = self.spec
        mark = " *" if spec.required and spec.kind != "bool" else ""
        hint = spec.hint if spec.kind in ("integer", "number", "json") else ""
        description = clean(spec.description, limit=400)
        label = clean(spec.label, limit=120) + mark + (f"   {hint}" if hint else "")
        if spec.kind != "bool":
            yield Static(label, markup=False, classes="field-label")
        if description:
            yield Static(description, markup=False, classes="field-hint")
        yield self._widget
        yield self._error

    @property
    def typed(self) -> Any:
        """What was given: a choice, a bool, text; ``None`` when no choice was made."""
        widget = self._widget
        if isinstance(widget, RadioSet):
            return self.spec.choices[widget.pressed_index] if widget.pressed_index >= 0 else None
        if isinstance(widget, Select):
            return self.spec.choices[widget.value] if isinstance(widget.value, int) else None
        if isinstance(widget, TextArea):
            return widget.text
        assert isinstance(widget, Checkbox | Input)
        return widget.value

    def complain(self, text: str | None) -> None:
        self._error.update(Content(clean(text or "")))
        self.set_class(text is not None, "-wrong")

    def focus_field(self) -> None:
        self.screen.set_focus(self._widget)  # at once: Widget.focus() waits its turn behind keys typed meanwhile


class SchemaForm(VerticalScroll, can_focus=False):
    """The fields of one form. ``load`` another form into it; ask it for ``answer``."""

    class Edited(Message):
        """Something was typed or chosen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.form: FormSpec | None = None
        self._fields: list[FieldRow] = []

    async def load(self, form: FormSpec | None, draft: Mapping[str, Any] | None = None) -> None:
        """Show another form, filled with a draft."""
        await self.remove_children()
        self.form = form
        self._fields = []
        if form is None:
            return
        kept = draft or {}
        self._fields = [FieldRow(spec, kept.get(spec.name), spec.name in kept) for spec in form.fields]
        await self.mount_all(self._fields)
        self.scroll_home(animate=False)

    def typed(self) -> dict[str, Any]:
        """What was given so far, by field name: a draft."""
        return {row.spec.name: row.typed for row in self._fields if row.typed is not None}

    def answer(self) -> tuple[Any, bool]:
        """The checked value and whether it is good; complaints appear beside their fields."""
        if self.form is None:
            return None, False
        value, errors = collect(self.form, self.typed())
        for row in self._fields:
            row.complain(errors.get(row.spec.name))
        if errors:
            next(row for row in self._fields if row.spec.name in errors).focus_field()
        return value, not errors

    def focus_first(self) -> None:
        if self._fields:
            self._fields[0].focus_field()

    @property
    def has_fields(self) -> bool:
        return bool(self._fields)

    @on(Input.Changed)
    @on(RadioSet.Changed)
    @on(Checkbox.Changed)
    @on(TextArea.Changed)
    @on(Select.Changed)
    def _edited(self) -> None:
        self.post_message(self.Edited())


def _shown(choice: Any) -> str:
    return clean(choice if isinstance(choice, str) else short_json(choice), limit=80)
