"""The operators a flow is made of, as plain data: what they listen to, what they emit, which code they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from flowdeck.definition.bindings import SubFlow
from flowdeck.definition.retry import Retry

__all__ = ["START", "Case", "Operator", "Trigger", "completion_event", "stable_id"]

START = "START"
"""The event every execution begins with."""


class Trigger(NamedTuple):
    """What starts an operator: an event, or a change of execution state or flow data."""

    type: str
    """``event``, ``runtime_data`` or ``flow_data``."""
    name: str
    """The event's name, or the key that changes."""

    @classmethod
    def event(cls, name: str) -> Trigger:
        return cls("event", name)

    @property
    def id(self) -> str:
        return f"{self.type}:{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One arm of a match: its condition and the event that starts the arm. Frozen: compiled plans share it."""

    id: str
    condition: Any
    """A callable ``(data) -> bool | value``, or a value compared with ``==``."""
    emits: str


@dataclass(slots=True, eq=False)
class Operator:
    """One node of a flow."""

    id: str
    key: str
    """Unique in the flow and stable over edits elsewhere; scopes and snapshots use it."""
    kind: str
    """``chunk``, ``signal_gate``, ``batch_fanout``, ``batch_collect``, ``for_each_split``, ``for_each_collect``,
    ``match_route``, ``match_collect``, ``collect_branch``, ``intervention_point`` or ``sub_flow``."""
    name: str
    emits: str
    """The event of its completion."""
    listens: list[Trigger] = field(default_factory=list)
    group_id: str | None = None
    """The opening operator of the block it belongs to."""
    parent_group_id: str | None = None
    handler: Callable[..., Any] | None = None
    retry: Retry | None = None
    timeout: float | None = None
    """Seconds one attempt may take."""
    replay_safe: bool = True
    concurrency: int = 0
    """How many members of a block may be active at once; 0 is no limit."""
    mode: str = ""
    cases: list[Case] = field(default_factory=list)
    else_emits: str | None = None
    members: list[str] = field(default_factory=list)
    """Chunk ids of a batch, in declaration order."""
    options: dict[str, Any] = field(default_factory=dict)
    declared_emits: list[str] = field(default_factory=list)
    sub_flow: SubFlow | None = None
    place: str = ""
    """``file:line`` where a chunk was first used; for messages only."""

    def copy(self) -> Operator:
        """Return an operator that can be changed without changing this one; handlers and cases are shared."""
        return replace(
            self,
            listens=list(self.listens),
            cases=list(self.cases),
            members=list(self.members),
            options=dict(self.options),
            declared_emits=list(self.declared_emits),
        )

    def listen(self, trigger: Trigger) -> None:
        """Add a trigger; adding one twice changes nothing, so replaying a declaration is safe."""
        if trigger not in self.listens:
            self.listens.append(trigger)


@lru_cache(maxsize=1024)
def completion_event(chunk_name: str, chunk_id: str) -> str:
    """Return the event a chunk's completion emits: the compatible ``Chunk[<name>]-<id>``."""
    return f"Chunk[{chunk_name}]-{chunk_id}"


def stable_id(kind: str, *parts: object) -> str:
    """Return 16 hex digits that are the same in every process that declares the same thing."""
    text = "\x1f".join((kind, *map(str, parts)))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]
