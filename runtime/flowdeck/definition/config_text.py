"""Flow configs as JSON and YAML text, and in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from flowdeck._yaml import yaml_or
from flowdeck.errors import ConfigError

__all__ = ["from_json", "from_yaml", "save_text", "to_json", "to_yaml"]

_PATH_LENGTH = 4096


def to_json(config: dict[str, Any]) -> str:
    """Return a config as indented JSON, with a line break at the end."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode() + "\n"


def to_yaml(config: dict[str, Any]) -> str:
    """Return a config as YAML, keys in their order."""
    text: str = yaml_or(ConfigError).dump(
        config, Dumper=_no_alias_dumper(), allow_unicode=True, sort_keys=False, default_flow_style=False, width=120
    )
    return text


def save_text(text: str, path: str | os.PathLike[str] | None, encoding: str) -> str:
    """Write ``text`` to ``path`` if there is one, making its folders, and return it."""
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding=encoding)

    return text


def from_json(given: str | os.PathLike[str], encoding: str) -> Any:
    """Read a config from JSON: a path, or the text itself.

    Raises:
        ConfigError: it is neither a file nor JSON.
    """
    text, place = _read(given, encoding)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise ConfigError(f"{place} is no JSON: {problem}") from None


def from_yaml(given: str | os.PathLike[str], encoding: str) -> Any:
    """Read a config from YAML: a path, or the text itself. Anchors are refused: a few could stand for millions.

    Raises:
        ConfigError: it is neither a file nor YAML.
    """
    text, place = _read(given, encoding)
    yaml = yaml_or(ConfigError)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{place}: YAML aliases (*{event.anchor}) are not read; write the part out")

        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        if isinstance(problem, ConfigError):
            raise

        raise ConfigError(f"{place} is no YAML: {' '.join(str(problem).split())}") from None


def _read(given: str | os.PathLike[str], encoding: str) -> tuple[str, str]:
    """Return a text and what to call it. One line that is no JSON object is taken for a path."""
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"expected a path or the text of a config, got {type(given).__name__}")

    if isinstance(given, str) and ("\n" in given or given.lstrip()[:1] in ("{", "[") or len(given) > _PATH_LENGTH):
        return given, "the text"

    path = Path(given)
    try:
        return path.read_text(encoding=encoding), str(path)
    except (OSError, UnicodeDecodeError) as problem:
        if isinstance(given, str) and ": " in given:  # one line of YAML
            return given, "the text"

        reason = getattr(problem, "strerror", None) or str(problem)
        raise ConfigError(f"{path}: {reason}") from None


def _no_alias_dumper() -> Any:
    yaml = yaml_or(ConfigError)

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Dumper
