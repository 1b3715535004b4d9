"""Which events a sink of an Event Center gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flowdeck.events.eventtype import Accept
from flowdeck.events.record import EventRecord
from flowdeck.events.sink import Sink

__all__ = ["Interest", "Wanted", "narrowed"]

Wanted = Callable[[EventRecord], bool]


class Interest(NamedTuple):
    """A sink and what it wants."""

    sink: Sink
    matches: Any
    """Whether it wants events of a name."""
    rank: int
    """The lowest level it wants."""
    accept: Accept


def narrowed(sink: Sink, wanted: Wanted | None) -> Accept:
    """Return how to hand ``sink`` only the events that ``wanted`` says; all of them without it."""
    return sink.accept if wanted is None else _Narrowed(sink, wanted)


class _Narrowed:
    __slots__ = ("__self__", "_wanted")

    def __init__(self, sink: Sink, wanted: Wanted) -> None:
        self.__self__ = sink  # as a bound method has it: failures are told by the sink's name
        self._wanted = wanted

    def __call__(self, record: EventRecord) -> None:
        if self._wanted(record):
            self.__self__.accept(record)
