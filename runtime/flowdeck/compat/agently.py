"""``Agently``: the reference's main object, over the default runtime."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, Final

from flowdeck._runtime import Runtime, runtime
from flowdeck.compat.bridge import ObservationBridge
from flowdeck.compat.event_center import CompatEventCenter
from flowdeck.definition.settings import Settings as LayeredSettings
from flowdeck.events.profiles import CONSOLE_SETTINGS, MODES, Profiles, debug_mode, spec_of_settings

if TYPE_CHECKING:
    from flowdeck.actions.runtime import ActionRuntime
    from flowdeck.agents.agent import Agent
    from flowdeck.environments.manager import ExecutionEnvironmentManager
    from flowdeck.workspace.manager import WorkspaceManager

__all__ = ["NOT_BUILT", "Agently", "AgentlyMain", "Settings", "async_print", "print_"]

DEFAULTS: Final[dict[str, Any]] = {
    "runtime.raise_error": True,
    "runtime.raise_critical": True,
    **{name: "off" for name in CONSOLE_SETTINGS if name != "runtime.show_action_logs"},
}
NOT_BUILT: Final = (
    "AgentType",
    "action_dispatcher",
    "action_flow",
    "action_registry",
    "action_runtime",
    "create_dynamic_task",
    "create_prompt",
    "create_request",
    "plugin_manager",
    "set_api_key",
    "skills_executor",
)
"""Names of the reference's main object that stand for parts Flowdeck does not have yet."""


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
        self._console: Any = None

    # -- settings ------------------------------------------------------------------------------------------------

    def set_settings(
        self, key: str, value: Any, *, auto_load_env: bool = False, raise_empty: bool = False
    ) -> AgentlyMain:
        """Change a setting; chainable. ``debug`` and ``runtime.show_*_logs`` turn the console on and off at once.

        Raises:
            ValueError: a console setting that is none of its values.
        """
        if auto_load_env or raise_empty:
            warnings.warn("auto_load_env and raise_empty change nothing: no variables are filled in", stacklevel=2)

        if key == "debug":
            value = debug_mode(value)
            for name in CONSOLE_SETTINGS:
                self.settings.set(name, value)
        elif key in CONSOLE_SETTINGS and value not in MODES:
            raise ValueError(f"{key} must be one of {', '.join(MODES)}, not {value!r}")

        self.settings.set(key, value)
        if key == "debug" or key in CONSOLE_SETTINGS:
            self._show()

        return self

    def load_settings(
        self, data_type: str, value: Any, *, auto_load_env: bool = False, raise_empty: bool = False
    ) -> AgentlyMain:
        """Set everything a document has (``json``, ``yaml``, ``toml``, or ``*_file`` and a path); chainable.

        Raises:
            DefinitionError: it cannot be read.
        """
        loaded = LayeredSettings()
        loaded.load(data_type, value)
        for key, item in _flat(loaded.own):
            self.set_settings(key, item)

        return self

    def set_log_level(self, log_level: int | str) -> AgentlyMain:
        """Set the level of :attr:`logger`; chainable."""
        self.logger.setLevel(log_level)
        return self

    def set_debug_console(self, debug_console_status: str = "OFF") -> AgentlyMain:
        """Deprecated: changes nothing; ``set_settings("debug", …)`` shows events on the console."""
        warnings.warn('set_debug_console() is deprecated; use set_settings("debug", True)', DeprecationWarning, 2)
        return self

    def _show(self) -> None:
        """Attach the console sink the settings ask for, in place of the one before."""
        spec = spec_of_settings(lambda name: self.settings.get(name) if name in CONSOLE_SETTINGS else None)
        before, self._console = self._console, None
        if before is not None:
            before.close()

        if spec is not None and not Profiles.parse(spec).silent:
            self._console = self.runtime.observe(console=spec, level="DEBUG" if "detail" in spec else "INFO")

    # -- actions -------------------------------------------------------------------------------------------------

    @property
    def action(self) -> ActionRuntime:
        """The global actions: ``runtime.actions``."""
        return self.runtime.actions

    tool = action

    @property
    def execution_environment(self) -> ExecutionEnvironmentManager:
        """The execution environment manager of the runtime."""
        return self.runtime.execution_environment

    # -- agents and workspaces -----------------------------------------------------------------------------------

    def create_agent(self, name: str | None = None) -> Agent:
        """Return a new agent; see :class:`flowdeck.agents.Agent`."""
        return self.runtime.create_agent(name)

    @property
    def workspace(self) -> WorkspaceManager:
        """The workspace manager of the runtime."""
        return self.runtime.workspace

    # -- observing -------------------------------------------------------------------------------------------------

    def create_observation_bridge(self, *watch_targets: Any, **bridge_options: Any) -> ObservationBridge:
        """Observe everything from now on; without options into the default store. See :class:`ObservationBridge`."""
        return ObservationBridge(self.runtime, watch_targets, bridge_options)

    observe = create_observation_bridge

    async def async_print(self, content: Any = "", *args: Any) -> None:
        """Emit a ``runtime.print`` event."""
        await self.event_center.async_emit(_printed(content, args))

    def print(self, content: Any = "", *args: Any) -> None:
        """Synchronous twin of :meth:`async_print`."""
        self.event_center.emit(_printed(content, args))

    def __getattr__(self, name: str) -> Any:
        if name in NOT_BUILT:
            raise AttributeError(
                f"Agently.{name} is not there yet: Flowdeck has flows, the Event Center and observation so far "
                "(docs/compatibility.md)"
            )

        raise AttributeError(f"Agently has no attribute {name!r}")


def _printed(content: Any, more: tuple[Any, ...]) -> dict[str, Any]:
    text = " ".join(map(str, (content, *more)))
    return {"event_type": "runtime.print", "source": "Agently", "message": text}


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in values.items():
        out += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]

    return out


Agently = AgentlyMain()
"""The main object over ``flowdeck.runtime``."""

print_ = Agently.print
async_print = Agently.async_print
