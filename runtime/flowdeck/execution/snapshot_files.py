"""Saved states as files: JSON, and YAML when the name says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from flowdeck._yaml import yaml_or
from flowdeck.errors import SnapshotError

__all__ = ["read_state", "write_state"]


def write_state(state: dict[str, Any], path: Path, encoding: str) -> None:
    """Write a saved state; a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".yaml", ".yml"):
        # YAML reads an unescaped NEL, inside a text too, as the end of a line.
        readable = b"\xc2\x85" not in msgspec.json.encode(state)
        text = yaml_or(SnapshotError).safe_dump(state, allow_unicode=readable, sort_keys=False)
    else:
        # In the order they came: sorted, the user's own dicts would come back in another order.
        text = msgspec.json.format(msgspec.json.encode(state), indent=1).decode()

    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding=encoding)
    partial.replace(path)  # a crash leaves the old state or the new one, never half of it


def read_state(state: Any, encoding: str) -> dict[str, Any]:
    """Return a saved state given as a dict, a path, or JSON or YAML text.

    Raises:
        SnapshotError: the text is neither, or holds no dict.
        TypeError: it is something else.
    """
    source = ""
    if isinstance(state, Path) or (isinstance(state, str) and "\n" not in state and len(state) < 4096):
        path = Path(state)
        if isinstance(state, Path) or path.suffix in (".json", ".yaml", ".yml") or _is_file(path):
            state, source = path.read_text(encoding=encoding), f"{path}: "

    if isinstance(state, str):
        text = state
        try:
            state = msgspec.json.decode(state)
        except msgspec.DecodeError:
            try:
                state = yaml_or(SnapshotError).safe_load(state)
            except Exception as exc:
                raise SnapshotError(f"{source}the saved state is neither JSON nor YAML: {exc}") from exc

        if not isinstance(state, dict):
            named = source or f"{text[:80]!r} is no file here; "
            raise SnapshotError(f"{named}a saved execution is expected, a path to one, or its JSON or YAML text")

    if not isinstance(state, dict):
        raise TypeError(f"load() takes a dict, a path, or JSON or YAML text; got {type(state).__name__}")

    return state


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text, far too long for a name
        return False
