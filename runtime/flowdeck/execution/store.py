"""The execution store as an execution sees it: where its inputs are committed.

The protocol lives with its consumer; :mod:`flowdeck.durable` implements it over memory and over ``state.db``, and adds
what hosts and other processes need (claims, lists, the inbox). An execution only ever appends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

__all__ = ["Commit", "CommitStore", "Done"]

Done = Callable[[BaseException | None], None]
"""Told once per commit, in the order of submission, on any thread: ``None`` when it is committed, else why not."""


class Commit(msgspec.Struct):
    """What one execution wants written in one transaction.

    ``seq`` and ``token`` are the fence: the store refuses a commit that does not continue exactly what it holds, or
    whose token is not the present one.
    """

    execution_id: str
    token: int
    """Rises with every claim; also the execution's epoch."""
    seq: int
    """Inputs the store must hold before this commit."""
    count: int = 0
    """Inputs in ``body``."""
    body: bytes = b""
    """msgpack of ``[time in us, [input, ...]]``; empty when only ``changes`` are written."""
    header: bytes | None = None
    """msgpack of what the execution began with; given once, with the first commit. Creates the execution."""
    definitions: tuple[tuple[str, bytes], ...] = ()
    """Skeletons of plans by digest, each given before the first input that needs it."""
    definition: str = ""
    """Digest of the plan the inputs belong to; given with ``header`` and with ``snapshot``."""
    snapshot: bytes | None = None
    """msgpack of the state after these inputs; with it the store may drop older snapshots, never inputs."""
    base: bool = False
    """The snapshot begins a new definition: inputs after it belong to that one, so it is kept."""
    changes: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Calls of the :class:`~flowdeck.execution.control.ControlPlane`, to be written in the same transaction."""
    parked: bool = False
    """Nothing runs: the execution can be dropped from memory and taken up when a request comes, or at ``wake_us``."""
    wake_us: int | None = None
    """When a parked execution has something to do by itself, in microseconds since the Unix epoch."""
    finished: bool = False
    """It is closed; nothing will follow."""
    resource_keys: tuple[str, ...] | None = None
    """Names of the runtime resources whoever takes it up has to bring, when they have changed."""


class CommitStore(Protocol):
    """Takes commits of many executions and writes them in order, several in one transaction."""

    @property
    def gated(self) -> bool:
        """Whether handlers and stream items wait for commits; without, commits happen when a run parks or ends."""

    def submit(self, commit: Commit, done: Done) -> None:
        """Queue a commit. Never blocks and never raises; what goes wrong is told to ``done``."""

    def rests(self, execution: Any, wake_us: int | None) -> None:
        """An execution has come to rest, and that is committed; ``wake_us`` is -1 when it stirs again.

        Called on its loop. Whoever hosts it may let it go and take it up again later. Also called when it is closed
        or was taken over by another process: then it is nobody's here.
        """

    async def reopen(self, flow: Any, execution_id: str) -> Any:
        """Return the handle of an execution that is there already, taking it up if nobody runs it; else ``None``."""

    def hosts(self, execution: Any) -> None:
        """An execution of this process becomes durable. Called once, before its first commit."""
