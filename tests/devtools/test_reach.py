"""What lies beyond the live journal and behind a run: older runs, links, projected questions, long searches."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.devtools.deck import make_app, press, running, screen_text, until
from tests.devtools.scene import START_US, Scene
from tests.devtools.terminal import wait_until

from flowdeck.layout import Layout
from flowdeck.workspace import WorkspaceManager
from flowdeck_devtools.core import history as history_module
from flowdeck_devtools.core.critical import PathSearch, critical_path
from flowdeck_devtools.core.index import RunIndex
from flowdeck_devtools.core.opening import open_link
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import head
from flowdeck_devtools.tui.beat import Beat
from flowdeck_devtools.tui.screens.runs import RunsScreen
from flowdeck_sinks.store.maintenance import publish

pytestmark = pytest.mark.anyio


async def test_runs_of_the_past_come_in_by_pages_and_by_filter(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published runs are listed although the journal is small; going down reads on, a filter looks everywhere."""
    monkeypatch.setattr(history_module, "RUNS_LIMIT", 8)
    for number in range(20):
        run = scene.execution("odd" if number == 3 else "old", at=float(number))
        run.finish(at=number + 0.5)
    scene.close()
    publish(Layout.open(scene.store))
    later = Scene(scene.store, writer="w00000000later")
    later._ids = 1_000
    later.execution("fresh", at=50.0)
    app = make_app(scene.store)
    try:
        async with running(app) as pilot:
            screen = app.screen
            assert isinstance(screen, RunsScreen)
            await until(pilot, lambda: len(screen.table.rows) == 21, "all pages", timeout=30.0)
            starts = [row.started_us for row in screen.table.rows]
            assert starts == sorted(starts, key=lambda one: -(one or 0))
            await press(pilot, "slash", *"flow:odd", "enter")
            await until(pilot, lambda: [row.name for row in screen.table.rows] == ["odd"], "the filter", timeout=30.0)
            await press(pilot, "enter")
            await until(pilot, lambda: "odd" in screen_text(app) and "✓ completed" in screen_text(app), "the run")
    finally:
        later.close()


def test_a_question_of_a_sub_flow_counts_once(scene: Scene) -> None:
    """The child asks and its parent tells of it again under the id that can be answered."""
    run = scene.execution("parent", at=0.0)
    child = {**run.step_run(), "run_kind": "workflow_execution"}
    asked = {"id": "child-i1", "type": "review", "projected_as": "parent:1:child-i1"}
    lines = [
        scene.line("triggerflow.interrupt_raised", at=1.0, run=child, payload={"interrupt": asked}),
        scene.line(
            "triggerflow.interrupt_raised", at=1.1, run=run.run, payload={"interrupt": {"id": "parent:1:child-i1"}}
        ),
    ]
    index, trace = RunIndex(), Trace(str(run.run["run_id"]))
    for line in lines:
        index.apply([head(line)], [line], "w")
        trace.apply(line, head(line))
    (row,) = index.rows.values()
    assert list(row.waits) == ["parent:1:child-i1"]
    assert sum(len(node.waits) for node in trace.nodes.values()) == 1


def test_the_critical_path_is_found_beside_the_window(scene: Scene) -> None:
    """In a thread that tells how far it is, with the result of a direct search."""
    run = scene.execution("large", at=0.0)
    trace = Trace(str(run.run["run_id"]))
    for number in range(300):
        step = run.step_run()
        for kind, at in (("chunk.started", number), ("chunk.completed", number + 1)):
            line = scene.line(kind, at=float(at), run=step, scope=f"work#{number}", duration_us=1_000_000)
            trace.apply(line, head(line))
    now = START_US + 300_000_000
    search = PathSearch(trace)
    search.begin(now)
    wait_until(lambda: search.found, 5.0, "the path")
    assert search.nodes == {id(share.node) for share in critical_path(trace, now)}
    told: list[int] = []
    critical_path(trace, now, told.append)
    assert told == []  # not worth a word below 2,000


def test_links_open_what_they_name(scene: Scene) -> None:
    """A large payload, an artifact beside it, and words where the content is elsewhere."""
    digest = "ab" * 32
    (scene.layout.blobs / digest).write_text(json.dumps({"big": [1, 2]}))
    assert ("", {"big": [1, 2]}, "title") in open_link(scene.store, None, ("blob", digest))
    assert ("", {"big": [1, 2]}, "title") in open_link(scene.store, None, ("artifact", {"ref": f"artifact:{digest}"}))
    gone = open_link(scene.store, None, ("artifact", {"ref": "artifact:" + "cd" * 32}))
    assert "not in this store" in gone[-1][0]
    elsewhere = open_link(scene.store, None, ("record", {"uri": "workspace://w/records/r1"}))
    assert "FLOWDECK_WORKSPACE" in elsewhere[-1][0]
    with pytest.raises(OSError, match=r"blobs|such file"):
        open_link(scene.store, None, ("blob", "ef" * 32))


def test_a_workspace_record_is_opened_from_the_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its labels and its content, from the workspace the environment names."""
    made = WorkspaceManager().create(tmp_path / "ws")
    record = asyncio.run(made.ingest(content="hello from the run", collection="notes", kind="note", summary="a note"))
    monkeypatch.setenv("FLOWDECK_WORKSPACE", str(tmp_path / "ws"))
    sections = open_link(scene.store, None, ("record", {"uri": record["uri"]}))
    assert ("content", "hello from the run", "title") in sections


async def test_the_beat_rests_and_is_woken_from_a_thread() -> None:
    """Slow when nothing happens, at once when something does, silent when stopped."""
    beats: list[float] = []
    beat = Beat(lambda: beats.append(time.monotonic()), 0.02, lambda error: None)
    beat._awake_until = 0.0
    beat._slow = True
    beat._handle = None
    threading.Thread(target=beat.wake).start()
    await anyio.to_thread.run_sync(wait_until, lambda: len(beats) >= 3, 2.0, "three beats")
    assert beats[-1] - beats[0] < 0.4
    beat.stop()
    number = len(beats)
    await anyio.sleep(0.06)
    assert len(beats) == number
