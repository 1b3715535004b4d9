"""Run lineage: which run an event belongs to, and whose child that run is.

A run is one attempt of something: an execution, a chunk attempt, a request, an action. :class:`RunContext` names it.
Reading goes through properties, because the hot path (:meth:`RunContext.attempt`, one per chunk) only stores a
serial, its parent and a pre-encoded static part; ids and bytes are made when somebody reads them.

The current run travels in :data:`current_run`; identity values (``task_id``, ``tenant_id``, ``user_id``,
``trace_id``) put in by :func:`run_context` enter the meta of every run created inside the block and pass to its
children.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import msgspec

from flowdeck.events.encoding import encode
from flowdeck.events.ids import format_id, next_serial

__all__ = [
    "INHERITED",
    "Fragment",
    "RunContext",
    "ambient",
    "current_run",
    "enter_session",
    "run_context",
    "run_scope",
]

INHERITED: Final = ("task_id", "tenant_id", "user_id", "trace_id", "traceparent", "console")
"""The meta keys every child inherits, also on the fast path."""

_ID_NAMES: Final = ("agent_id", "agent_name", "session_id", "response_id", "execution_id")
_Ids = tuple[str | None, str | None, str | None, str | None, str | None]
_NO_IDS: Final[_Ids] = (None, None, None, None, None)


class Fragment:
    """A static mapping and its JSON, encoded once: the part of a payload or meta that never changes."""

    __slots__ = ("inner", "isdisjoint", "keys", "mapping", "opening", "text")

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self.mapping: dict[str, Any] = dict(mapping)
        self.inner: bytes = encode(self.mapping)[1:-1]
        """The object without its braces; empty for an empty mapping."""
        self.opening: bytes = b"{" + self.inner + b"," if self.inner else b""
        """The object's start, ready for more members; empty for an empty mapping."""
        self.text = self.inner.decode()
        self.keys = frozenset(self.mapping)
        self.isdisjoint = self.keys.isdisjoint
        """Whether another mapping shares no key with this one."""

    def __repr__(self) -> str:
        return f"Fragment({self.mapping!r})"


class RunContext(msgspec.Struct, gc=False, eq=False):
    """One run and its place in the tree of runs.

    Make a root with :meth:`create`, a child with :meth:`create_child`. Treat it as immutable; :attr:`meta` is a copy.
    Source: seed 004, field ``run``; the reference's RunContext.
    """

    run_kind: str
    _serial: int
    _parent: RunContext | None = None
    _static: Fragment | None = None
    _ids: _Ids = _NO_IDS
    _meta: Mapping[str, Any] | None = None
    _run_id: str | None = None
    _root_run_id: str | None = None
    _parent_run_id: str | None = None
    _encoded: bytes | None = None
    _raw: msgspec.Raw | None = None
    _inherited: Fragment | None = None
    _child_part: str | None = None
    _ambient: Mapping[str, Any] | None = None

    @classmethod
    def create(
        cls,
        *,
        run_kind: str,
        run_id: str | None = None,
        parent: RunContext | None = None,
        root_run_id: str | None = None,
        parent_run_id: str | None = None,
        agent_id: str | None = None,
        agent_name: str | None = None,
        session_id: str | None = None,
        response_id: str | None = None,
        execution_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> RunContext:
        """Return a new run. With ``parent`` it inherits root, agent, session, response and execution ids and meta."""
        ids: _Ids = (agent_id, agent_name, session_id, response_id, execution_id)
        merged: Any = None
        if parent is not None:
            ids = tuple(  # type: ignore[assignment]
                own if own is not None else inherited for own, inherited in zip(ids, parent._ids, strict=True)
            )
            merged = parent.meta

        ambient = _ambient.get()
        if ambient:
            if merged is None:
                merged = {}

            known = _ambient_of(parent)
            fresh = {key: value for key, value in ambient.items() if known.get(key, _NOTHING) != value}
            session = fresh.pop("session_id", None)  # an id of the run, no meta
            merged.update(fresh)
            if session is not None and session_id is None:
                ids = (*ids[:2], session, *ids[3:])

        if not merged and type(meta) is MappingProxyType:
            merged = meta  # what nobody can change is shared by all runs that are given it
        elif meta:
            merged = {**(merged or {}), **meta}

        serial = 0 if run_id is not None else next_serial()
        made = cls(run_kind, serial, parent, None, ids, merged, run_id, root_run_id, parent_run_id)
        if ambient:
            made._ambient = ambient

        return made

    def create_child(
        self,
        *,
        run_kind: str,
        run_id: str | None = None,
        agent_id: str | None = None,
        agent_name: str | None = None,
        session_id: str | None = None,
        response_id: str | None = None,
        execution_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> RunContext:
        """Return a run below this one; what is not given is inherited, this run's meta lies under ``meta``."""
        return RunContext.create(
            run_kind=run_kind,
            run_id=run_id,
            parent=self,
            agent_id=agent_id,
            agent_name=agent_name,
            session_id=session_id,
            response_id=response_id,
            execution_id=execution_id,
            meta=meta,
        )

    @staticmethod
    def attempt(parent: RunContext, run_kind: str, static: Fragment) -> RunContext:
        """Return a child of ``parent`` whose meta is ``static`` plus the :data:`INHERITED` keys. The fast path."""
        return RunContext(run_kind, next_serial(), parent, static, parent._ids)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> RunContext:
        """Return the run described by a mapping with the wire's keys; unknown keys are ignored.

        Raises:
            ValueError: an id is not text, or ``meta`` is not a mapping.
        """
        texts: dict[str, Any] = {}
        for name in ("run_id", "run_kind", "root_run_id", "parent_run_id", *_ID_NAMES):
            value = mapping.get(name)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"run.{name} must be text, not {type(value).__name__}")

            texts[name] = value

        meta = mapping.get("meta")
        if meta is not None and not isinstance(meta, Mapping):
            raise ValueError(f"run.meta must be a mapping, not {type(meta).__name__}")

        texts["run_kind"] = texts["run_kind"] or "run"
        return cls.create(meta=meta, **texts)

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self._run_id or format_id(self._serial)

    @property
    def root_run_id(self) -> str:
        """The id of the topmost run; a root's own id."""
        if self._root_run_id is not None:
            return self._root_run_id

        return self.run_id if self._parent is None else self._parent.root_run_id

    @property
    def parent_run_id(self) -> str | None:
        """The id of the run above, ``None`` for a root."""
        if self._parent_run_id is not None:
            return self._parent_run_id

        return None if self._parent is None else self._parent.run_id

    @property
    def parent(self) -> RunContext | None:
        """The run above when it is known in this process."""
        return self._parent

    @property
    def agent_id(self) -> str | None:
        """The agent that runs."""
        return self._ids[0]

    @property
    def agent_name(self) -> str | None:
        """The agent's name."""
        return self._ids[1]

    @property
    def session_id(self) -> str | None:
        """The session active when the run began."""
        return self._ids[2]

    @property
    def response_id(self) -> str | None:
        """The model response the run belongs to."""
        return self._ids[3]

    @property
    def execution_id(self) -> str | None:
        """The flow execution the run belongs to."""
        return self._ids[4]

    @property
    def meta(self) -> dict[str, Any]:
        """The run's meta, a new dict."""
        if self._static is not None:
            parent = self._parent
            inherited = {} if parent is None else parent._inheritance().mapping
            return {**inherited, **self._static.mapping}

        return dict(self._meta) if self._meta else {}

    @property
    def encoded(self) -> bytes:
        """The run as a JSON object, encoded once and shared by all its events. Null fields are left out."""
        if self._encoded is None:
            self._encoded = self._encode_attempt() if self._static is not None else encode(self.to_dict())

        return self._encoded

    @property
    def raw(self) -> msgspec.Raw:
        """:attr:`encoded` as msgspec embeds it."""
        if self._raw is None:
            self._raw = msgspec.Raw(self.encoded)

        return self._raw

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form; null fields are left out."""
        out: dict[str, Any] = {
            "run_id": self.run_id,
            "run_kind": self.run_kind,
            "root_run_id": self.root_run_id,
        }
        parent_run_id = self.parent_run_id
        if parent_run_id is not None:
            out["parent_run_id"] = parent_run_id

        out.update((name, value) for name, value in zip(_ID_NAMES, self._ids, strict=True) if value is not None)
        out["meta"] = self.meta
        return out

    def __repr__(self) -> str:
        return f"RunContext({self.run_kind!r}, run_id={self.run_id!r}, parent_run_id={self.parent_run_id!r})"

    def inherited(self, key: str) -> Any:
        """Return one of the :data:`INHERITED` values of this run, ``None`` for nothing. Cheap, also for an attempt."""
        run = self._parent if self._static is not None else self
        return None if run is None else run._inheritance().mapping.get(key)

    def _inheritance(self) -> Fragment:
        """What children on the fast path take over from this run's meta."""
        if self._inherited is None:
            meta = self.meta
            inherited: dict[str, Any] = {key: meta[key] for key in INHERITED if key in meta}
            self._inherited = Fragment(inherited) if inherited else _NO_INHERITANCE

        return self._inherited

    def _encode_attempt(self) -> bytes:
        parent = self._parent
        static = self._static
        if parent is None or static is None or self._run_id is not None:
            return encode(self.to_dict())

        if parent._child_part is None:
            shared: dict[str, Any] = {"root_run_id": parent.root_run_id, "parent_run_id": parent.run_id}
            shared.update((n, v) for n, v in zip(_ID_NAMES, parent._ids, strict=True) if v is not None)
            inherited = parent._inheritance()
            head = encode(shared)[1:-1] + b',"meta":{' + inherited.inner
            parent._child_part = (head + b"," if inherited.inner else head).decode()

        if not static.inner or not parent._inheritance().isdisjoint(static.keys):
            return encode(self.to_dict())

        # Text is formatted and encoded once: half the price of formatting bytes.
        return (
            f'{{"run_id":"{format_id(self._serial)}","run_kind":{_kind_text(self.run_kind)},'
            f"{parent._child_part}{static.text}}}}}"
        ).encode()


_NOTHING: Final = object()
_NO_INHERITANCE: Final = Fragment({})
"""Of most runs; one for all of them."""


def _ambient_of(run: RunContext | None) -> Mapping[str, Any]:
    """What :func:`run_context` had set when ``run`` was made: its own meta may differ on purpose and must win."""
    while run is not None and run._static is not None:
        run = run._parent

    return (run._ambient if run is not None else None) or {}


@lru_cache(maxsize=256)
def _kind_text(run_kind: str) -> str:
    return encode(run_kind).decode()


current_run: ContextVar[RunContext | None] = ContextVar("flowdeck_current_run", default=None)
"""The run the present code works for; new runs become its children."""

_ambient: ContextVar[Mapping[str, Any] | None] = ContextVar("flowdeck_run_context", default=None)


def ambient(key: str) -> Any:
    """Return what the surrounding :func:`run_context` blocks set for ``key``, ``None`` for nothing."""
    values = _ambient.get()
    return values.get(key) if values else None


@contextmanager
def run_scope(run: RunContext | None) -> Iterator[RunContext | None]:
    """Make ``run`` the current run inside the block."""
    token = current_run.set(run)
    try:
        yield run
    finally:
        current_run.reset(token)


def enter_session(session_id: str | None, leaving: str | None = None) -> None:
    """Make ``session_id`` the session of the runs created from now on in this context (task, thread).

    ``None`` ends it, if it is still ``leaving``. A block of its own is :func:`run_context`.
    """
    values = dict(_ambient.get() or {})
    if session_id is not None:
        values["session_id"] = session_id
    elif values.get("session_id") == leaving:
        values.pop("session_id", None)

    _ambient.set(values)


@contextmanager
def run_context(
    *,
    task_id: str | None = None,
    tenant_id: str | None = None,
    user_id: str | None = None,
    trace_id: str | None = None,
    traceparent: str | None = None,
    session_id: str | None = None,
    **values: Any,
) -> Iterator[dict[str, Any]]:
    """Put identity values into the meta of every run created inside the block; nested blocks add up.

    ``traceparent`` is the W3C header of the traced call the runs are part of; ``session_id`` becomes their session.
    ``None`` leaves the outer block's value. Further keywords enter the meta of the runs created directly.
    """
    given = {
        "task_id": task_id,
        "tenant_id": tenant_id,
        "user_id": user_id,
        "trace_id": trace_id,
        "traceparent": traceparent,
        "session_id": session_id,
        **values,
    }
    merged = {**(_ambient.get() or {}), **{key: value for key, value in given.items() if value is not None}}
    token = _ambient.set(merged)
    try:
        yield merged
    finally:
        _ambient.reset(token)
