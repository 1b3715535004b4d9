"""The reference's built-in hookers, as switches of the sinks that do their work here.

``RuntimeConsoleSinkHooker`` is registered from the start: it shows what ``debug`` and ``runtime.show_*_logs`` ask for,
which is nothing until they are set. ``RuntimeStorageSinkHooker`` logs warnings and worse, once it is registered.
Unregistering one takes its sink away. Neither has a ``handler``: their sinks get every event without a hook's detour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from flowdeck.events.profiles import CONSOLE_SETTINGS, Profiles, spec_of_settings

if TYPE_CHECKING:
    from flowdeck._observation import Observation
    from flowdeck._runtime import Runtime
    from flowdeck.compat.event_center import SettingsView

__all__ = ["BUILT_IN", "RuntimeConsoleSinkHooker", "RuntimeStorageSinkHooker", "SinkHooker"]


class SinkHooker:
    """A hooker whose work a sink does. ``observe`` attaches it; closing what that returns takes it away."""

    name: ClassVar[str]
    event_types: ClassVar[Any] = None

    @staticmethod
    def observe(host: Runtime, settings: SettingsView) -> Observation | None:
        """Attach the sink the settings ask for; ``None`` when that is nothing."""
        raise NotImplementedError


class RuntimeConsoleSinkHooker(SinkHooker):
    """Shows events on stderr, by family, as the settings say."""

    name = "RuntimeConsoleSinkHooker"

    @staticmethod
    def observe(host: Runtime, settings: SettingsView) -> Observation | None:
        """Attach the console, unless every family is off."""
        spec = spec_of_settings(lambda key: settings.get(key) if key in CONSOLE_SETTINGS else None)
        if spec is None or Profiles.parse(spec).silent:
            return None

        return host.observe(console=spec, level="DEBUG" if "detail" in spec else "INFO")


class RuntimeStorageSinkHooker(SinkHooker):
    """Logs events with the standard library's logging, logger ``flowdeck.observation``."""

    name = "RuntimeStorageSinkHooker"

    @staticmethod
    def observe(host: Runtime, settings: SettingsView) -> Observation | None:
        """Attach the logging sink, from WARNING on."""
        return host.observe(sinks=["logging"], level="WARNING")


BUILT_IN: Final = (RuntimeConsoleSinkHooker,)
"""Those that are registered from the start."""
