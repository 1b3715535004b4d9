"""A flow's definition while it is being declared: its operators, and the chunks one can refer to."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from flowdeck.definition.bindings import ChildFlow
from flowdeck.definition.handlers import same_handler, where
from flowdeck.definition.operators import Operator, Trigger, completion_event, stable_id
from flowdeck.errors import DefinitionError

__all__ = ["Blueprint", "Chunk", "call_site"]

CONFIG_VERSION = "trigger_flow/v1"


@dataclass(slots=True, eq=False)
class Chunk:
    """A named handler of a flow. ``trigger`` is the event of its completion."""

    id: str
    name: str
    handler: Callable[..., Any]
    trigger: str
    emits: list[str] = field(default_factory=list)

    def declare_emits(self, *events: str) -> Chunk:
        """Say which events the handler emits; used by diagrams and exports only."""
        for event in events:
            if not isinstance(event, str):
                raise TypeError(f"chunk {self.name!r}: declare_emits takes event names, got {event!r}")

            if event not in self.emits:
                self.emits.append(event)

        return self


def call_site(depth: int = 1) -> str:
    """Identify the line of user code that calls a builder method, so that replaying it is recognised.

    The position inside the line counts too: two conditions written on one line are two.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        ("flowdeck.definition", "flowdeck.triggerflow", "flowdeck.compat")
    ):
        frame = frame.f_back

    if frame is None:
        return "?"

    code = frame.f_code
    return f"{frame.f_globals.get('__name__')}:{code.co_qualname}:{frame.f_lineno}:{frame.f_lasti}"


class Blueprint:
    """The operators of one flow. Mutable while the flow is declared; a :class:`Plan` is compiled from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.operators: dict[str, Operator] = {}
        self.chunks: dict[str, Chunk] = {}
        """By name."""
        self.version = 0
        """Rises with every change, so that a compiled plan knows when it is stale."""
        self._keys: dict[str, str] = {}
        self._anonymous: dict[str, int] = {}

    def add(self, operator: Operator) -> Operator:
        """Add ``operator``; declaring the same one again returns the first."""
        known = self.operators.get(operator.id)
        self.version += 1
        if known is None:
            self.operators[operator.id] = operator
            return operator

        if known.kind != operator.kind or known.name != operator.name:
            raise DefinitionError(
                f"{operator.kind} {operator.name!r} is declared as {known.kind} {known.name!r} elsewhere"
            )

        return known

    def unique_key(self, operator_id: str, base: str) -> str:
        """Return ``base``, or ``base~k`` when an operator declared earlier has it."""
        key, k = base, 0
        while self._keys.setdefault(key, operator_id) != operator_id:
            k += 1
            key = f"{base}~{k}"

        return key

    def chunk(self, handler: Any, name: str | None = None) -> Chunk:
        """Return the chunk for a handler, a ``(name, handler)`` pair, a chunk, or the name of one."""
        if isinstance(handler, Chunk):
            return handler

        if isinstance(handler, str):
            if handler not in self.chunks:
                raise BlockNotFound(f"flow {self.name!r} has no chunk named {handler!r}")

            return self.chunks[handler]

        if isinstance(handler, tuple):
            if len(handler) != 2 or not isinstance(handler[0], str):
                raise DefinitionError(f"expected (name, handler), got {handler!r}")

            name, handler = handler

        if isinstance(handler, ChildFlow):
            raise DefinitionError(
                f"flow {handler.name!r} stands where a chunk belongs; use to_sub_flow(), or to() outside a batch"
            )

        if not callable(handler):
            raise DefinitionError(f"to({handler!r}): expected a handler, a chunk or the name of a chunk")

        return self._named_chunk(handler, name) if name else self._implicit_chunk(handler)

    def _named_chunk(self, handler: Callable[..., Any], name: str) -> Chunk:
        known = self.chunks.get(name)
        if known is None:
            return self._new_chunk(stable_id("chunk", name), name, handler)

        if not same_handler(known.handler, handler, named=True):
            raise DefinitionError(
                f"chunk {name!r} is bound to another handler already ({where(known.handler)}); choose another name"
            )

        return self._renew(known, handler)

    def _implicit_chunk(self, handler: Callable[..., Any]) -> Chunk:
        """Name a chunk after its function. Another function of that name becomes ``name~1``, ``name~2`` ..."""
        base = getattr(handler, "__name__", type(handler).__name__)
        place = where(handler)
        if base == "<lambda>":
            # Every anonymous lambda is a step of its own; counting keeps its id the same in every process.
            nth = self._anonymous[place] = self._anonymous.get(place, 0) + 1
            chunk_id = stable_id("chunk", "lambda", place, nth)
            return self._new_chunk(chunk_id, f"lambda-{chunk_id[:6]}", handler)

        name, k = base, 0
        while (known := self.chunks.get(name)) is not None:
            if same_handler(known.handler, handler):
                return self._renew(known, handler)

            k += 1
            name = f"{base}~{k}"

        return self._new_chunk(stable_id("chunk", name, place), name, handler)

    def _new_chunk(self, chunk_id: str, name: str, handler: Callable[..., Any]) -> Chunk:
        op_id = f"chunk-{chunk_id}"
        chunk = Chunk(op_id, name, handler, completion_event(name, op_id))
        self.chunks[name] = chunk
        return chunk

    def _renew(self, chunk: Chunk, handler: Callable[..., Any]) -> Chunk:
        """The same step is declared again, by a reloaded module perhaps: its newest code counts from now on."""
        if chunk.handler is not handler:
            chunk.handler = handler
            op = self.operators.get(chunk.id)
            if op is not None:
                op.handler = handler
                self.version += 1

        return chunk

    def listening(self, trigger: Trigger) -> list[Operator]:
        """Return the operators that ``trigger`` starts, in declaration order."""
        return [op for op in self.operators.values() if trigger in op.listens]

    def fingerprint(self) -> str:
        """Return 16 hex digits of the topology: names and edges, not handler bodies or line numbers."""
        names = {Trigger.event(op.emits): op.key for op in self.operators.values()}
        for op in self.operators.values():
            for k, case in enumerate(op.cases):
                names[Trigger.event(case.emits)] = f"{op.key}.case{k}"

            if op.else_emits:
                names[Trigger.event(op.else_emits)] = f"{op.key}.else"

        lines = sorted(
            f"{op.key}|{op.kind}|{op.mode}|{','.join(sorted(names.get(t, t.id) for t in op.listens))}"
            for op in self.operators.values()
        )
        return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Return the definition as JSON-safe data: what ``definition_declared`` carries."""
        return {
            "version": CONFIG_VERSION,
            "name": self.name,
            "operators": [_describe(op, self) for op in self.operators.values()],
        }


class BlockNotFound(DefinitionError, NotImplementedError):
    """A chunk is referred to by a name no chunk has."""


def _describe(op: Operator, blueprint: Blueprint) -> dict[str, Any]:
    emits = [{"trigger_type": "event", "trigger_event": op.emits, "role": "continuation"}]
    emits += [{"trigger_type": "event", "trigger_event": c.emits, "role": "case"} for c in op.cases]
    if op.else_emits:
        emits.append({"trigger_type": "event", "trigger_event": op.else_emits, "role": "else"})

    emits += [{"trigger_type": "event", "trigger_event": e, "role": "declared_emit"} for e in op.declared_emits]
    group = blueprint.operators.get(op.group_id or "")
    parent = blueprint.operators.get(op.parent_group_id or "")
    options: dict[str, Any] = dict(op.options)
    if op.mode:
        options["mode"] = op.mode

    if op.concurrency:
        options["concurrency"] = op.concurrency

    if op.retry is not None:
        options["retry"] = {"attempts": op.retry.attempts, "backoff": op.retry.backoff}

    if op.timeout is not None:
        options["timeout"] = op.timeout

    return {
        "id": op.id,
        "key": op.key,
        "kind": op.kind,
        "name": op.name,
        "listen_signals": [{"id": t.id, "trigger_type": t.type, "trigger_event": t.name} for t in op.listens],
        "emit_signals": [{"id": f"event:{e['trigger_event']}", **e} for e in emits],
        "options": options,
        "group_id": op.group_id,
        "group_kind": group.kind.split("_")[0] if group else None,
        "parent_group_id": op.parent_group_id,
        "parent_group_kind": parent.kind.split("_")[0] if parent else None,
    }
