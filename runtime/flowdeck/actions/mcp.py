"""MCP servers as sources of actions, through the official client (extra ``mcp``).

A server's tools become actions with ``action_type`` ``mcp``; ``readOnlyHint`` and ``idempotentHint`` decide their
side-effect level and whether a call may be repeated after a crash. Source: Model Context Protocol, tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from flowdeck.actions.context import ActionContext
from flowdeck.actions.mcp_connection import Connection, client_module, described
from flowdeck.errors import ActionDefinitionError, ActionError

if TYPE_CHECKING:
    from flowdeck.actions.runtime import ActionRuntime

__all__ = ["McpServer", "use_server"]

CALL_SECONDS: Final = 60.0


async def use_server(
    actions: ActionRuntime,
    transport: Any,
    *,
    tags: str | Iterable[str] | None = None,
    prefix: str = "",
    approval_required: bool = False,
    timeout: float = CALL_SECONDS,
) -> McpServer:
    """Connect to a server and register its tools.

    Args:
        transport: ``{"command": …, "args": […], "env": {…}}`` for a child process, an ``http(s)://`` address or
            ``{"url": …, "headers": {…}}`` for streamable HTTP, or ``{"mcpServers": {name: either}}`` with one server.
        prefix: put in front of the tools' names.
        timeout: seconds one call may take.

    Raises:
        ActionError: the extra is not installed, or the server cannot be reached.
        ActionDefinitionError: ``transport`` is none.
    """
    server = McpServer(transport, timeout=timeout)
    tools = await server.connect()
    for tool in tools:
        hints = tool.annotations
        read_only = bool(hints is not None and hints.read_only_hint)
        repeatable = read_only or bool(hints is not None and hints.idempotent_hint)
        actions.register_action(
            action_id=f"{prefix}{tool.name}",
            desc=tool.description or tool.name,
            kwargs={"properties": {}, **tool.input_schema, "type": "object"},
            executor=McpExecutor(server, tool.name, repeatable=repeatable),
            tags=tags,
            side_effect_level="read" if read_only else "write",
            approval_required=approval_required,
            replay_safe=repeatable,
            meta={"action_type": "mcp", "mcp_server": server.name},
        )

    return server


class McpExecutor:
    """Calls one tool of a server."""

    executor_type = "mcp"
    sandboxed = False

    def __init__(self, server: McpServer, tool: str, *, repeatable: bool) -> None:
        self._server = server
        self._tool = tool
        self._repeatable = repeatable

    async def execute(self, context: ActionContext, kwargs: dict[str, Any]) -> Any:
        return await self._server.call(self._tool, kwargs, repeatable=self._repeatable)


class McpServer:
    """An MCP server: one connection per event loop, opened by :meth:`connect`, opened anew when it was lost, ended by
    :meth:`close`."""

    def __init__(self, transport: Any, *, timeout: float = CALL_SECONDS) -> None:
        self.name, self._transport = _parsed(transport)
        self._timeout = timeout
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = WeakKeyDictionary()

    async def connect(self) -> list[Any]:
        """Open the connection and return the server's tools.

        Raises:
            ActionError: it cannot be reached.
        """
        session = await self._connection().session()
        tools: list[Any] = []
        where = None
        while True:
            page = await session.list_tools(params=where)
            tools += page.tools
            if not page.next_cursor:
                return tools

            where = client_module("mcp.types").PaginatedRequestParams(cursor=page.next_cursor)

    def _connection(self) -> Connection:
        """Return this loop's connection; callers at the same time share one."""
        loop = asyncio.get_running_loop()
        found = self._connections.get(loop)
        if found is None or found.ended:
            found = self._connections[loop] = Connection(self.name, self._transport)

        return found

    async def call(self, tool: str, arguments: Mapping[str, Any], *, repeatable: bool = False) -> Any:
        """Call a tool and return its structured content, else its text.

        Args:
            repeatable: call once more when the connection was lost; else nobody knows whether the call has happened.

        Raises:
            ActionError: the server cannot be reached, or the tool reports an error.
        """
        connection = self._connection()
        try:
            answer = await self._asked(connection, tool, arguments)
        except ActionError:
            raise
        except Exception as problem:
            if await connection.alive():
                raise

            connection.leave()  # the next call connects anew
            if not repeatable:
                raise ActionError(
                    f"the connection to MCP server {self.name!r} was lost during the call of {tool!r} ({problem}); the "
                    "call may or may not have happened, and the next one connects anew"
                ) from problem

            answer = await self._asked(self._connection(), tool, arguments)

        return self._result(tool, answer)

    async def _asked(self, connection: Connection, tool: str, arguments: Mapping[str, Any]) -> Any:
        session = await connection.session()
        return await session.call_tool(tool, dict(arguments), read_timeout_seconds=self._timeout)

    def _result(self, tool: str, answer: Any) -> Any:
        texts = [each.text for each in answer.content if getattr(each, "type", "") == "text"]
        if answer.is_error:
            raise ActionError("\n".join(texts) or f"tool {tool!r} of MCP server {self.name!r} failed")

        structured = answer.structured_content
        if structured is not None:
            return structured["result"] if set(structured) == {"result"} else structured

        others = [each.model_dump(mode="json") for each in answer.content if getattr(each, "type", "") != "text"]
        return [*texts, *others] if others else "\n".join(texts)

    async def close(self) -> None:
        """End the connections, and the child process of a server that is one."""
        ending = [connection.leave() for connection in self._connections.values()]
        self._connections.clear()
        await asyncio.gather(*(task for task in ending if task is not None), return_exceptions=True)


def _parsed(transport: Any) -> tuple[str, Any]:
    """Return a name for a server and how to reach it."""
    if isinstance(transport, Mapping) and isinstance(transport.get("mcpServers"), Mapping):
        servers = dict(transport["mcpServers"])
        if len(servers) != 1:
            raise ActionDefinitionError(f"mcpServers has {len(servers)} servers; register them one by one")

        name, transport = next(iter(servers.items()))
        return str(name), _parsed(transport)[1]

    if isinstance(transport, str) and transport.startswith(("http://", "https://")):
        return transport, {"url": transport}

    if isinstance(transport, Mapping):
        for how in ("url", "command"):
            if isinstance(transport.get(how), str) and transport[how]:
                return transport[how], dict(transport)

    raise ActionDefinitionError(
        f"{described(transport)} is no MCP server: give {{'command': …, 'args': […]}}, an http(s):// address, or "
        "{'url': …, 'headers': {…}}"
    )
