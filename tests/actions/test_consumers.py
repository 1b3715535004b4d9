"""Consumers are fail-open (DESIGN §5.4): the store, the TUI's core and the OTLP mapper get what they do not know.

Unknown event types, new payload keys, a new environment suffix and tool.* twins never fail, hide or count twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("opentelemetry.sdk")

from tests.otlp.scenarios import Line, check_invariants, make_mapper, map_all

from flowdeck import RunContext, Runtime, run_context
from flowdeck.events.lineage import run_scope
from flowdeck_devtools.core.index import RunIndex
from flowdeck_devtools.core.wire import head
from flowdeck_sinks.store import query


class Story:
    """A request whose loop fails in the end, told to a store."""

    def __init__(self, store: Path, *, twins: bool) -> None:
        self.store = store
        self.twins = twins
        self.seen: list[bytes] = []
        self.runtime = Runtime(settings={"action.tool_events": twins})
        self.observation = self.runtime.observe(store=store)
        self.request = RunContext.create(run_kind="request", execution_id="x1", meta={"flow_name": "shop"})

    async def tell(self) -> None:
        actions = self.runtime.actions
        actions.register_action(action_id="add", func=lambda x: x + 1)

        def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
            if context["round_index"]:
                raise LookupError("the model has gone")

            return [{"action_id": "add", "action_input": {"x": 1}}]

        with run_context(task_id="T-1"), run_scope(self.request), self.runtime.use():
            self.emit("request.started", {"agent_name": "demo"})
            with pytest.raises(LookupError):
                await actions.create_loop(plan, name="demo").async_run()

            self.strange()
            self.emit("request.completed", {"agent_name": "demo", "a_new_key": {"deep": [1]}})

    def strange(self) -> None:
        """What a later version might emit."""
        self.emit("warp.drive_engaged", {"factor": 9})
        self.emit("action.teleported", {"x": 1})
        manager = self.runtime.execution_environment
        manager.emit("image_pulled", manager.declare({"kind": "docker", "requirement_id": "docker:1"}), layers=3)

    def emit(self, event_type: str, payload: dict[str, Any]) -> None:
        self.runtime.emit({"event_type": event_type, "source": "Test", "payload": payload, "run": self.request})

    def lines(self) -> list[bytes]:
        self.observation.close()
        segments = sorted((self.store / "journal").glob("*.jsonl"))
        return [line for segment in segments for line in segment.read_bytes().splitlines()[1:]]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Story, Story]]:
    """The same story with the twins and without."""
    folder = tmp_path_factory.mktemp("stories")
    both = (Story(folder / "twins", twins=True), Story(folder / "plain", twins=False))
    for story in both:
        asyncio.run(story.tell())
        story.seen = story.lines()

    yield both


def test_the_store_counts_once(stories: tuple[Story, Story]) -> None:
    """Runs, spans and errors are the same with the twins and without; every event is there."""
    answers = []
    for story in stories:
        runs = query(story.store, "SELECT run_kind, status, count(*) FROM spans GROUP BY ALL ORDER BY ALL")
        errors = query(story.store, "SELECT count(*) FROM errors")
        counts = query(story.store, "SELECT flow_name, status, events, errors FROM runs ORDER BY ALL")
        answers.append([list(map(tuple, each)) for each in (runs, errors, counts)])

    assert answers[0] == answers[1]
    assert ("action_loop", "failed", 1) in answers[0][0] and ("action", "completed", 1) in answers[0][0]
    strange = "('warp.drive_engaged', 'action.teleported', 'execution_environment.image_pulled', 'tool.loop_failed')"
    found = query(stories[0].store, f"SELECT count(*) FROM events WHERE event_type IN {strange}")
    assert list(map(tuple, found)) == [(4,)]


def test_the_terminal_counts_once(stories: tuple[Story, Story]) -> None:
    """The index of runs has the same rows, with the same counts of errors and events."""
    rows = []
    for story in stories:
        lines = story.seen
        index = RunIndex()
        index.apply([head(line) for line in lines], lines, "w1", 0)
        rows.append([(row.name, row.status, row.errors, row.events) for row in index.newest()])

    assert rows[0] == rows[1] and rows[0]


def test_the_traces_count_once(stories: tuple[Story, Story]) -> None:
    """As many spans of the same names; each twin is suppressed and counted, and so is what is unknown."""
    names = []
    for story in stories:
        mapper = make_mapper()
        spans = map_all([Line("w1", line) for line in story.seen], mapper)
        check_invariants(spans)
        names.append(Counter(span.name for span in spans))
        counts = mapper.statistics()
        assert counts["alias_suppressed"] == (3 if story.twins else 0)
        assert counts["unknown_types"] >= 2

    assert names[0] == names[1] and any("add" in name for name in names[0])
