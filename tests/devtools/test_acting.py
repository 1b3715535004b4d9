"""Acting on runs: through the inbox or in a child process, always in somebody's name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.devtools.deck import make_app, press, running, screen_text, until
from tests.devtools.scene import Scene

from flowdeck import Runtime, TriggerFlow
from flowdeck.durable import ControlClient
from flowdeck.errors import FlowdeckError
from flowdeck_devtools.core.acting import Acts, Started, started_of
from flowdeck_devtools.core.clock import SystemClock
from flowdeck_devtools.core.opening import open_link
from flowdeck_sinks.store import query

FLOW = """
from flowdeck import TriggerFlow

flow = TriggerFlow(name="greet")

@flow.chunk
async def greet(data):
    await data.async_set_state("greeted", data.value["name"])
    return {"hello": data.value["name"]}

@flow.chunk
async def ask(data):
    return await data.async_pause_for(type="approval", payload={"question": "ok?"}, resume_to="next")

flow.to(greet).to(ask)
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A store with one durable run that was asked something, answered and completed; its flow can be imported."""
    import importlib

    (tmp_path / "greeting_flow_of_test.py").write_text(FLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    flow: TriggerFlow = importlib.import_module("greeting_flow_of_test").flow
    store = tmp_path / "store"

    async def run() -> str:
        runtime = Runtime()
        with runtime.use():
            observation = runtime.observe(store)
            runtime.use_store(store, durability="process")
            execution = flow.create_execution(auto_close_timeout=0.0)
            work = asyncio.ensure_future(execution.async_start({"name": "ana"}))
            async with asyncio.timeout(10):
                while not execution.get_pending_interrupts():  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.005)
                await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), "yes", actor="bo")
                await work
            await asyncio.to_thread(observation.close)
            return str(execution.id)

    execution_id = asyncio.run(run())
    with ControlClient(store) as client:
        row = client.get_execution(execution_id)
        assert row is not None and row.run_id is not None
        yield SimpleNamespace(store=store, execution_id=execution_id, run_id=row.run_id, client=client)
    import sys

    sys.modules.pop("greeting_flow_of_test", None)


def acts_told(store: Path) -> list[tuple[str, str, str]]:
    sql = "select payload->>'$.action', payload->>'$.actor', payload->>'$.outcome' from events"
    return [tuple(row) for row in query(store, f"{sql} where event_type = 'devtools.action' order by ts")]  # type: ignore[misc]


def test_a_run_says_with_what_it_was_started_and_what_can_be_done(made: SimpleNamespace) -> None:
    """What cannot be done has its reason."""
    started = started_of(made.store, made.run_id)
    assert started == Started("greeting_flow_of_test:flow", {"name": "ana"})
    can = Acts(made.store, "ana").abilities(made.execution_id, started)
    assert (can.fork, can.rerun, can.promote) == (None, None, None)
    assert can.cancel == can.resume == "it is already completed"
    unknown = Acts(made.store, "ana").abilities("nobody", None)
    assert unknown.rerun == "its start is not in the store"


@pytest.mark.parametrize(
    ("started", "why"),
    [
        (Started(None, 1), "no entrypoint"),
        (Started("m:f", None, known=False), "not stored whole"),
    ],
)
def test_what_cannot_run_again_says_why(made: SimpleNamespace, started: Started, why: str) -> None:
    """A definition made in place cannot be imported, a masked input cannot be repeated."""
    acts = Acts(made.store, "ana")
    assert why in (acts.abilities(made.execution_id, started).rerun or "")
    assert why in acts.rerun(made.run_id, made.execution_id, started).headline


def test_a_fork_goes_on_in_a_process_of_its_own_and_is_told_in_the_ledger(made: SimpleNamespace) -> None:
    """From a committed point before the answer it waits for one again; cancelling it goes through the inbox."""
    acts = Acts(made.store, "ana")
    early = made.client.history(made.execution_id)[1]
    forked = acts.fork(made.execution_id, early.seq)
    assert forked.done and forked.execution_id
    resumed = acts.resume(forked.execution_id)
    assert resumed.done, resumed.headline
    assert resumed.headline == "is waiting"
    assert not acts.fork(made.execution_id, 10_000).done
    assert [told[:2] for told in acts_told(made.store)] == [("fork", "ana"), ("resume", "ana"), ("fork", "ana")]
    cancelled = acts.cancel(forked.execution_id, "no longer wanted")
    assert cancelled.pending  # the process that could apply it has ended
    (entry,) = made.client.list_inbox(execution_id=forked.execution_id, pending_only=True)
    assert (entry.kind, entry.actor, entry.payload) == ("cancel", "ana", {"reason": "no longer wanted"})


def test_a_run_becomes_an_eval_case_once(made: SimpleNamespace, tmp_path: Path) -> None:
    """The suite is one that evals accept; it is not changed by what is refused."""
    from flowdeck_evals import Suite

    acts, started = Acts(made.store, "ana"), started_of(made.store, made.run_id)
    assert started is not None
    report = acts.promote(made.run_id, started, tmp_path / "evals")
    assert report.done, report.headline
    file = tmp_path / "evals" / "promoted-greet.yaml"
    suite = Suite.load(file)
    assert [case.input for case in suite.cases] == [{"name": "ana"}]
    before = file.read_text()
    again = acts.promote(made.run_id, started, tmp_path / "evals")
    assert not again.done and "already" in again.headline
    assert file.read_text() == before


@pytest.mark.slow
def test_publishing_runs_in_a_child_and_leaves_the_history_whole(made: SimpleNamespace) -> None:
    """The same events before and after."""
    count = "select count(*) from events where event_type <> 'devtools.action'"
    before = list(query(made.store, count))
    assert Acts(made.store, "ana").publish().done
    assert list(query(made.store, count)) == before
    assert acts_told(made.store) == [("publish", "ana", "applied")]


@pytest.mark.anyio
async def test_the_menu_cancels_a_run_after_a_review_in_the_actors_name(scene: Scene) -> None:
    """x, the verb, a reason, the button: nothing is one key away."""
    run = scene.execution("audit", at=3.0)
    scene.ask(run, "i1", "May we?", at=4.0)
    app = make_app(scene.store)
    async with running(app) as pilot:
        await press(pilot, "x")
        await until(pilot, lambda: "Keep as eval case" in screen_text(app), "the menu")
        assert "– it is not durable" in screen_text(app)
        await press(pilot, "down", "enter")
        await until(pilot, lambda: "Cancel?" in screen_text(app), "the review")
        await press(pilot, *"twice", "enter", "enter")
        with ControlClient(scene.store) as client:
            await until(pilot, lambda: bool(client.list_inbox(execution_id=run.execution_id)), "the request")
            (entry,) = client.list_inbox(execution_id=run.execution_id)
        assert (entry.kind, entry.actor, entry.payload) == ("cancel", "ana", {"reason": "twice"})


@pytest.mark.anyio
async def test_snapshot_and_checkpoints_are_opened_from_the_run(made: SimpleNamespace) -> None:
    """Enter on a line of the links page shows what is stored, as it was after so many inputs."""
    app = make_app(made.store, clock=SystemClock())
    async with running(app) as pilot:
        await until(pilot, lambda: app.session.run(made.run_id) is not None, "the run")
        app.open_run(made.run_id)
        await until(pilot, lambda: "greet" in screen_text(app), "its tree")
        await press(pilot, "b")
        await until(pilot, lambda: "snapshot: everything" in screen_text(app), "the checkpoints")
        await press(pilot, "tab", "tab")
        for words, keys in (("snapshot", ["g", "down", "enter"]), ("checkpoint after", ["down", "enter"])):
            await press(pilot, *keys)
            await until(pilot, lambda: "as it is saved" in screen_text(app), words)
            assert words in screen_text(app)
            await press(pilot, "escape")
            await until(pilot, lambda: "as it is saved" not in screen_text(app), "the page again")
    points = made.client.history(made.execution_id)
    shown = [
        open_link(made.store, made.execution_id, ("checkpoint", point.seq))[1] for point in (points[0], points[-1])
    ]
    assert shown == [("state", {}, "title"), ("state", {"greeted": "ana"}, "title")]
    with pytest.raises((FlowdeckError, LookupError)):
        open_link(made.store, "x-unknown", ("snapshot", None))
