"""Saying where in a flow's code something happened, and what differs between two values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import flowdeck

__all__ = ["caller", "field_diff", "shown_path"]

_OWN: Final = tuple(str(Path(each.__file__ or "").parent) + "/" for each in (flowdeck, sys.modules[__package__ or ""]))
_ABSENT: Final = object()


def caller() -> str:
    """Return ``file:line`` of the code outside Flowdeck that is running right now, or an empty text."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN) and not file.startswith("<") and "/asyncio/" not in file:
            return f"{shown_path(file)}:{frame.f_lineno}"

        if frame.f_back is None:
            return ""

        frame = frame.f_back

    return ""


def shown_path(file: str) -> str:
    """Return a path as people say it: relative to the working directory when it lies below."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def field_diff(recorded: Any, actual: Any, path: str = "") -> list[str]:
    """Return where two JSON values differ: ``0.amount: 40 -> 42``."""
    if type(recorded) is type(actual) and isinstance(recorded, dict):
        return [
            line
            for key in sorted({*recorded, *actual}, key=str)
            for line in field_diff(
                recorded.get(key, _ABSENT), actual.get(key, _ABSENT), f"{path}.{key}" if path else str(key)
            )
        ]

    if type(recorded) is type(actual) and isinstance(recorded, list):
        return [
            line
            for i in range(max(len(recorded), len(actual)))
            for line in field_diff(
                recorded[i] if i < len(recorded) else _ABSENT,
                actual[i] if i < len(actual) else _ABSENT,
                f"{path}.{i}" if path else str(i),
            )
        ]

    return [] if recorded == actual else [f"{path or 'value'}: {_short(recorded)} -> {_short(actual)}"]


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(nothing)"

    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
