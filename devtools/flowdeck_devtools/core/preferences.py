"""What a person keeps for every store: saved filters and their own keys, as two TOML files they may edit."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Views", "config_folder", "read_keys"]

MOST_VIEWS = 200


def config_folder() -> Path:
    """Where a person's settings are: ``$XDG_CONFIG_HOME/flowdeck``, else ``~/.config/flowdeck``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "flowdeck"


def read_keys(path: Path | None = None) -> tuple[dict[str, str], str | None]:
    """The table ``[keys]`` of ``keymap.toml``: action id to keys, comma-separated; and why it cannot be read, if so."""
    path = path or config_folder() / "keymap.toml"
    found, problem = _read(path)
    keys = found.get("keys", {})
    if problem is None and not isinstance(keys, dict):
        return {}, f"{path}: [keys] must be a table"
    return {name: keys[name] for name in keys if isinstance(keys[name], str)} if isinstance(keys, dict) else {}, problem


@dataclass
class Views:
    """Saved filters by screen and name, in ``views.toml``. Read anew each time: another window may have saved one."""

    path: Path = field(default_factory=lambda: config_folder() / "views.toml")

    def of(self, place: str) -> dict[str, str]:
        """The filters saved for a screen, by name."""
        return self._load()[0].get(place, {})

    def save(self, place: str, name: str, text: str) -> None:
        """Keep a filter under a name; an empty filter forgets it.

        Raises:
            OSError: The file cannot be written.
            ValueError: The file that is there is not what it should be, and is left alone.
        """
        known, problem = self._load()
        if problem is not None:
            raise ValueError(problem)
        views = known.setdefault(place, {})
        views.pop(name, None)
        if text:
            views[name] = text
        while len(views) > MOST_VIEWS:
            views.pop(next(iter(views)))
        lines: list[str] = []
        for section in sorted(known):
            lines += [
                f"[{_quoted(section)}]",
                *(f"{_quoted(key)} = {_quoted(one)}" for key, one in known[section].items()),
                "",
            ]
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.write_text("\n".join(lines), encoding="utf-8")
        fresh.replace(self.path)

    def _load(self) -> tuple[dict[str, dict[str, str]], str | None]:
        found, problem = _read(self.path)
        views = {
            place: {name: text for name, text in table.items() if isinstance(text, str)}
            for place, table in found.items()
            if isinstance(table, dict)
        }
        return views, problem


def _read(path: Path) -> tuple[dict[str, object], str | None]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), None
    except FileNotFoundError:
        return {}, None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, f"{path} cannot be read: {error}"


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text)
