"""State under dotted keys: ``"user.name"`` is the ``name`` in the dict under ``"user"``.

A key that stands in the mapping as it is, dots and all, goes first. Values are taken as they are; who calls copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["append", "assign", "delete", "lookup"]


def lookup(data: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return what stands at the dotted ``key``, walking dicts only."""
    if key in data:
        return data[key]

    here: Any = data
    for part in key.split("."):
        if not isinstance(here, dict) or part not in here:
            return default

        here = here[part]

    return here


def assign(data: dict[str, Any], key: str, value: Any) -> None:
    """Put ``value`` at the dotted ``key``, creating dicts on the way.

    Raises:
        TypeError: the way leads through something that is no dict.
    """
    if "." not in key:
        data[key] = value
        return

    *path, last = key.split(".")
    here = data
    for part in path:
        nested = here.setdefault(part, {})
        if not isinstance(nested, dict):
            raise TypeError(f"cannot set {key!r}: {part!r} holds {type(nested).__name__}, not a dict")

        here = nested

    here[last] = value


def append(data: dict[str, Any], key: str, value: Any) -> list[Any]:
    """Append ``value`` to the list at the dotted ``key``; a missing one is created, a single value becomes its first.

    Returns the whole list.

    Raises:
        TypeError: the way leads through something that is no dict.
    """
    held = lookup(data, key, None)
    if not isinstance(held, list):
        held = [] if held is None else [held]

    held.append(value)
    assign(data, key, held)
    return held


def delete(data: dict[str, Any], key: str) -> bool:
    """Remove the dotted ``key``. Returns whether it was there."""
    if key in data:
        del data[key]
        return True

    *path, last = key.split(".")
    here: Any = data
    for part in path:
        here = here.get(part) if isinstance(here, dict) else None

    if not isinstance(here, dict) or last not in here:
        return False

    del here[last]
    return True
