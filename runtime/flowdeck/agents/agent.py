"""Agent: a name that holds a model, a conversation, a workspace and actions together.

    agent = runtime.create_agent("review-worker").use_model("openai:gpt-5-mini")
    agent.activate_session(session_id="s-17").use_workspace("./.flowdeck/runs/t-17").use_actions([search])
    report = await agent.input("Review clause 4.").output({"risk": str, "reason": str}).async_start()

Sources: seed 001; behaviour §7.1, §8.1, §8.2, §8.4.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from flowdeck.actions.loop import ActionLoop
from flowdeck.actions.runtime import ActionRuntime
from flowdeck.agents.agent_events import AgentEvents
from flowdeck.agents.checks import Checks
from flowdeck.agents.request import AgentRequest, PromptSlots, checked_slot, filled
from flowdeck.agents.session import Session
from flowdeck.agents.session_store import FileSessions, SessionStore
from flowdeck.agents.session_window import Message
from flowdeck.definition.settings import Settings, SettingsScope
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import RunContext, current_run, enter_session
from flowdeck.execution.services import Services, current_services, selected_services
from flowdeck.models.config import ModelConfig
from flowdeck.workspace.manager import WorkspaceManager

if TYPE_CHECKING:
    from flowdeck.agents.turn import AgentExecution
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.workspace.workspace import Workspace

__all__ = ["Agent"]

SESSION_ID: Final = "runtime.session_id"
"""The setting that holds the active session's id."""


class Agent(PromptSlots, SettingsScope):
    """A named worker. Made by ``runtime.create_agent(name)``.

    Attributes:
        id: unique; :attr:`RunContext.agent_id` of what it does.
        name: as events show it.
        sessions: by id, those activated on this agent so far.
        activated_session: the one in use, or ``None``.
        workspace: the one in use, or ``None``.
        actions: its own; neither other agents nor the runtime see them.
        prompt: what it adds to all its requests, by slot.
        checks: what all its answers must pass.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        services: Services | None = None,
        workspaces: WorkspaceManager | None = None,
        shared_actions: Callable[[], ActionRuntime] | None = None,
    ) -> None:
        self._services = services or current_services()
        self.id = f"agent_{new_id()}"
        self.name = name or self.id
        self._settings = Settings(lambda: (self._services.settings,))
        self._workspaces = workspaces or WorkspaceManager(self._services)
        self._shared_actions = shared_actions
        self._session_store: SessionStore | None = None
        self._model: ModelConfig | None = None
        self._events: AgentEvents | None = None
        self._ordinals = itertools.count()
        self._loop: ActionLoop | None = None
        self.prompt: dict[str, Any] = {}
        self.checks = Checks()
        self.sessions: dict[str, Session] = {}
        self.activated_session: Session | None = None
        self.chat_history: list[Message] = []
        """What the next request starts with: the active session's window."""
        self.workspace: Workspace | Any = None
        self.actions = ActionRuntime(self._services, name=self.name, agent_id=self.id)

    def __repr__(self) -> str:
        return f"<Agent {self.name!r}>"

    @property
    def settings(self) -> Settings:
        """Its settings, over the runtime's."""
        return self._settings

    @property
    def action(self) -> ActionRuntime:
        """The same as :attr:`actions`, under the compatible name."""
        return self.actions

    tool = action

    # -- model and prompt --------------------------------------------------------------------------------------------

    def use_model(self, model: Any, **options: Any) -> Agent:
        """Ask this model; chainable.

        Args:
            model: ``"provider:name"``, with ``base_url=`` the plain name, a :class:`ModelConfig`, a pydantic-ai model,
                or anything with a method ``stream(request)`` (:class:`~flowdeck.models.ModelRequester`).
            options: ``base_url``, ``api_key``, ``settings`` (``{"temperature": 0.2, "timeout": 30}`` …), ``options``.

        Raises:
            ModelNotConfigured: it is no model.
        """
        self._model = ModelConfig.of(model, **options)
        return self

    @property
    def model_config(self) -> ModelConfig:
        """The model it asks: its own, else that of the settings or the environment.

        Raises:
            ModelNotConfigured: nobody names one.
        """
        return self._model if self._model is not None else ModelConfig.find(self._settings)

    def create_request(self) -> AgentRequest:
        """Return an empty request of this agent. ``agent.input(…)`` and the like return one with that slot set."""
        return AgentRequest(self)

    def set_agent_prompt(self, key: str, value: Any, mappings: Mapping[str, Any] | None = None) -> Agent:
        """Set a slot for all requests of the agent; chainable.

        Raises:
            ValueError: there is no such slot.
        """
        self.prompt[checked_slot(key)] = filled(value, mappings)
        return self

    def ensure_keys(self, *keys: str) -> Agent:
        """Want these keys in every answer; chainable."""
        self.checks = Checks.of(keys).over(self.checks)
        return self

    def _slot(self, name: str, value: Any, mappings: Mapping[str, Any] | None, always: bool) -> Any:
        if always:
            return self.set_agent_prompt(name, value, mappings)

        return AgentRequest(self)._slot(name, value, mappings, always=False)

    def _services_for(self, data: TriggerFlowRuntimeData | None) -> Services:
        """Return what hosts a request: the chunk's run, else the runtime selected here, else the agent's own."""
        if data is not None:
            return data.execution._services

        return selected_services() or self._services

    def _events_of(self, services: Services) -> AgentEvents:
        if self._events is None or self._events.center is not services.center:
            self._events = AgentEvents(services.center)

        return self._events

    def _next_ordinal(self) -> int:
        return next(self._ordinals)

    # -- session -----------------------------------------------------------------------------------------------------

    def use_session_store(self, store: str | PathLike[str] | SessionStore | None) -> Agent:
        """Keep the sessions activated from now on: in a directory, or in a store of one's own; chainable."""
        self._session_store = FileSessions(store) if isinstance(store, str | PathLike) else store
        return self

    def activate_session(self, *, session_id: str | None = None) -> Agent:
        """Use a session: that of the id on this agent, else of the store, else a new one; chainable.

        From here on, in this context (asyncio task, thread) and in all this agent does, runs belong to the session:
        every event below them carries its id. :meth:`session_scope` limits that to a block.

        Raises:
            SessionError: ``session_id`` is no text, or the store cannot be read.
        """
        session = self.sessions.get(session_id) if session_id is not None else None
        if session is None:
            session = Session(session_id, store=self._session_store)
            self.sessions[session.id] = session
        else:
            session.refresh()

        self.activated_session = session
        self.chat_history = list(session.context_window)
        self._settings.set(SESSION_ID, session.id)
        self.actions.session_id = session.id
        enter_session(session.id)
        self._tell("activated", {"session_id": session.id, "agent_name": self.name}, None)
        return self

    def deactivate_session(self) -> Agent:
        """Leave the session; it stays in :attr:`sessions`. Chainable."""
        session, self.activated_session = self.activated_session, None
        self.chat_history = []
        if session is not None:
            self._settings.own.get("runtime", {}).pop("session_id", None)
            self.actions.session_id = None
            enter_session(None, leaving=session.id)
            self._tell("deactivated", {"session_id": session.id, "agent_name": self.name}, None)

        return self

    @contextmanager
    def session_scope(self) -> Iterator[Session | None]:
        """Make the active session that of every run created inside the block; without one nothing changes."""
        if self.activated_session is None:
            yield None
            return

        with self.activated_session.scope() as session:
            yield session

    def apply_session(self, run: RunContext | None = None) -> list[Message]:
        """Return the messages a request begins with, and say so as ``session.applied_to_request``.

        Call it right before a model is asked. ``run`` is the request's; the current one by default.
        """
        session = self.activated_session
        if session is None:
            return list(self.chat_history)

        session.refresh()
        self.chat_history = list(session.context_window)
        memo_size = 0 if session.memo is None else len(str(session.memo))
        payload = {
            "session_id": session.id,
            "context_window_size": len(session.context_window),
            "memo_size": memo_size,
        }
        self._tell("applied_to_request", payload, run or current_run.get())
        return list(self.chat_history)

    async def record_turn(self, user: Any, assistant: Any, *, run: RunContext | None = None) -> Agent:
        """Remember what was asked and answered; ``None`` and empty texts are left out. Chainable.

        Call it once the reply is whole. Says so as ``session.context_appended``.
        """
        session = self.activated_session
        if session is None:
            return self

        said = [
            (role, content) for role, content in (("user", user), ("assistant", assistant)) if content not in ("", None)
        ]
        await session.async_add_chat_history([{"role": role, "content": content} for role, content in said])
        self.chat_history = list(session.context_window)
        roles = {role for role, _ in said}
        payload = {
            "session_id": session.id,
            "has_user_content": "user" in roles,
            "has_assistant_content": "assistant" in roles,
            "context_window_size": len(session.context_window),
        }
        self._tell("context_appended", payload, run or current_run.get())
        return self

    def _tell(self, name: str, payload: Mapping[str, Any], run: RunContext | None) -> None:
        events = self._events_of(self._services_for(None))
        events.tell(f"session.{name}", payload, run, source="SessionExtension")

    # -- workspace ---------------------------------------------------------------------------------------------------

    def use_workspace(
        self, path_or_backend: str | PathLike[str] | Any, *, create: bool = True, mode: str = "read_write"
    ) -> Agent:
        """Use a workspace as :attr:`workspace`; see :meth:`WorkspaceManager.create`. Chainable."""
        self.workspace = self._workspaces.create(path_or_backend, create=create, mode=mode)
        return self

    # -- actions -----------------------------------------------------------------------------------------------------

    @property
    def loop(self) -> ActionLoop:
        """The loop in which its model calls its actions; ``flow.to(agent.loop.flow)`` makes it a step of a flow."""
        if self._loop is None:
            self._loop = ActionLoop(self.actions, self._plan_actions, name=self.name)
            self._loop._module = sys._getframe(1).f_globals.get("__name__", "")

        return self._loop

    def use_planning(self, protocol: str) -> Agent:
        """Let the model plan by ``"structured_plan"`` (JSON; any model) or ``"native_tool_calls"``; chainable.

        Raises:
            ValueError: there is no such protocol.
        """
        from flowdeck.agents.planning import PROTOCOLS

        if protocol not in PROTOCOLS:
            raise ValueError(f"use_planning({protocol!r}): expected one of {', '.join(PROTOCOLS)}")

        self.loop.protocol = protocol
        return self

    def set_loop_options(self, **options: Any) -> Agent:
        """Set ``max_rounds``, ``concurrency`` and ``timeout`` of the loop; chainable. See :class:`ActionLoop`."""
        self.loop.set_loop_options(**options)
        return self

    def register_action_planning_handler(self, handler: Callable[..., Any]) -> Agent:
        """Let ``handler(context, request)`` plan in the model's place; chainable."""
        self.loop.register_planning_handler(handler)
        return self

    def register_action_execution_handler(self, handler: Callable[..., Any] | None) -> Agent:
        """Let ``handler(context, request)`` carry out a round's calls; chainable."""
        self.loop.register_execution_handler(handler)
        return self

    async def _plan_actions(self, context: dict[str, Any], request: dict[str, Any]) -> Any:
        from flowdeck.agents.planning import plan_round

        return await plan_round(self, context, request, self.loop.protocol)

    def _has_work(self) -> bool:
        enabled = self._settings.get("action.loop.enabled", True)
        return bool(enabled is not False and self.actions.get_action_list(self.loop.tags))

    async def _work(self, execution: AgentExecution) -> Any:
        """Run the action loop for a turn, and return what its prompt shows of it."""
        from flowdeck.agents.planning import action_results, run_in_chunk

        plan = execution.plan
        # What the loop's state can hold: plain data.
        request = {"$prompt": {k: v for k, v in plan.prompt.slots.items() if k != "output"}}
        if plan.data is not None:
            outcome = await run_in_chunk(self.loop, request, execution.request_run, plan.data)
        else:
            outcome = await self.loop.async_run(request, parent=execution.request_run, services=plan.services)

        return action_results(outcome["records"]) or None

    def use_actions(self, items: Any, *, tags: str | Iterable[str] | None = None) -> Agent:
        """Give the agent actions: functions, packages, lists, or ids of its own or of the runtime's; chainable.

        Raises:
            ActionNotFound: an id nobody has registered.
            TypeError: something else.
        """
        wanted = [f"agent-{self.name}", *([tags] if isinstance(tags, str) else tags or ())]
        for item in items if isinstance(items, list | tuple | set) else [items]:
            shared = self._shared_actions() if isinstance(item, str) and self._shared_actions is not None else None
            spec = shared.get(item) if shared is not None and self.actions.get(item) is None else None
            # A copy: the runtime's own action does not get the agent's tag.
            self.actions.use(item if spec is None else replace(spec, tags=list(spec.tags)), tags=wanted)

        return self

    use_tools = use_actions

    def action_func(self, function: Any = None, **options: Any) -> Any:
        """Decorate a function as an action of this agent; see :meth:`ActionRegistry.action_func`."""
        tags = options.pop("tags", None) or ()
        given = [f"agent-{self.name}", *([tags] if isinstance(tags, str) else tags)]
        return self.actions.action_func(function, tags=given, **options)

    tool_func = action_func

    async def async_use_action_mcp(self, transport: Any, **options: Any) -> Agent:
        """Give the agent the tools of an MCP server; chainable."""
        await self.actions.async_use_action_mcp(transport, tags=[f"agent-{self.name}"], **options)
        return self

    async_use_mcp = async_use_action_mcp
