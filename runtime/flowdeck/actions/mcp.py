"""MCP servers as sources of actions, through the official client (extra ``mcp``).

One connection per server, kept open by a task of its own, since the client's contexts must be entered and left in one
task. Its tools become actions with ``action_type`` ``mcp``; ``readOnlyHint`` and ``idempotentHint`` decide their
side-effect level and whether a call may be repeated after a crash. Source: Model Context Protocol, tools.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from flowdeck.actions.context import ActionContext
from flowdeck.errors import ActionDefinitionError, ActionError

if TYPE_CHECKING:
    from flowdeck.actions.runtime import ActionRuntime

__all__ = ["McpServer", "use_server"]

CONNECT_SECONDS: Final = 30.0
CALL_SECONDS: Final = 60.0


def _client(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise ActionError(f"MCP servers need the extra 'mcp': pip install 'flowdeck[mcp]' ({problem})") from problem


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
        transport: ``{"command": …, "args": […], "env": {…}}`` for a child process, an ``http(s)://`` address for
            streamable HTTP, or ``{"mcpServers": {name: either}}`` with one server.
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
        actions.register_action(
            action_id=f"{prefix}{tool.name}",
            desc=tool.description or tool.name,
            kwargs={"properties": {}, **tool.input_schema, "type": "object"},
            executor=McpExecutor(server, tool.name),
            tags=tags,
            side_effect_level="read" if read_only else "write",
            approval_required=approval_required,
            replay_safe=read_only or bool(hints is not None and hints.idempotent_hint),
            meta={"action_type": "mcp", "mcp_server": server.name},
        )

    return server


class McpExecutor:
    """Calls one tool of a server."""

    executor_type = "mcp"
    sandboxed = False

    def __init__(self, server: McpServer, tool: str) -> None:
        self._server = server
        self._tool = tool

    async def execute(self, context: ActionContext, kwargs: dict[str, Any]) -> Any:
        return await self._server.call(self._tool, kwargs)


class McpServer:
    """A connection to one MCP server; opened by :meth:`connect`, opened anew when it was lost, ended by
    :meth:`close`."""

    def __init__(self, transport: Any, *, timeout: float = CALL_SECONDS) -> None:
        self.name, self._transport = _parsed(transport)
        self._timeout = timeout
        self._session: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()

    async def connect(self) -> list[Any]:
        """Open the connection and return the server's tools.

        Raises:
            ActionError: it cannot be reached.
        """
        session = await self._connected()
        tools: list[Any] = []
        where = None
        while True:
            page = await session.list_tools(params=where)
            tools += page.tools
            if not page.next_cursor:
                return tools

            where = _client("mcp.types").PaginatedRequestParams(cursor=page.next_cursor)

    async def _connected(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop and self._keeper is not None and not self._keeper.done():
            return self._session

        self._loop, self._leave = loop, asyncio.Event()
        ready: asyncio.Future[Any] = loop.create_future()
        self._keeper = loop.create_task(self._keep(ready, self._leave))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._session = await asyncio.shield(ready)
        except TimeoutError as problem:
            self._leave.set()
            self._keeper.cancel()
            raise ActionError(f"MCP server {self.name!r} did not answer within {CONNECT_SECONDS} s") from problem

        return self._session

    async def _keep(self, ready: asyncio.Future[Any], leave: asyncio.Event) -> None:
        try:
            async with AsyncExitStack() as stack:
                read, write = await stack.enter_async_context(self._streams())
                session = await stack.enter_async_context(_client("mcp").ClientSession(read, write))
                await session.initialize()
                ready.set_result(session)
                await leave.wait()
        except BaseException as problem:
            if not ready.done():
                ready.set_exception(
                    problem
                    if isinstance(problem, ActionError)
                    else ActionError(f"MCP server {self.name!r} cannot be reached: {type(problem).__name__}: {problem}")
                )
        finally:
            self._session = None

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        if isinstance(self._transport, str):
            connect = _client("mcp.client.streamable_http").streamable_http_client
            async with connect(self._transport) as (read, write, *_):
                yield read, write
        else:
            stdio = _client("mcp.client.stdio")
            spec = self._transport
            parameters = stdio.StdioServerParameters(
                command=spec["command"], args=list(spec.get("args") or ()), env=spec.get("env"), cwd=spec.get("cwd")
            )
            async with stdio.stdio_client(parameters) as (read, write):
                yield read, write

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool and return its structured content, else its text.

        Raises:
            ActionError: the server cannot be reached, or the tool reports an error.
        """
        session = await self._connected()
        answer = await session.call_tool(tool, dict(arguments), read_timeout_seconds=self._timeout)
        texts = [each.text for each in answer.content if getattr(each, "type", "") == "text"]
        if answer.is_error:
            raise ActionError("\n".join(texts) or f"tool {tool!r} of MCP server {self.name!r} failed")

        structured = answer.structured_content
        if structured is not None:
            return structured["result"] if set(structured) == {"result"} else structured

        others = [each.model_dump(mode="json") for each in answer.content if getattr(each, "type", "") != "text"]
        return [*texts, *others] if others else "\n".join(texts)

    async def close(self) -> None:
        """End the connection, and the child process of a server that is one."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None and self._loop is asyncio.get_running_loop():
            self._leave.set()
            await asyncio.gather(keeper, return_exceptions=True)


def _parsed(transport: Any) -> tuple[str, Any]:
    """Return a name for a server and how to reach it."""
    if isinstance(transport, Mapping) and isinstance(transport.get("mcpServers"), Mapping):
        servers = dict(transport["mcpServers"])
        if len(servers) != 1:
            raise ActionDefinitionError(f"mcpServers has {len(servers)} servers; register them one by one")

        name, transport = next(iter(servers.items()))
        return str(name), _parsed(transport)[1]

    if isinstance(transport, Mapping):
        if isinstance(transport.get("url"), str):
            transport = transport["url"]
        elif isinstance(transport.get("command"), str) and transport["command"]:
            return transport["command"], dict(transport)

    if isinstance(transport, str) and transport.startswith(("http://", "https://")):
        return transport, transport

    raise ActionDefinitionError(
        f"{transport!r} is no MCP server: give {{'command': …, 'args': […]}}, or an http(s):// address"
    )
