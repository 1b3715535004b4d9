"""A JSON value as lines to scroll through: indented, typed for colour, and bounded however large or deep it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from flowdeck_devtools.core.text import clean, count

__all__ = ["JsonLine", "json_lines"]

Kind = Literal["open", "close", "string", "number", "word", "note", "text"]

MAX_LINES = 4_000
MAX_DEPTH = 64
MAX_STRING = 8_192
"""Characters of one string that are shown; the rest is counted."""


class JsonLine(NamedTuple):
    """One line. ``key`` is the member's name (or ``""``); ``text`` is already safe for a terminal."""

    depth: int
    key: str
    text: str
    kind: Kind


def json_lines(value: Any, *, width: int = 100, key: str = "", depth: int = 0) -> list[JsonLine]:
    """Lines of a decoded JSON value; strings wrap at ``width`` cells. At most ``MAX_LINES``, then one note."""
    lines: list[JsonLine] = []
    for line in _walk(value, key, depth, max(width, 16)):
        if len(lines) >= MAX_LINES:
            lines.append(JsonLine(0, "", f"… more than {count(MAX_LINES)} lines; copy it with y to see all", "note"))
            break
        lines.append(line)
    return lines


def _walk(value: Any, key: str, depth: int, width: int) -> Iterator[JsonLine]:
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        yield JsonLine(depth, key, "… deeper than is shown", "note")
    elif isinstance(value, dict):
        yield from _members(value, key, depth, width)
    elif isinstance(value, list):
        yield from _items(value, key, depth, width)
    elif isinstance(value, str):
        yield from _string(value, key, depth, width)
    elif value is None or isinstance(value, bool):
        yield JsonLine(depth, key, {None: "null", True: "true", False: "false"}[value], "word")
    else:
        yield JsonLine(depth, key, clean(str(value), limit=400), "number")


def _members(value: dict[str, Any], key: str, depth: int, width: int) -> Iterator[JsonLine]:
    if not value:
        yield JsonLine(depth, key, "{}", "word")
        return
    inner = depth
    if key or depth == 0:
        inner = depth + 1 if key else depth
        if key:
            yield JsonLine(depth, key, "", "open")
    for name, member in value.items():
        yield from _walk(member, clean(str(name), limit=120) or '""', inner, width)


def _items(value: list[Any], key: str, depth: int, width: int) -> Iterator[JsonLine]:
    if not value:
        yield JsonLine(depth, key, "[]", "word")
        return
    if all(item is None or isinstance(item, bool | int | float) for item in value) and len(value) <= 16:
        flat = ", ".join(next(_walk(item, "", 0, width)).text for item in value)
        yield JsonLine(depth, key, f"[{flat}]", "number")
        return
    if key:
        yield JsonLine(depth, key, f"{count(len(value))} item{'s' if len(value) != 1 else ''}", "open")
    inner = depth + 1 if key else depth
    for index, item in enumerate(value):
        yield from _walk(item, f"[{index}]", inner, width)


def _string(value: str, key: str, depth: int, width: int) -> Iterator[JsonLine]:
    room = max(16, width - 2 * depth - len(key) - 2)
    shown = value[:MAX_STRING]
    parts: list[str] = []
    for paragraph in shown.splitlines() or [""]:
        safe = clean(paragraph, limit=MAX_STRING)
        parts.extend(_wrapped(safe, room) if len(safe) > room else [safe])

    yield JsonLine(depth, key, parts[0] if parts else "", "string")
    for part in parts[1:]:
        yield JsonLine(depth + 1 if key else depth, "", part, "text")
    if len(value) > MAX_STRING:
        yield JsonLine(depth + 1, "", f"… {count(len(value) - MAX_STRING)} characters more", "note")


def _wrapped(text: str, room: int) -> list[str]:
    """Break at spaces where there are any; by characters otherwise (wide text is cut to cells when drawn)."""
    lines: list[str] = []
    while len(text) > room:
        cut = text.rfind(" ", room // 2, room + 1)
        cut = cut if cut > 0 else room
        lines.append(text[:cut])
        text = text[cut:].lstrip(" ")
    lines.append(text)
    return lines
