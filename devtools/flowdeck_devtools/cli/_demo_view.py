"""What the demo shows on a plain terminal: progress while it works, then the verdicts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._table import write_table
from flowdeck_devtools.core.text import cells, clean, fit

__all__ = ["Progress", "show_verdicts"]

_BAR = 24
_NAMES = {
    "permissive": "permissive",
    "weak_copyleft": "weak copyleft",
    "strong_copyleft": "strong copyleft",
    "unknown": "unknown",
}


class Progress:
    """A bar on stderr that follows the product events; nothing at all where nobody looks."""

    def __init__(self) -> None:
        self._shown = _output.coloured(sys.stderr) or (_output.drawable(sys.stderr) and _output.width() >= _BAR)
        self._total = 0
        self._done = 0

    def event(self, event: Mapping[str, Any]) -> None:
        """Take one product event."""
        kind = event["event_type"]
        self._total = int(event.get("total", self._total))
        self._done += kind == "distribution_checked"
        if self._shown:
            self._draw(str(event["title"]))

    def _draw(self, title: str) -> None:
        filled = _BAR * self._done // self._total if self._total else 0
        bar = "█" * filled + "░" * (_BAR - filled)
        line = f"{bar} {self._done}/{self._total} {clean(title)}"
        room = _output.width() - 1
        sys.stderr.write("\r\x1b[2K" + (fit(line, room).rstrip() if cells(line) > room else line))
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def show_verdicts(summary: Mapping[str, Any]) -> None:
    """Print the verdict table from the summary file, doubtful ones first, and the figures below it."""
    results = json.loads(Path(summary["summary"]).read_text(encoding="utf-8"))["results"]
    width = _output.table_width()
    columns: tuple[str, ...] = ("distribution", "version", "licence", "verdict", "decision")
    keys: tuple[str, ...] = ("name", "version", "licence", "verdict", "decision")
    if width is not None and width < 60:
        columns, keys = ("distribution", "verdict", "decision"), ("name", "verdict", "decision")

    write_table(columns, ([_shown(key, row[key]) for key in keys] for row in results), width=width)
    counts = ", ".join(f"{summary['verdicts'][name]} {_NAMES[name]}" for name in _NAMES)
    decisions = ", ".join(f"{count} {name}" for name, count in summary["decisions"].items())
    _output.out(f"\n{summary['distributions']} distributions: {counts}\n{decisions}")


def _shown(key: str, value: str) -> str:
    return _NAMES.get(value, value) if key == "verdict" else value or "–"
