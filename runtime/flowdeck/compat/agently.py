"""``Agently``: the reference's main object, over the default runtime."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, Final

from flowdeck._runtime import Runtime, runtime
from flowdeck.compat.bridge import ObservationBridge
from flowdeck.compat.event_center import CompatEventCenter
from flowdeck.definition.placeholders import fill_placeholders, load_env_file
from flowdeck.definition.settings import Settings as LayeredSettings
from flowdeck.events.profiles import CONSOLE_SETTINGS, MODES, debug_mode

if TYPE_CHECKING:
    from flowdeck.actions.runtime import ActionRuntime
    from flowdeck.agents.agent import Agent
    from flowdeck.agents.request import AgentRequest
    from flowdeck.compat.model_plugins import PluginManager
    from flowdeck.compat.prompts import LonePrompt
    from flowdeck.environments.manager import ExecutionEnvironmentManager
    from flowdeck.workspace.manager import WorkspaceManager

__all__ = ["NOT_BUILT", "Agently", "AgentlyMain", "Settings", "async_print", "print_"]

DEFAULTS: Final[dict[str, Any]] = {
    "runtime.raise_error": True,
    "runtime.raise_critical": True,
    **{name: "off" for name in CONSOLE_SETTINGS if name != "runtime.show_action_logs"},
}
NOT_BUILT: Final = {
    "action_dispatcher": "Agently.action executes: async_execute_action(), async_call_action()",
    "action_flow": "Agently.action.loop is the loop, register_action_planning_handler() changes its planning",
    "action_registry": "Agently.action registers and lists: register_action(), get_action_list(), get_action_func()",
    "create_dynamic_task": "write the plan as a TriggerFlow, or let an agent with actions plan",
    "skills_executor": "give an agent actions, or an MCP server: use_actions(), use_mcp()",
}
"""Names of the reference's main object that Flowdeck has no part for, and what to use in their place."""


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

    _plugins: PluginManager | None = None

    def __init__(self, host: Runtime = runtime) -> None:
        self.runtime = host
        self.settings = Settings(host.settings)
        self.event_center = CompatEventCenter(host.center, self.settings, host=host)
        self.logger = logging.getLogger("flowdeck.compat")
        self.async_emit_observation = self.event_center.async_emit
        self.emit_observation = self.event_center.emit
        self.async_emit_runtime = self.event_center.async_emit
        self.emit_runtime = self.event_center.emit

    # -- settings ------------------------------------------------------------------------------------------------

    def set_settings(
        self, key: str, value: Any, *, auto_load_env: bool = False, raise_empty: bool = False
    ) -> AgentlyMain:
        """Change a setting; chainable. ``debug`` and ``runtime.show_*_logs`` turn the console on and off at once.

        ``${ENV.NAME}`` in its texts stands for that environment variable; see :meth:`SettingsScope.set_settings`.

        Raises:
            ValueError: a console setting that is none of its values, or with ``raise_empty`` a variable is not set.
        """
        if auto_load_env:
            load_env_file()

        value = fill_placeholders(value, raise_empty=raise_empty)
        if key == "debug":
            value = debug_mode(value)
            for name in CONSOLE_SETTINGS:
                self.settings.set(name, value)
        elif key in CONSOLE_SETTINGS and value not in MODES:
            raise ValueError(f"{key} must be one of {', '.join(MODES)}, not {value!r}")

        self.settings.set(key, value)
        if key == "debug" or key in CONSOLE_SETTINGS:
            self.event_center.follow_settings()

        return self

    def load_settings(
        self, data_type: str, value: Any, *, auto_load_env: bool = False, raise_empty: bool = False
    ) -> AgentlyMain:
        """Set everything a document has (``json``, ``yaml``, ``toml``, or ``*_file`` and a path); chainable.

        Raises:
            DefinitionError: it cannot be read.
        """
        if auto_load_env:
            load_env_file()

        loaded = LayeredSettings()
        loaded.load(data_type, value, raise_empty=raise_empty)
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

    # -- actions -------------------------------------------------------------------------------------------------

    @property
    def action(self) -> ActionRuntime:
        """The global actions: ``runtime.actions``."""
        return self.runtime.actions

    tool = action
    action_runtime = action

    @property
    def execution_environment(self) -> ExecutionEnvironmentManager:
        """The execution environment manager of the runtime."""
        return self.runtime.execution_environment

    # -- agents and workspaces -----------------------------------------------------------------------------------

    @property
    def AgentType(self) -> type[Agent]:
        """The class of agents."""
        from flowdeck.agents.agent import Agent

        return Agent

    def create_prompt(self, name: str = "agently_prompt") -> LonePrompt:
        """Return an empty prompt that belongs to no request; see :class:`~flowdeck.compat.prompts.LonePrompt`."""
        from flowdeck.compat.prompts import LonePrompt

        return LonePrompt(name)

    def create_agent(self, name: str | None = None) -> Agent:
        """Return a new agent; see :class:`flowdeck.agents.Agent`."""
        return self.runtime.create_agent(name)

    def create_request(self, name: str | None = None) -> AgentRequest:
        """Return an empty request of a new agent; see :class:`flowdeck.agents.AgentRequest`."""
        return self.runtime.create_agent(name).create_request()

    @property
    def plugin_manager(self) -> PluginManager:
        """Requesters of models in the place of providers."""
        if self._plugins is None:
            from flowdeck.compat.model_plugins import PluginManager

            self._plugins = PluginManager(self.runtime, self.settings)

        return self._plugins

    def set_api_key(self, api_key: str) -> AgentlyMain:
        """Set the key of the model in the settings (``model``, ``OpenAICompatible`` …); chainable."""
        from flowdeck.models.config import with_api_key

        with_api_key(self.runtime.settings, api_key)
        return self

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
            raise AttributeError(f"Agently.{name} is not there: {NOT_BUILT[name]} (see: flowdeck docs compatibility)")

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
