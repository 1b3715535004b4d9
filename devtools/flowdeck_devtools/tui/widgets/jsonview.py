"""An event, or any JSON value, as lines to scroll through. No tree-sitter is involved (0.26.1 ends the process)."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from rich.segment import Segment
from textual.geometry import Size

from flowdeck_devtools.core.jsonlines import JsonLine, json_lines
from flowdeck_devtools.core.text import cells, fit
from flowdeck_devtools.tui.theme import Look
from flowdeck_devtools.tui.widgets.lineview import LineView

__all__ = ["JsonView"]

_ROLES = {"string": "string", "number": "number", "word": "word", "note": "waiting", "text": "string", "open": "dim"}


class JsonView(LineView):
    """Facts on top (``label value`` lines), then JSON sections under headings."""

    def __init__(self, *, id: str | None = None, fit_content: bool = False) -> None:
        super().__init__(id=id)
        self._fit_content = fit_content
        """Its height is that of what it shows (with ``height: auto``)."""
        self.blurred_cursor = False
        self._lines: list[JsonLine] = []
        self._source: Any = None
        self._drawn_for = -1
        self._sections: list[tuple[str, Any, str]] = []

    def show(self, identity: object, sections: list[tuple[str, Any, str]]) -> None:
        """Show sections as ``(heading, value, role of the heading)``; a value of ``None`` shows only the heading.

        The same ``identity`` again keeps the place one scrolled to.
        """
        if identity != self._source:
            self.cursor = self.offset_row = 0
        self._source = identity
        self._sections = sections
        self._drawn_for = -1
        self.repaint()
        if self._fit_content:
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._made(max(20, width - 3)))

    def clear(self) -> None:
        self.show(None, [])

    @property
    def text(self) -> str:
        """What can be scrolled through, as plain text, for tests."""
        self._lay_out()
        return "\n".join(f"{line.key} {line.text}".strip() for line in self._lines)

    def _lay_out(self) -> None:
        width = max(20, self.size.width - 3)
        if self._drawn_for != width:
            self._drawn_for = width
            self._lines = self._made(width)

    def _made(self, width: int) -> list[JsonLine]:
        lines: list[JsonLine] = []
        for heading, value, role in self._sections:
            if value is None:
                texts = wrap(heading, width) if self._fit_content and len(heading) > width else [heading]
                lines += [JsonLine(-1, role, text, "note") for text in texts]
                continue
            if heading:
                if lines:
                    lines.append(JsonLine(-1, "", "", "note"))
                lines.append(JsonLine(-1, role or "title", heading, "note"))
            lines.extend(json_lines(value, width=width))
        return lines

    def count(self) -> int:
        self._lay_out()
        return len(self._lines)

    def draw(self, index: int, width: int, look: Look) -> list[Segment]:
        line = self._lines[index]
        if line.depth < 0:  # a heading: its role stands in the key
            return [Segment(" " + fit(line.text, width - 1), look.get(line.key, look["text"]))]
        indent = " " * (1 + 2 * line.depth)
        segments = [Segment(fit(indent, min(len(indent), width)), look["text"])]
        room = width - len(indent)
        if line.key and room > 0:
            key = line.key if cells(line.key) < room - 2 else fit(line.key, max(room // 2, 1))
            key += "  " if line.text else ""
            segments.append(Segment(key, look["key"]))
            room -= cells(key)
        if room > 0 and line.text:
            segments.append(Segment(_cut(line.text, room), look.get(_ROLES.get(line.kind, ""), look["text"])))
        return segments


def _cut(text: str, room: int) -> str:
    return fit(text, room).rstrip() if len(text) * 2 > room else text
