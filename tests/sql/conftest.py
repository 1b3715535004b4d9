"""What the tests of SQL share: a store being written, and an open connection to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sinks.support import Encoded, Story

from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import StoreConnection, connect

Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[JournalSink]:
    """A journal in a new store."""
    sink = JournalSink(tmp_path / "store")
    yield sink
    sink.close()


@pytest.fixture
def story(sink: JournalSink) -> Story:
    """An Event Center that writes to it."""
    return Story(sink)


@pytest.fixture
def connection(sink: JournalSink) -> Iterator[StoreConnection]:
    """A connection that sees what was written before each of its queries."""
    with connect(sink.store) as connection:
        yield connection


@pytest.fixture
def ask(sink: JournalSink, connection: StoreConnection) -> Ask:
    """Return the rows of a query over everything written so far."""

    def ask(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        assert sink.flush(5)
        return list(connection.execute(sql, list(parameters) or None).fetchall())

    return ask


@pytest.fixture
def raw(sink: JournalSink) -> Callable[..., None]:
    """Write an event as a hostile or foreign writer would."""

    def raw(**fields: Any) -> None:
        sink.accept(Encoded(json.dumps({"event_id": "raw", **fields}).encode()))

    return raw
