"""A flow's definition while it is being declared: its operators, and the chunks one can refer to."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from flowdeck.definition.bindings import is_flow
from flowdeck.definition.handlers import same_handler, where
from flowdeck.definition.operators import Operator, Trigger, completion_event, stable_id
from flowdeck.definition.refs import Registry, handler_ref
from flowdeck.errors import DefinitionError

__all__ = ["CONFIG_VERSION", "Blueprint", "Chunk", "call_site", "place_of", "user_frame"]

CONFIG_VERSION = "trigger_flow/v1"


@dataclass(slots=True, eq=False)
class Chunk:
    """A named handler of a flow. ``trigger`` is the event of its completion."""

    id: str
    name: str
    handler: Callable[..., Any]
    trigger: str
    emits: list[str] = field(default_factory=list)
    named: bool = False
    """The user gave the name, so configs refer to the handler by it."""

    @property
    def emit_signals(self) -> list[dict[str, Any]]:
        """What it emits, as in a config: its completion (role ``continuation``), and what was declared."""
        roles = {self.trigger: "continuation", **dict.fromkeys(self.emits, "declared_emit")}
        return [
            {"id": f"event:{event}", "trigger_type": "event", "trigger_event": event, "role": role}
            for event, role in roles.items()
        ]

    @property
    def callable_ref(self) -> dict[str, Any] | None:
        """How the handler is named outside the process, as in a config."""
        return handler_ref(self.handler, self.name if self.named else None)

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
    frame = user_frame(depth + 1)
    if frame is None:
        return "?"

    code = frame.f_code
    return f"{frame.f_globals.get('__name__')}:{code.co_qualname}:{frame.f_lineno}:{frame.f_lasti}"


def user_frame(depth: int = 1) -> FrameType | None:
    """Return the innermost frame that is not the builder's own."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        ("flowdeck.definition", "flowdeck.triggerflow", "flowdeck.compat")
    ):
        frame = frame.f_back

    return frame


def place_of(frame: FrameType | None) -> str:
    """Return ``file:line`` of a frame."""
    return "?" if frame is None else f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


class Blueprint:
    """The operators of one flow. Mutable while the flow is declared; a :class:`Plan` is compiled from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.operators: dict[str, Operator] = {}
        self.chunks: dict[str, Chunk] = {}
        """By name."""
        self.version = 0
        """Rises with every change, so that a compiled plan knows when it is stale."""
        self.handlers = Registry("chunk")
        """Handlers a config may refer to by name; so it may to :attr:`chunks` with names of their own."""
        self.conditions = Registry("condition")
        self.meta: dict[str, Any] = {}
        """What an imported config carried under ``meta``."""
        self.contract: dict[str, Any] = {}
        """The contract an imported config described; it is not enforced."""
        self._keys: dict[str, str] = {}
        self._anonymous: dict[str, int] = {}

    def copy(self) -> Blueprint:
        """Return an independent blueprint with the same operators, callables and registered names."""
        copied = type(self)(self.name)
        copied.operators = {key: op.copy() for key, op in self.operators.items()}
        for name, chunk in self.chunks.items():
            made = copied.chunks[name] = replace(chunk, emits=list(chunk.emits))
            if chunk.id in copied.operators:
                copied.operators[chunk.id].declared_emits = made.emits

        copied.handlers, copied.conditions = self.handlers.copy(), self.conditions.copy()
        copied.meta, copied.contract = dict(self.meta), dict(self.contract)
        copied._keys, copied._anonymous = dict(self._keys), dict(self._anonymous)
        return copied

    def become(self, other: Blueprint) -> None:
        """Take over everything of ``other``. Positions that users hold stay valid: they point at this object."""
        version = self.version
        self.__dict__.update(other.copy().__dict__)
        self.version = version + 1

    def find_handler(self, name: str) -> Callable[..., Any] | None:
        """Return the handler a config means by ``name``: a registered one, or that of a chunk with such a name."""
        found = self.handlers.find(name)
        if found is None and name in self.chunks and self.chunks[name].named:
            found = self.chunks[name].handler

        return found

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

        if is_flow(handler):
            raise DefinitionError(
                f"flow {handler.name!r} stands where a chunk belongs; use to_sub_flow(), or to() outside a batch"
            )

        if not callable(handler):
            raise DefinitionError(f"to({handler!r}): expected a handler, a chunk or the name of a chunk")

        return self._named_chunk(handler, name) if name else self._implicit_chunk(handler)

    def _named_chunk(self, handler: Callable[..., Any], name: str) -> Chunk:
        known = self.chunks.get(name)
        if known is None:
            return self._new_chunk(stable_id("chunk", name), name, handler, named=True)

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

    def _new_chunk(self, chunk_id: str, name: str, handler: Callable[..., Any], *, named: bool = False) -> Chunk:
        op_id = f"chunk-{chunk_id}"
        chunk = Chunk(op_id, name, handler, completion_event(name, op_id), named=named)
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

    def leads_to(self, operator: Operator, trigger: Trigger) -> bool:
        """Whether a value that leaves ``operator`` can come to ``trigger`` through the steps declared so far."""
        listening: dict[Trigger, list[Operator]] = {}
        for op in self.operators.values():
            for heard in op.listens:
                listening.setdefault(heard, []).append(op)

        seen: set[str] = set()
        ahead = [operator]
        while ahead:
            op = ahead.pop()
            if op.id in seen:
                continue

            seen.add(op.id)
            events = [op.emits, *(case.emits for case in op.cases), *([op.else_emits] if op.else_emits else [])]
            for emitted in map(Trigger.event, events):
                if emitted == trigger:
                    return True

                ahead += listening.get(emitted, ())

        return False

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


class BlockNotFound(DefinitionError, NotImplementedError):
    """A chunk is referred to by a name no chunk has."""
