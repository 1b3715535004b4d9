"""The limits of an action loop: its own, else the settings ``action.loop.*`` (or ``tool.loop.*``), else a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from flowdeck.errors import ActionDefinitionError

__all__ = ["MAX_ROUNDS", "LoopLimits"]

MAX_ROUNDS: Final = 5
_UNSET: Final[Any] = object()


class LoopLimits:
    """``max_rounds``, ``concurrency`` and ``timeout`` of one loop."""

    if TYPE_CHECKING:  # supplied by the loop

        def _settings(self) -> Mapping[str, Any]: ...

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}

    def set_loop_options(self, *, max_rounds: Any = _UNSET, concurrency: Any = _UNSET, timeout: Any = _UNSET) -> Self:
        """Change the loop's limits; ``None`` takes one back to the setting. Chainable.

        Raises:
            ValueError: a value that is no limit.
        """
        if max_rounds is not _UNSET:
            self._options["max_rounds"] = _checked("max_rounds", max_rounds, int, 0)

        if concurrency is not _UNSET:
            self._options["concurrency"] = _checked("concurrency", concurrency, int, 1)

        if timeout is not _UNSET:
            self._options["timeout"] = _checked("timeout", timeout, float, 0)

        return self

    def _limit(self, name: str, default: Any = None) -> Any:
        own = self._options.get(name)
        if own is not None:
            return own

        settings = self._settings()
        return settings.get(f"action.loop.{name}", settings.get(f"tool.loop.{name}", default))


def _checked(name: str, value: Any, kind: type, least: float) -> Any:
    if value is None:
        return None

    number = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not number or value < least or (kind is float and value <= 0):
        wanted = f"a whole number from {int(least)}" if kind is int else "seconds, more than 0"
        raise ActionDefinitionError(f"set_loop_options({name}={value!r}): expected {wanted}")

    return value
