"""A workspace, and every event told about it, held against the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowdeck import Runtime
from flowdeck.events.catalogue import problems
from flowdeck.events.record import EventRecord
from flowdeck.workspace import Workspace


@pytest.fixture
def anyio_backend() -> str:
    """Flowdeck's driver is plain asyncio."""
    return "asyncio"


class Collector:
    """Keeps every event."""

    def __init__(self) -> None:
        self.records: list[EventRecord] = []

    def accept(self, record: EventRecord) -> None:
        self.records.append(record)

    def flush(self, timeout: float = 1.0) -> bool:
        return True

    def close(self, timeout: float = 1.0) -> None:
        pass

    def of(self, name: str) -> list[EventRecord]:
        return [record for record in self.records if record.event_type == name]


@pytest.fixture
def host() -> Runtime:
    """A runtime of its own."""
    return Runtime()


@pytest.fixture
def events(host: Runtime) -> Iterator[Collector]:
    """Everything that happens in the runtime, DEBUG included."""
    collector = Collector()
    host.center.add_sink(collector, None, "DEBUG")
    yield collector
    assert [problem for record in collector.records for problem in problems(record)] == []


@pytest.fixture
def workspace(host: Runtime, tmp_path: Path, events: Collector) -> Workspace:
    """An empty workspace in ``tmp_path/ws``."""
    made: Workspace = host.workspace.create(tmp_path / "ws")
    return made


@pytest.fixture
def reopened(host: Runtime, tmp_path: Path) -> Callable[..., Workspace]:
    """Open the same workspace again."""
    return lambda **options: host.workspace.create(tmp_path / "ws", **options)
