"""The tools of an MCP server are actions like any other; a real server answers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.environments.test_processes import gone
from tests.execution.support import World

from flowdeck.actions import ActionDefinitionError, ActionError, ActionRuntime
from flowdeck.execution.services import Services

pytest.importorskip("mcp")
pytestmark = pytest.mark.anyio
SERVER = {"command": sys.executable, "args": [str(Path(__file__).with_name("process_mcp_server.py"))]}


async def test_a_servers_tools(world: World) -> None:
    """They are described by the server, called through it, and fail as records."""
    actions = ActionRuntime(Services(center=world.center))
    server = await actions.async_use_action_mcp({"mcpServers": {"warehouse": SERVER}}, tags="mcp")
    try:
        info = actions.get_action_info("mcp")
        assert set(info) == {"stock", "order", "who"}
        assert (info["stock"]["side_effect_level"], info["stock"]["replay_safe"]) == ("read", True)
        assert (info["order"]["side_effect_level"], info["order"]["replay_safe"]) == ("write", False)
        assert info["order"]["parameters"]["required"] == ["item"] and info["order"]["desc"] == "Order some."
        assert await actions.async_call_action("stock", {"item": "nail"}) == 4
        assert await actions.async_call_action("order", {"item": "nail", "amount": 3}) == {"nail": 3}
        failed = await actions.async_execute_action("order", {"item": "nail", "amount": 11})
        assert failed["status"] == "error" and "too many" in failed["error"]
        wrong = await actions.async_execute_action("order", {"amount": "x"})
        assert wrong["status"] == "error" and "do not fit" in wrong["error"]
        assert world.payloads("action.started")[0]["action_type"] == "mcp"
        lost = await actions.async_execute_action("order", {"item": "nail", "amount": 10})
        assert lost["status"] == "error" and "may or may not have happened" in lost["error"]
        asked = [actions.async_call_action("who") for _ in range(5)]
        found = set(await asyncio.gather(*asked))
        assert len(found) == 1  # connected anew, once for all who ask
        os.kill(next(iter(found)), signal.SIGKILL)
        assert await actions.async_call_action("who") not in found  # what may be repeated is
    finally:
        await server.close()


@asynccontextmanager
async def warehouse(port: int = 0) -> AsyncIterator[tuple[int, list[str | None]]]:
    """Serve the same tools over streamable HTTP; yield the port, and the Authorization header of each request."""
    import uvicorn
    from tests.actions.process_mcp_server import server

    seen: list[str | None] = []
    served = server.streamable_http_app()

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]).get(b"authorization", b"").decode())

        await served(scope, receive, send)

    site = uvicorn.Server(uvicorn.Config(noted, port=port, log_level="error", timeout_graceful_shutdown=1))
    with site.config.bind_socket() as held:
        task = asyncio.create_task(site.serve([held]))
        try:
            yield held.getsockname()[1], seen
        finally:
            site.should_exit = True
            await task


async def test_a_server_over_http(actions: ActionRuntime, world: World) -> None:
    """Streamable HTTP with headers of one's own; a server that comes back is found again, with a new session."""
    actions = ActionRuntime(Services(center=world.center))
    async with warehouse() as (port, seen):
        transport = {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"Authorization": "Bearer t0ken"}}
        server = await actions.async_use_action_mcp({"mcpServers": {"warehouse": transport}}, prefix="w_")
        assert await actions.async_call_action("w_order", {"item": "nail", "amount": 3}) == {"nail": 3}
        assert "too many" in (await actions.async_execute_action("w_order", {"item": "x", "amount": 11}))["error"]
        assert set(seen) == {"Bearer t0ken"} and server.name == "warehouse"

    away = await actions.async_execute_action("w_stock", {"item": "nail"})
    assert away["status"] == "error" and "MCP server 'warehouse' cannot be reached" in away["error"]
    async with warehouse(port):
        assert await actions.async_call_action("w_stock", {"item": "nail"}) == 4
        await actions.async_close()

    assert not any("t0ken" in str(world.payloads(name)) for name in set(world.types("")))


def test_a_server_does_not_outlive_its_owner(tmp_path: Path) -> None:
    """kill -9 of the owner ends a server that ignores the end of its input, and leaves no file behind."""
    owner = f"""
import asyncio, sys
from flowdeck.actions import ActionRuntime
async def main():
    actions = ActionRuntime()
    await actions.async_use_action_mcp({{**{SERVER!r}, "env": {{"STUBBORN": "1"}}}})
    print(await actions.async_call_action("who"), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    held = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True, env=environment)
    assert held.stdout is not None
    pid = int(held.stdout.readline())
    held.kill()
    held.communicate()
    assert gone([pid]) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("transport", [3, "ls", {}, {"command": ""}, {"mcpServers": {}}])
async def test_what_is_no_server(actions: ActionRuntime, transport: Any) -> None:
    """A transport that is none is refused by name."""
    with pytest.raises(ActionDefinitionError, match="is no MCP server|register them one by one"):
        await actions.async_use_action_mcp(transport)


async def test_a_server_that_cannot_be_reached(actions: ActionRuntime) -> None:
    """The error names the server."""
    with pytest.raises(ActionError, match="MCP server 'no-such-server' cannot be reached: there is no command"):
        await actions.async_use_action_mcp({"command": "no-such-server"})
