"""Observation: sinks attached to a runtime, and how sinks are found by name."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from flowdeck.errors import FlowdeckError
from flowdeck.events.center import EventCenter
from flowdeck.events.sink import Sink
from flowdeck.execution.control import ControlPlane

__all__ = ["Observation", "SinkNotAvailable", "StoreHandle", "close_sink", "create_from_spec", "create_sink", "left"]

log = logging.getLogger("flowdeck.runtime")

SINK_GROUP: Final = "flowdeck.sinks"
"""The entry-point group third-party sinks join: ``name = "module:create_sink"``."""
EXTRAS: Final = {"otlp": "otlp"}
"""The extra that brings what a sink of our own needs."""


class SinkNotAvailable(FlowdeckError, LookupError):
    """A sink was asked for that is not installed, or whose extra is missing. The message names the install command."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreHandle:
    """One observed store: its journal sink and control plane, shared by every observation of the same path."""

    def __init__(self, sink: Sink, path: Path, control: ControlPlane | None) -> None:
        self.sink = sink
        self.path = path
        self.control = control
        self.users = 0


class Observation:
    """Sinks attached to a runtime. Made by :meth:`Runtime.observe`; closing detaches them.

    A context manager, plain and async. Statistics stay readable after :meth:`close`.
    """

    def __init__(
        self,
        center: EventCenter,
        sinks: list[Sink],
        store: StoreHandle | None,
        release: Callable[[StoreHandle, float], None],
    ) -> None:
        self._center = center
        self._release = release
        self._own = sinks
        self._store = store
        self._lock = threading.Lock()
        self._closed = False

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The sinks of this observation, the store's first."""
        return (*(() if self._store is None else (self._store.sink,)), *self._own)

    @property
    def store(self) -> Path | None:
        """The store's directory, ``None`` when nothing is stored."""
        return None if self._store is None else self._store.path

    @property
    def writer(self) -> str | None:
        """The id under which this process writes to the store."""
        return None if self._store is None else getattr(self._store.sink, "writer", None)

    def shares(self, sink: Sink) -> bool:
        """Whether another observation of this process writes through ``sink``, too."""
        return self._store is not None and sink is self._store.sink and self._store.users > 1

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything emitted so far is written, at most ``timeout`` seconds. Return whether it is."""
        deadline = time.monotonic() + timeout
        done = True
        for sink in self.sinks:
            try:
                done = sink.flush(left(deadline)) and done
            except Exception:
                log.warning("sink %r raised at flush", sink.name, exc_info=True)
                done = False

        if self._store is not None and self._store.control is not None:
            done = self._store.control.flush(left(deadline)) and done

        return done

    def close(self, timeout: float = 5.0) -> None:
        """Detach, flush and close the sinks, within ``timeout`` seconds. Closing twice does nothing."""
        with self._lock:
            if self._closed:
                return

            self._closed = True

        deadline = time.monotonic() + timeout
        for sink in self._own:
            self._center.remove_sink(sink)
            close_sink(sink, deadline)

        if self._store is not None:
            self._release(self._store, deadline)

    def statistics(self) -> dict[str, Any]:
        """Return the counters of every sink: ``{"sinks": {name: {...}}}``."""
        out: dict[str, Any] = {}
        for sink in self.sinks:
            name = sink.name if sink.name not in out else f"{sink.name}#{len(out) + 1}"
            try:
                out[name] = dict(sink.statistics())
            except Exception as problem:
                out[name] = {"error": str(problem)}

        return {"sinks": out}

    def __enter__(self) -> Observation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Observation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)


def create_from_spec(spec: str) -> Sink:
    """Make a sink from ``"name"`` or ``"name:target"``."""
    name, _, target = spec.partition(":")
    return create_sink(name.strip(), target.strip())


def create_sink(name: str, target: str) -> Sink:
    found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=SINK_GROUP)}
    point = found.get(name)
    extra = EXTRAS.get(name)
    if point is None:
        hint = f"pip install 'flowdeck[{extra}]'" if extra else "install the package that brings it"
        raise SinkNotAvailable(
            f"there is no sink {name!r}: {hint} (installed sinks: {', '.join(sorted(found)) or 'none'})"
        )

    try:
        factory = point.load()
        sink: Sink = factory(target)
    except ImportError as problem:
        missing = problem.name or str(problem)
        hint = f"pip install 'flowdeck[{extra}]'" if extra else f"pip install {missing.partition('.')[0]}"
        raise SinkNotAvailable(f"the sink {name!r} needs {missing!r}, which is not installed: {hint}") from problem

    return sink


def close_sink(sink: Sink, deadline: float) -> None:
    try:
        sink.close(left(deadline))
    except Exception:
        log.warning("sink %r raised at close", sink.name, exc_info=True)


def left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
