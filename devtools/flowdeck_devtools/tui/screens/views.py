"""Saved filters for the screens that have a filter line: ``v`` picks one, ``ctrl+s`` in the line keeps one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowdeck_devtools.core.preferences import Views
from flowdeck_devtools.core.text import clean
from flowdeck_devtools.tui.screens.asking import AskDialog, Asked
from flowdeck_devtools.tui.screens.base import DeckScreen
from flowdeck_devtools.tui.screens.dialogs import PickDialog
from flowdeck_devtools.tui.widgets.filterbar import FilterBar

if TYPE_CHECKING:
    _Base = DeckScreen
else:
    _Base = object

__all__ = ["ViewsMixin"]


class ViewsMixin(_Base):
    """Beside ``DeckScreen``: the screen has a filter line called ``bar``."""

    bar: FilterBar

    def action_views(self) -> None:
        """Pick one of the filters saved for this screen."""
        views = [*Views().of(self.place).items()]
        if not views:
            self.notify("no views yet: / writes a filter, ^s in it saves one", timeout=4)
            return

        def picked(index: int | None) -> None:
            if index is not None and index >= 0:
                self.use_view(views[index][1])

        self.app.push_screen(PickDialog("Views", views), picked)

    def use_view(self, text: str) -> None:
        """Put a saved filter in force."""
        self.bar.set(text)

    def on_filter_bar_save(self, event: FilterBar.Save) -> None:
        event.stop()
        if not event.text:
            self.notify("an empty filter needs no name", timeout=3)
            return

        def named(values: dict[str, Any] | None) -> None:
            if values is None:
                return
            try:
                Views().save(self.place, values["name"], event.text)
            except (OSError, ValueError) as error:
                self.notify(clean(str(error)), severity="error", timeout=6, markup=False)
            else:
                self.notify(f"saved: {clean(values['name'])}  (v picks it)", timeout=3, markup=False)

        fields = [Asked("name", "such as my-triage", required=True)]
        self.app.push_screen(AskDialog("Save this filter?", [event.text], fields, "Save"), named)
