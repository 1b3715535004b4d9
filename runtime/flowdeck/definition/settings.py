"""Settings with dotted names, in a chain: an execution's own, its flow's, the runtime's.

What is not set in one is looked up in the next. A mapping that is set in several is merged, the nearest first. Source:
the compatible API's settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

from flowdeck._yaml import yaml_or
from flowdeck.definition.placeholders import fill_placeholders, load_env_file
from flowdeck.errors import DefinitionError

__all__ = ["Settings", "SettingsScope"]

_MISSING: Final[Any] = object()
_FORMATS: Final = ("json", "yaml", "toml")

Layers = Callable[[], tuple[Mapping[str, Any], ...]]


class Settings(MutableMapping[str, Any]):
    """Settings over further layers, from the nearest to the farthest.

    >>> settings["runtime.show_model_logs"] = "simple"
    >>> settings.get("runtime")
    {'show_model_logs': 'simple'}
    """

    __slots__ = ("_layers", "own")

    def __init__(self, layers: Layers = tuple) -> None:
        self.own: dict[str, Any] = {}
        """What is set here, nested."""
        self._layers = layers

    def get(self, key: str, default: Any = None, *, inherit: bool = True) -> Any:
        """Return what stands at the dotted ``key``; ``inherit=False`` looks at this layer only."""
        layers = (self.own, *self._layers()) if inherit else (self.own,)
        merged: dict[str, Any] | None = None
        for layer in layers:
            found = _lookup(layer, key)
            if found is _MISSING:
                continue

            if not isinstance(found, Mapping):
                if merged is None:
                    return found

                break

            merged = _merged(merged or {}, found)

        return default if merged is None else merged

    def set(self, key: str, value: Any) -> None:
        """Set the dotted ``key`` in this layer.

        Raises:
            DefinitionError: ``key`` is no dotted name.
        """
        if not isinstance(key, str) or not all(key.split(".")):
            raise DefinitionError(f"settings: {key!r} is no name; it takes words joined by dots")

        *path, last = key.split(".")
        here = self.own
        for part in path:
            inner = here.get(part)
            if not isinstance(inner, dict):
                inner = here[part] = {}

            here = inner

        here[last] = dict(value) if isinstance(value, Mapping) else value

    def load(self, data_type: str, value: Any, *, raise_empty: bool = False) -> None:
        """Set everything a document has: ``"json"``, ``"yaml"`` or ``"toml"`` text, or ``"json_file"`` … and a path.

        ``${ENV.NAME}`` in its texts stands for that environment variable; with ``raise_empty`` it must be set.

        Raises:
            DefinitionError: an unknown format, the document is no mapping or cannot be read, or a variable is not set.
        """
        form, _, file = data_type.partition("_")
        if form not in _FORMATS or file not in ("", "file"):
            allowed = ", ".join([*_FORMATS, *(f"{name}_file" for name in _FORMATS)])
            raise DefinitionError(f"load_settings({data_type!r}): expected one of {allowed}")

        try:
            loaded = _parse(form, Path(value).read_text(encoding="utf-8") if file else value)
        except (OSError, ValueError) as exc:
            raise DefinitionError(f"load_settings({data_type!r}): {exc}") from exc

        if not isinstance(loaded, Mapping):
            raise DefinitionError(f"load_settings({data_type!r}): expected a mapping, got {type(loaded).__name__}")

        self.own = _merged(fill_placeholders(loaded, raise_empty=raise_empty), self.own)

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, _MISSING)
        if found is _MISSING:
            raise KeyError(key)

        return found

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        *path, last = key.split(".")
        here: Any = self.own
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None

        if not isinstance(here, dict) or last not in here:
            raise KeyError(key)

        del here[last]

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(self.own)
        for layer in self._layers():
            names.update(dict.fromkeys(name.partition(".")[0] for name in layer))

        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Settings {sorted(self)}>"


class SettingsScope:
    """``set_settings`` and ``load_settings`` of a flow or an execution."""

    @property
    def settings(self) -> Settings:
        """The settings, over those further away."""
        raise NotImplementedError

    def set_settings(self, key: str, value: Any, *, auto_load_env: bool = False, raise_empty: bool = False) -> Any:
        """Set a setting; chainable. ``${ENV.NAME}`` in its texts stands for that environment variable.

        Args:
            auto_load_env: read the nearest ``.env`` file before; see :func:`load_env_file`.
            raise_empty: refuse a variable that is not set; without it the text stays as it is.

        Raises:
            DefinitionError: ``key`` is no dotted name, or with ``raise_empty``.
        """
        if auto_load_env:
            load_env_file()

        self.settings.set(key, fill_placeholders(value, raise_empty=raise_empty))
        return self

    def load_settings(
        self, data_type: str, value: Any, *, auto_load_env: bool = False, raise_empty: bool = False
    ) -> Any:
        """Set everything a document has; chainable. See :meth:`Settings.load` and :meth:`set_settings`."""
        if auto_load_env:
            load_env_file()

        self.settings.load(data_type, value, raise_empty=raise_empty)
        return self


def _lookup(layer: Mapping[str, Any], key: str) -> Any:
    """Return what stands at the dotted ``key``; a layer may be nested, or flat with dotted names, or both."""
    if key in layer:
        return layer[key]

    here: Any = layer
    for part in key.split("."):
        here = here.get(part, _MISSING) if isinstance(here, Mapping) else _MISSING
        if here is _MISSING:
            break

    if here is not _MISSING:
        return here

    prefix = f"{key}."
    flat = [(name[len(prefix) :], value) for name, value in layer.items() if name.startswith(prefix)]
    if not flat:
        return _MISSING

    gathered = Settings()
    for name, value in flat:
        gathered.set(name, value)

    return gathered.own


def _merged(near: dict[str, Any], far: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with everything of both; ``near`` counts where they differ."""
    merged = {**far, **near}
    for key, value in far.items():
        ours = near.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merged(ours, value) if isinstance(ours, dict) else ours if key in near else dict(value)

    return merged


def _parse(form: str, text: str) -> Any:
    if form == "json":
        return json.loads(text)

    if form == "toml":
        import tomllib

        return tomllib.loads(text)

    yaml = yaml_or(DefinitionError)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc
