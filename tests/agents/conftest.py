"""A runtime of its own, and every event told about it, held against the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.workspace.conftest import Collector

from flowdeck import Runtime
from flowdeck.events.catalogue import problems
from flowdeck.events.lineage import enter_session


@pytest.fixture
def anyio_backend() -> str:
    """Flowdeck's driver is plain asyncio."""
    return "asyncio"


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


@pytest.fixture(autouse=True)
def no_session_stays() -> Iterator[None]:
    """A session activated by a synchronous test does not reach the next one."""
    yield
    enter_session(None, leaving="s-1")
    enter_session(None, leaving="s-2")
