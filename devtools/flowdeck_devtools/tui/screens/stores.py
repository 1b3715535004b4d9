"""Of several stores: whether a screen asks all of them or one. A key goes on to the next."""

from __future__ import annotations

from pathlib import Path

from flowdeck_devtools.core.facts import store_name
from flowdeck_devtools.tui.screens.base import DeckScreen

__all__ = ["StoreChoice"]


class StoreChoice(DeckScreen):
    """A screen that asks by SQL. With one store there is nothing to choose, and nothing of it is shown."""

    only: Path | None = None
    """The store that is asked; ``None`` for all."""

    @property
    def store_words(self) -> list[tuple[str, str]]:
        """What the headline says of it."""
        stores = self.session.stores
        if len(stores) == 1:
            return []
        return [(f"  {store_name(self.only) if self.only is not None else f'all {len(stores)} stores'}", "violet")]

    def action_next_store(self) -> None:
        """All stores, the first, the second … and all again."""
        stores = self.session.stores
        if len(stores) == 1:
            self.notify("this window shows one store; --store DIR, given again, adds one", timeout=3)
            return
        self.only = (None, *stores, None)[1 + (stores.index(self.only) + 1 if self.only is not None else 0)]
        self.store_chosen()

    def store_chosen(self) -> None:
        """Ask anew."""
