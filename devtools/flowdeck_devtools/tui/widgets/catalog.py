"""The store's views and macros with their columns, foldable; enter writes a name into the query."""

from __future__ import annotations

from rich.segment import Segment

from flowdeck_devtools.core.text import fit
from flowdeck_devtools.tui.theme import Look
from flowdeck_devtools.tui.widgets.lineview import LineView

__all__ = ["Catalog"]


class Catalog(LineView):
    """Views first, then macros. A view is opened with right or ``l`` and closed with left or ``h``."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._open: set[str] = set()
        self._lines: list[tuple[str, str, str]] | None = None

    def _rows(self) -> list[tuple[str, str, str]]:
        """``(view, column or nothing, meaning)``; read when first drawn."""
        if self._lines is None:
            from flowdeck_sinks.store.views import MACROS, VIEWS

            self._lines = []
            for view in VIEWS:
                self._lines.append((view.name, "", view.summary))
                if view.name in self._open:
                    self._lines += [(view.name, column, about) for column, about in view.columns.items()]
            self._lines += [(f"{macro.name}({', '.join(macro.parameters)})", "", macro.summary) for macro in MACROS]
        return self._lines

    def count(self) -> int:
        return len(self._rows())

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        view, column, _ = self._rows()[index]
        if column:
            return [Segment(fit(f"   {column}", width), look["dim"])]
        sign = "▾" if view in self._open else "▸" if "(" not in view else " "
        return [Segment(fit(f" {sign} {view}", width), look["text"])]

    def chosen(self) -> str:
        """What enter writes."""
        rows = self._rows()
        if not rows:
            return ""
        view, column, _ = rows[self.cursor]
        return column or view.partition("(")[0] + ("(" if "(" in view else "")

    def fold(self, opened: bool) -> None:
        """Open or close the view under the cursor."""
        rows = self._rows()
        view = rows[self.cursor][0] if rows else ""
        if "(" in view or opened == (view in self._open):
            return
        self._open ^= {view}
        self._lines = None
        self.cursor = next(at for at, row in enumerate(self._rows()) if row[0] == view)
        self.repaint()
