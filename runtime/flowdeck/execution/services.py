"""What hosts an execution: the Event Center, the clock, the ports and the control plane it uses.

A :class:`Services` object is fixed at ``create_execution`` and never looked up again, so two runtimes in one process
(an eval round beside the application, say) stay apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from flowdeck.events import EventCenter
from flowdeck.execution.control import ControlPlane
from flowdeck.execution.observation import FlowEvents, flow_events
from flowdeck.execution.ports import Answerer, Clock, Ports, SystemClock
from flowdeck.execution.store import CommitStore

__all__ = ["Services", "current_services", "selected_services", "set_default_services", "use_services"]


@dataclass(slots=True)
class Services:
    """The collaborators every execution of one runtime shares."""

    center: EventCenter
    clock: Clock = field(default_factory=SystemClock)
    ports: Ports = field(default_factory=Ports)
    control: ControlPlane | None = None
    store: CommitStore | None = None
    """Where executions are committed; without one they live and die with the process."""
    settings: dict[str, Any] = field(default_factory=dict)
    answerer: Answerer | None = None
    """Answers interrupts in the place of people; nobody does without one."""
    environments: Any = field(default=None, repr=False, compare=False)
    """The execution environment manager, once somebody has asked for it."""
    _events: FlowEvents | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def events(self) -> FlowEvents:
        """The event types of the centre, looked up once."""
        if self._events is None:
            self._events = flow_events(self.center)

        return self._events


_selected: ContextVar[Services | None] = ContextVar("flowdeck_services", default=None)
_default: Services | None = None


def selected_services() -> Services | None:
    """Return the services selected in this context, ``None`` when there are none but the default."""
    return _selected.get()


def current_services() -> Services:
    """Return the services selected in this context, else the process default."""
    global _default
    selected = _selected.get()
    if selected is not None:
        return selected

    if _default is None:
        # Who imports only `flowdeck.triggerflow` gets the default runtime, too: its module registers itself here.
        import_module("flowdeck._runtime")

    if _default is None:
        _default = Services(center=EventCenter())

    return _default


def set_default_services(services: Services) -> None:
    """Make ``services`` the process default. :class:`flowdeck.Runtime` calls this once for ``flowdeck.runtime``."""
    global _default
    _default = services


@contextmanager
def use_services(services: Services) -> Iterator[Services]:
    """Select ``services`` for executions created inside the block."""
    token = _selected.set(services)
    try:
        yield services
    finally:
        _selected.reset(token)
