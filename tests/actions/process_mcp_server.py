"""A small MCP server over standard input and output, made with the official library."""

from __future__ import annotations

import os
import time

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("warehouse")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def stock(item: str) -> int:
    """How many there are."""
    return len(item)


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def who() -> int:
    """Whose answer it is."""
    return os.getpid()


@server.tool()
def order(item: str, amount: int = 1) -> dict[str, int]:
    """Order some."""
    if amount == 10:
        os._exit(1)

    if amount > 10:
        raise ToolError("too many")

    return {item: amount}


if __name__ == "__main__":
    server.run("stdio")
    if os.environ.get("STUBBORN"):  # it does not care that nobody listens any more
        time.sleep(600)
