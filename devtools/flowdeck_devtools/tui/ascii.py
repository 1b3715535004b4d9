"""``--ascii``: every cell drawn with a character any terminal and any font has.

Translated where bytes leave for the terminal, one cell for one cell, so that nothing else has to know; escape sequences
are ASCII themselves and pass. Status stays readable without glyphs, because a word stands beside each.
"""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len
from textual.driver import Driver

__all__ = ["ascii_driver", "to_ascii"]

_PAIRS = {
    "✓": "+", "✗": "x", "●": "*", "○": "o", "⊘": "/", "▲": "^", "▼": "v", "↻": "r", "◆": "*", "◌": "o", "·": ".",
    "▸": ">", "▾": "v", "→": ">", "←": "<", "↑": "^", "↓": "v", "…": "~", "–": "-", "—": "-", "×": "x", "µ": "u",
    "Δ": "d", "“": '"', "”": '"', "’": "'", "▐": "|", "▌": "|", "█": "#", "▀": "'", "▄": ".", "░": ".", "▒": ":",
    "▓": "#", "■": "#", "▁": "_", "▂": "_", "▃": "-", "▅": "=", "▆": "=", "▇": "#", "┄": ".", "┆": ":", "╌": ".",
    "╎": ":", "╷": "'", "╵": ".", "▕": "|", "▏": "|", "▎": "|", "▍": "|", "▋": "#", "▊": "#", "▉": "#",
    "❯": ">", "›": ">", "‹": "<", "•": "*",
}  # fmt: skip


def _table() -> dict[int, str]:
    table = {ord(glyph): plain for glyph, plain in _PAIRS.items()}
    for code in range(0x2500, 0x2580):  # lines and boxes
        table.setdefault(code, "+")
    for glyph in "─━╌┄┈═╴╶╸╺╼╾":
        table.setdefault(ord(glyph), "-")
        table[ord(glyph)] = "=" if glyph in "━═" else "-"
    for glyph in "│┃║╎┆┊╵╷╹╻╽╿":
        table[ord(glyph)] = "|"
    table[ord("┄")] = "."
    for code in range(0x2801, 0x2900):  # braille, of which plots are made
        table[code] = "." if (code & 0xFF).bit_count() < 3 else ":"
    table[0x2800] = " "
    return table


_TABLE = _table()


def to_ascii(text: str) -> str:
    """The text with every character that is not ASCII replaced by as many ASCII ones as it has cells."""
    if text.isascii():
        return text
    for char in set(text):
        code = ord(char)
        if code > 126 and code not in _TABLE and len(_TABLE) < 20_000:
            _TABLE[code] = "?" * cell_len(char)
    text = text.translate(_TABLE)
    return text if text.isascii() else text.encode("ascii", "replace").decode()


def ascii_driver(base: type[Driver]) -> type[Driver]:
    """A driver like ``base`` that writes ASCII only."""

    class AsciiDriver(base):  # type: ignore[misc, valid-type]
        def write(self, data: str, *more: Any) -> None:
            super().write(to_ascii(data), *more)

    return AsciiDriver
