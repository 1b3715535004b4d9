"""The action runtime, as a program sees it: registering, calling, MCP servers, steps of flows and the loop.

``runtime.actions`` is the default one; an agent has one of its own, whose actions nobody else sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowdeck.actions.approval import ask_for, resumed_approval
from flowdeck.actions.calling import ActionCalls
from flowdeck.actions.loop import ActionLoop, Executor, Planner
from flowdeck.actions.record import slim
from flowdeck.execution.sync import run_sync

if TYPE_CHECKING:
    from flowdeck.actions.mcp import McpServer
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.execution.pausing import PauseSignal

__all__ = ["ActionRuntime"]


class ActionRuntime(ActionCalls):
    """The actions of one owner: a runtime (``runtime.actions``) or an agent. See :class:`ActionCalls` for arguments.

    Usage::

        actions = runtime.actions

        @actions.action_func(approval_required=True, side_effect_level="write")
        async def refund(order: str, amount: float) -> dict: ...

        record = await actions.async_execute_action("refund", {"order": "o-1", "amount": 5})
        flow.to(("refund", actions.step("refund")))            # pauses for the approval, then runs
        result = await actions.create_loop(planner).async_run("what shall be done")
    """

    _loop: ActionLoop | None = None

    @cached_property
    def mcp_servers(self) -> list[McpServer]:
        """Those whose tools were taken over."""
        return []

    def use_actions(self, items: Any, *, tags: str | Iterable[str] | None = None) -> ActionRuntime:
        """Take over actions, see :meth:`ActionRegistry.use`; chainable."""
        self.use(items, tags=tags)
        return self

    use_tools = use_actions

    # -- MCP servers ---------------------------------------------------------------------------------------------

    async def async_use_action_mcp(
        self, transport: Any, *, tags: str | Iterable[str] | None = None, **options: Any
    ) -> Any:
        """Take over the tools of an MCP server; see :func:`flowdeck.actions.mcp.use_server`."""
        from flowdeck.actions.mcp import use_server

        server = await use_server(self, transport, tags=tags, **options)
        self.mcp_servers.append(server)
        return server

    async_use_mcp = async_use_action_mcp

    def use_action_mcp(self, transport: Any, *, tags: str | Iterable[str] | None = None, **options: Any) -> Any:
        """Synchronous twin of :meth:`async_use_action_mcp`."""
        return run_sync(self.async_use_action_mcp(transport, tags=tags, **options))

    use_mcp = use_action_mcp

    async def async_close(self) -> None:
        """End the connections to MCP servers; a later call of a tool opens its own anew."""
        for server in self.mcp_servers:
            await server.close()

    # -- in flows ------------------------------------------------------------------------------------------------

    def step(self, action_id: str, **options: Any) -> Callable[[TriggerFlowRuntimeData], Any]:
        """Return a chunk that calls an action with its input and passes on the record.

        An action that needs approval pauses the flow and runs once it is answered::

            flow.to(("refund", actions.step("refund")))

        Raises:
            ActionNotFound: there is none of that id.
        """
        self.require(action_id)

        async def call_action(data: TriggerFlowRuntimeData) -> dict[str, Any] | PauseSignal:
            return await self.call_in(data, action_id, data.input, **options)

        return call_action

    async def call_in(
        self, data: TriggerFlowRuntimeData, action_id: str, kwargs: Any, **options: Any
    ) -> dict[str, Any] | PauseSignal:
        """Call an action from a chunk. Returns its record, or the pause signal the chunk must return."""
        options.setdefault("approval", resumed_approval(data))
        record = await self.async_execute_action(action_id, kwargs, data=data, source_protocol="flow", **options)
        if record["status"] == "approval_required" and options["approval"] is None:
            return ask_for(data, record)

        return slim(record)

    def create_loop(self, plan: Callable[..., Any] | None = None, **options: Any) -> ActionLoop:
        """Return a plan-execute loop over these actions; see :class:`~flowdeck.actions.loop.ActionLoop`."""
        return ActionLoop(self, plan, **options)

    # -- the loop --------------------------------------------------------------------------------------------------

    @property
    def loop(self) -> ActionLoop:
        """The loop over all these actions that the methods below configure."""
        if self._loop is None:
            self._loop = ActionLoop(self)

        return self._loop

    def set_loop_options(self, **limits: Any) -> ActionRuntime:
        """Change ``max_rounds``, ``concurrency`` or ``timeout`` of :attr:`loop`; chainable.

        Raises:
            ValueError: a value that is no limit.
        """
        self.loop.set_loop_options(**limits)
        return self

    def register_action_planning_handler(self, handler: Planner) -> ActionRuntime:
        """Let ``handler(context, request)`` plan the rounds of :attr:`loop`; chainable."""
        self.loop.register_planning_handler(handler)
        return self

    def register_action_execution_handler(self, handler: Executor | None) -> ActionRuntime:
        """Let ``handler(context, request)`` carry out the rounds of :attr:`loop`; chainable."""
        self.loop.register_execution_handler(handler)
        return self

    register_plan_analysis_handler = register_action_planning_handler
    register_tool_execution_handler = register_action_execution_handler
