"""``Agently``: the reference's main object, over the default runtime."""

from __future__ import annotations

import logging
from typing import Any

from flowdeck._runtime import Runtime, runtime
from flowdeck.compat.event_center import CompatEventCenter

__all__ = ["Agently", "AgentlyMain", "Settings"]

DEFAULTS: dict[str, Any] = {
    "runtime.raise_error": True,
    "runtime.raise_critical": True,
}


class Settings:
    """Dotted settings over a runtime's settings; unset names have the reference's defaults."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting."""
        return self._values.get(key, DEFAULTS.get(key, default))

    def set(self, key: str, value: Any) -> None:
        """Change a setting."""
        self._values[key] = value

    __getitem__ = get
    __setitem__ = set


class AgentlyMain:
    """The names a program reaches through ``Agently``."""

    def __init__(self, host: Runtime = runtime) -> None:
        self.runtime = host
        self.settings = Settings(host.settings)
        self.event_center = CompatEventCenter(host.center, host.settings)
        self.logger = logging.getLogger("flowdeck.compat")
        self.async_emit_observation = self.event_center.async_emit
        self.emit_observation = self.event_center.emit
        self.async_emit_runtime = self.event_center.async_emit
        self.emit_runtime = self.event_center.emit

    def set_settings(self, key: str, value: Any) -> AgentlyMain:
        """Change a setting; chainable."""
        self.settings.set(key, value)
        return self

    def set_log_level(self, level: int | str) -> AgentlyMain:
        """Set the level of :attr:`logger`; chainable."""
        self.logger.setLevel(level)
        return self

    async def async_print(self, *values: Any) -> None:
        """Emit a ``runtime.print`` event."""
        text = " ".join(str(value) for value in values)
        await self.event_center.async_emit({"event_type": "runtime.print", "source": "Agently", "message": text})

    def print(self, *values: Any) -> None:
        """Synchronous twin of :meth:`async_print`."""
        text = " ".join(str(value) for value in values)
        self.event_center.emit({"event_type": "runtime.print", "source": "Agently", "message": text})


Agently = AgentlyMain()
"""The main object over ``flowdeck.runtime``."""
