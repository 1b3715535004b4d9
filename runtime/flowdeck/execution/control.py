"""The control plane as an execution sees it: where open work is registered and from where answers arrive.

The protocol lives with its consumer; :mod:`flowdeck.durable` implements it over ``state.db``. Every method returns at
once and never raises: control is not allowed to slow or break a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

__all__ = ["ControlPlane", "Controlled", "InboxRow"]


class InboxRow(msgspec.Struct, frozen=True):
    """One request from outside: resume, emit, intervene, cancel, start or timer."""

    id: int
    execution_id: str
    kind: str
    target: str | None
    """The interrupt id (resume), the event name (emit), or ``None``."""
    payload: Any
    dedup_key: str
    actor: str | None
    created_us: int
    """Microseconds since the Unix epoch."""


class Controlled(Protocol):
    """An execution as the control plane sees it."""

    @property
    def id(self) -> str: ...

    def deliver(self, row: InboxRow) -> None:
        """Take one inbox row. Called from another thread; the execution applies it on its own loop and acks it."""


class ControlPlane(Protocol):
    """Registers what is open and carries requests in. Implementations queue; no method blocks or raises."""

    def opened(self, execution: Controlled, info: Mapping[str, Any]) -> None: ...

    def status(self, execution_id: str, status: str) -> None: ...

    def interrupt_opened(self, execution_id: str, interrupt: Mapping[str, Any]) -> None: ...

    def interrupt_closed(
        self, execution_id: str, interrupt_id: str, status: str, response: Any, actor: str | None
    ) -> None: ...

    def ack(self, row_id: int, outcome: str, detail: str | None) -> None: ...

    def finished(self, execution_id: str, status: str) -> None: ...

    def flush(self, timeout: float) -> bool: ...

    def close(self, timeout: float) -> None: ...
