"""Settings that name environment variables: ``${ENV.NAME}`` inside texts, and the ``.env`` file they may come from.

Source: the compatible API's ``set_settings(…, auto_load_env=True)``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flowdeck.errors import DefinitionError

__all__ = ["fill_placeholders", "load_env_file"]

_PLACEHOLDER: Final = re.compile(r"\$\{\s*ENV\.(\w+)\s*\}")
_LINE: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")


def fill_placeholders(value: Any, *, raise_empty: bool = False) -> Any:
    """Return ``value`` with every ``${ENV.NAME}`` in its texts, at any depth, replaced by that variable.

    Args:
        raise_empty: refuse a variable that is not set, or empty. Without it the text stays as it is written.

    Raises:
        DefinitionError: with ``raise_empty``; it names the variable.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: _variable(found, raise_empty), value) if "${" in value else value

    if isinstance(value, Mapping):
        return {key: fill_placeholders(item, raise_empty=raise_empty) for key, item in value.items()}

    if type(value) in (list, tuple):
        return type(value)([fill_placeholders(item, raise_empty=raise_empty) for item in value])

    return value


def load_env_file(start: str | os.PathLike[str] | None = None) -> Path | None:
    """Set the variables of the nearest ``.env``, in ``start`` (the working directory) or above; return its path.

    Variables that are set already keep their value.

    Raises:
        DefinitionError: the file cannot be read.
    """
    here = Path.cwd() if start is None else Path(start).resolve()
    for folder in (here, *here.parents):
        path = folder / ".env"
        if path.is_file():
            _set_variables(path)
            return path

    return None


def _set_variables(path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise DefinitionError(f"{path} cannot be read: {problem}") from None

    for line in lines:
        found = _LINE.fullmatch(line)
        if found is not None:
            os.environ.setdefault(found[1], _unquoted(found[2]))


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] in "'\"" and text[0] == text[-1]:
        return text[1:-1]

    return text.partition(" #")[0].rstrip()


def _variable(found: re.Match[str], raise_empty: bool) -> str:
    value = os.environ.get(found[1])
    if raise_empty and not value:
        raise DefinitionError(
            f"settings: {found[0]} names the environment variable {found[1]!r}, which is "
            f"{'not set' if value is None else 'empty'}; set it, or write it into a .env file"
        )

    return found[0] if value is None else value
