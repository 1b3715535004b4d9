"""The tools of an MCP server are actions like any other; a real server answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
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
        assert set(info) == {"stock", "order"}
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
    finally:
        await server.close()

    assert await actions.async_call_action("stock", {"item": "bolt"}) == 4  # connected anew
    await server.close()


@pytest.mark.parametrize("transport", [3, "ls", {}, {"command": ""}, {"mcpServers": {}}])
async def test_what_is_no_server(actions: ActionRuntime, transport: Any) -> None:
    """A transport that is none is refused by name."""
    with pytest.raises(ActionDefinitionError, match="is no MCP server|register them one by one"):
        await actions.async_use_action_mcp(transport)


async def test_a_server_that_cannot_be_reached(actions: ActionRuntime) -> None:
    """The error names the server."""
    with pytest.raises(ActionError, match="MCP server 'no-such-server' cannot be reached"):
        await actions.async_use_action_mcp({"command": "no-such-server"})
