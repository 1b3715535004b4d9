"""A real server on a free port of loopback, in a thread; and readers of what it streams."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from flowdeck.web import FlowService


def free_socket() -> socket.socket:
    """A listening socket; nobody can take its port in between."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(256)
    return listening


def serving(service: FlowService) -> AbstractContextManager[str]:
    """Serve until the end of the block; gives the base address."""
    return serving_app(service.app())


@contextmanager
def serving_app(app: Any, *, send_buffer: int | None = None, **options: Any) -> Iterator[str]:
    """The same of any application; ``options`` are uvicorn's. ``send_buffer``: what the kernel holds for a client."""
    listening = free_socket()
    if send_buffer is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)

    config = uvicorn.Config(app, **{"log_level": "error", "timeout_graceful_shutdown": 2, **options})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"


@dataclass
class Event:
    """One Server-Sent Event."""

    event: str = "message"
    id: str | None = None
    data: Any = None


def events_of(lines: Iterator[str]) -> Iterator[Event]:
    """Parse an event stream, as the specification has it."""
    event, content = Event(), []
    for line in lines:
        if not line:
            if content:
                event.data = json.loads("\n".join(content))
                yield event

            event, content = Event(), []
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event.event = value
            elif name == "id":
                event.id = value
            elif name == "data":
                content.append(value)


@contextmanager
def following(client: httpx.Client, path: str, last: str | None = None) -> Iterator[Iterator[Event]]:
    """Read an event stream."""
    headers = {} if last is None else {"last-event-id": last}
    with client.stream("GET", path, headers=headers, timeout=10) as response:
        assert response.status_code == 200, response.read()
        yield events_of(response.iter_lines())
