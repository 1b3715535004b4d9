"""Colours: two themes, and the palette of ready-made styles the line widgets draw with.

Line widgets put thousands of segments on the screen per second, so every style they use is built once per theme; a
colour always stands beside a glyph or a word that says the same (status is never colour alone).
"""

from __future__ import annotations

from functools import lru_cache

from rich.style import Style
from textual.theme import Theme

__all__ = ["DARK", "DEFAULT_THEME", "LIGHT", "Look", "Palette"]

DARK = Theme(
    name="flowdeck-dark",
    primary="#6cb6ff",
    secondary="#8b98a9",
    accent="#e3b341",
    success="#57c78a",
    warning="#e3b341",
    error="#ff7b72",
    foreground="#d5dce6",
    background="#0d1117",
    surface="#11161e",
    panel="#1b222d",
    dark=True,
    variables={
        "dim": "#8793a3",
        "faint": "#4a5565",
        "line": "#2a3340",
        "cursor": "#1f3350",
        "cursor-blur": "#1a2230",
        "strong": "#f2f5f9",
        "key": "#7fc1ff",
        "string": "#a5d6a7",
        "number": "#f0b27a",
        "word": "#d2a8ff",
        "violet": "#d2a8ff",
        "bar-done": "#3f8f68",
        "bar-run": "#4f9ff0",
        "bar-group": "#56657a",
        "match": "#5a4a12",
        "input-cursor-background": "#6cb6ff",
        "footer-key-foreground": "#6cb6ff",
        "block-cursor-background": "#1f3350",
        "block-cursor-foreground": "#f2f5f9",
        "block-cursor-text-style": "none",
    },
)

LIGHT = Theme(
    name="flowdeck-light",
    primary="#0a5fb4",
    secondary="#57606a",
    accent="#8a5a00",
    success="#1a7f45",
    warning="#8a5a00",
    error="#c0242b",
    foreground="#1f2630",
    background="#ffffff",
    surface="#f8fafc",
    panel="#e9eef4",
    dark=False,
    variables={
        "dim": "#57606a",
        "faint": "#9aa5b1",
        "line": "#d3dae2",
        "cursor": "#d6e8fb",
        "cursor-blur": "#e9eef4",
        "strong": "#0b1017",
        "key": "#0a5fb4",
        "string": "#1a6e3c",
        "number": "#a04a00",
        "word": "#6f42c1",
        "violet": "#6f42c1",
        "bar-done": "#4fae7e",
        "bar-run": "#3d8ee0",
        "bar-group": "#9fb0c3",
        "match": "#ffe9a8",
        "input-cursor-background": "#0a5fb4",
        "footer-key-foreground": "#0a5fb4",
        "block-cursor-background": "#d6e8fb",
        "block-cursor-foreground": "#0b1017",
        "block-cursor-text-style": "none",
    },
)

DEFAULT_THEME = DARK.name

Look = dict[str, Style]
"""Styles by role, on one background."""

STATUS_ROLES = {
    "running": "running",
    "waiting": "waiting",
    "completed": "ok",
    "failed": "failed",
    "propagated": "propagated",
    "cancelled": "dim",
    "retried": "waiting",
    "lost": "violet",
    "blocked_version": "violet",
    "created": "dim",
    "unknown": "dim",
}
LEVEL_ROLES = {"DEBUG": "faint", "INFO": "dim", "WARNING": "waiting", "ERROR": "failed", "CRITICAL": "failed"}


class Palette:
    """The styles of one theme: ``plain`` rows, the row under the cursor, and that row in a pane without focus."""

    def __init__(self, variables: dict[str, str], *, dark: bool) -> None:
        ground = variables.get("surface", "#11161e")
        self.ground = ground
        self.dark = dark
        self.plain = self._look(variables, ground)
        self.cursor = self._look(variables, variables.get("cursor", "#1f3350"), strong=True)
        self.blurred = self._look(variables, variables.get("cursor-blur", "#1a2230"))
        self.head = self._look(variables, variables.get("background", "#0d1117"))
        self.bar = self._look(variables, variables.get("panel", "#1b222d"))

    @staticmethod
    def _look(variables: dict[str, str], ground: str, *, strong: bool = False) -> Look:
        def style(name: str, *, bold: bool | None = None, dim: bool | None = None) -> Style:
            return Style(color=variables.get(name, variables.get("foreground")), bgcolor=ground, bold=bold, dim=dim)

        look = {
            "text": style("strong" if strong else "foreground"),
            "strong": style("strong", bold=True),
            "dim": style("foreground" if strong else "dim"),
            "faint": style("dim" if strong else "faint"),
            "line": style("line"),
            "title": style("dim", bold=True),
            "ok": style("success"),
            "running": style("primary"),
            "waiting": style("warning", bold=True),
            "failed": style("error"),
            "propagated": style("error", dim=True),
            "violet": style("violet"),
            "key": style("key"),
            "string": style("string"),
            "number": style("number"),
            "word": style("word"),
            "accent": style("primary", bold=True),
            "bar-done": style("bar-done"),
            "bar-run": style("bar-run"),
            "bar-group": style("bar-group"),
        }
        look[""] = look["text"]
        return look


@lru_cache(maxsize=256)
def reversed_style(style: Style) -> Style:
    """The style with foreground and background exchanged, written out: plain ``reverse`` loses on some terminals."""
    return Style(color=style.bgcolor, bgcolor=style.color)


def palette_of(variables: dict[str, str], *, dark: bool) -> Palette:
    """The palette of an app's theme variables; themes of others lack our names and get near equivalents."""
    known = dict(variables)
    fallbacks = {
        "dim": "text-muted",
        "faint": "text-disabled",
        "line": "panel",
        "cursor": "primary-muted",
        "cursor-blur": "panel",
        "strong": "foreground",
        "key": "primary",
        "string": "success",
        "number": "warning",
        "word": "secondary",
        "violet": "secondary",
        "bar-done": "success",
        "bar-run": "primary",
        "bar-group": "secondary",
    }
    for name, other in fallbacks.items():
        if name not in known:
            known[name] = known.get(other, known["foreground"])
    usable = {name: value for name, value in known.items() if value.startswith("#")}
    usable.setdefault("foreground", "#d5dce6" if dark else "#1f2630")
    for name in fallbacks:
        usable.setdefault(name, usable["foreground"])
    for name in ("cursor", "cursor-blur", "line"):
        if usable[name] == usable["foreground"]:
            usable[name] = "#2a3340" if dark else "#d3dae2"
    return Palette(usable, dark=dark)
