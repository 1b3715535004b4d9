"""Console settings by family and by run, the observation bridge, and how a program comes to be observed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.events.support import Collector

from flowdeck import Runtime, TriggerFlow
from flowdeck.compat import AgentlyMain
from flowdeck.events.errorinfo import ErrorInfo
from flowdeck.events.profiles import debug_mode
from flowdeck_sinks.store import query


@pytest.fixture
def main() -> Iterator[AgentlyMain]:
    made = AgentlyMain(Runtime())
    yield made
    made.runtime.close()


def console(main: AgentlyMain) -> Any:
    return next((sink for sink in main.runtime.center.sinks() if sink.name == "console"), None)


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ([("debug", True)], "simple simple simple simple simple"),
        ([("debug", "detail")], "detail detail detail detail detail"),
        ([("debug", True), ("runtime.show_model_logs", "off")], "off simple simple simple simple"),
        ([("runtime.show_tool_logs", "detail")], "off detail detail off off"),
        ([("runtime.show_tool_logs", "detail"), ("runtime.show_action_logs", "simple")], "off simple detail off off"),
        ([("runtime.show_trigger_flow_logs", "simple")], "off off off simple off"),
    ],
)
def test_console_settings(main: AgentlyMain, settings: list[tuple[str, Any]], modes: str) -> None:
    """``debug`` sets every family; each has a setting of its own; action's falls back to tool's where it is not set."""
    for key, value in settings:
        assert main.set_settings(key, value) is main

    shown = [
        console(main).profiles.mode_of(f"{family}.x")
        for family in ("model", "action", "tool", "triggerflow", "runtime")
    ]
    assert shown == modes.split()


def test_the_console_goes_away(main: AgentlyMain) -> None:
    """Switched off, nothing is attached; one console at a time."""
    assert console(main) is None
    main.set_settings("debug", True).set_settings("runtime.show_model_logs", "detail")
    assert [sink.name for sink in main.runtime.center.sinks()] == ["console"]
    main.set_settings("debug", False)
    assert main.runtime.center.sinks() == ()
    for key in ("debug", "runtime.show_model_logs"):
        with pytest.raises(ValueError, match="must be"):
            main.set_settings(key, "loud")

    with pytest.raises(ValueError, match='debug must be False, True, "off", "simple" or "detail"'):
        debug_mode(1.5)


def test_settings_documents(main: AgentlyMain) -> None:
    """load_settings sets everything a document has, the console's included."""
    main.load_settings("json", '{"debug": true, "my": {"depth": {"of": 3}}}')
    assert main.settings.get("my.depth.of") == 3
    assert console(main) is not None


def test_a_flow_has_console_settings_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A flow's settings go with its runs, over those of the console; a wrong one is told and changes nothing."""
    host = Runtime()
    quiet, loud, wrong = TriggerFlow(name="quiet"), TriggerFlow(name="loud"), TriggerFlow(name="wrong")
    for flow in (quiet, loud, wrong):
        flow.to((f"step of {flow.name}", lambda data: data.input))

    quiet.set_settings("runtime.show_trigger_flow_logs", "off")
    loud.set_settings("debug", "detail")
    wrong.set_settings("debug", "very")
    with host.use(), host.observe(console="simple") as observation:
        quiet.start(1)
        loud.start(2)
        with pytest.warns(RuntimeWarning, match="flow 'wrong': debug must be False, True"):
            wrong.start(3)

        assert observation.flush()

    text = capsys.readouterr().err
    assert "quiet" not in text
    assert "[step of loud]" in text and '"input": 2' in text
    assert "[step of wrong]" in text and '"input": 3' not in text


def test_the_bridge(main: AgentlyMain, tmp_path: Path) -> None:
    """Agently.observe keeps events in a store until unregister; with ``Agently`` as a target, all of them."""
    target = {"target_type": "flow", "target_name": "f"}
    with pytest.warns(UserWarning, match="api_key, base_url: no use here, events go to a store"):
        bridge = main.observe(target, store=tmp_path / "s", app_id="a", base_url="http://x", api_key="k")

    assert bridge.watch(main).watch(main) is bridge
    assert (bridge.targets, bridge.app_id, bridge.group_id) == ([target, main], "a", None)
    flow = TriggerFlow(name="f")
    flow.to(lambda data: data.input)

    async def run() -> None:
        with main.runtime.use():
            await flow.async_start(1)

        assert await bridge.flush()

    asyncio.run(run())
    bridge.unregister()
    main.print("after")
    (row,) = query(tmp_path / "s", "SELECT flow_name, status FROM runs").rows
    assert row == ("f", "completed")
    assert list(query(tmp_path / "s", "SELECT 1 FROM events WHERE event_type = 'runtime.print'").rows) == []


def test_a_bridge_keeps_what_is_watched(main: AgentlyMain, tmp_path: Path) -> None:
    """A target's events, with those of the runs below it; from the first target on, and nobody else loses any."""
    parent, child, other, tool = (TriggerFlow(name=name) for name in ("parent", "child", "other", "tool user"))
    child.to(("inner", lambda data: data.input))
    parent.to_sub_flow(child)
    other.to(("alone", lambda data: data.input))

    def pay(amount: int) -> int:
        return amount

    main.action.register_action(action_id="pay", desc="pays", kwargs={}, func=pay)
    tool.to(("call", lambda data: main.action.execute_action("pay", {"amount": 1})))

    def steps(store: str, bridge: Any, *watched: Any) -> list[str]:
        for target in watched:
            bridge.watch(target)

        with main.runtime.use():
            for flow in (parent, other, tool):
                flow.start(1)

        assert asyncio.run(bridge.flush())
        bridge.unregister()
        sql = """SELECT DISTINCT coalesce(run.meta->>'action_name', run.meta->>'chunk_name', run.meta->>'flow_name') n
                 FROM events WHERE event_type LIKE '%started' ORDER BY n"""
        return [str(name) for (name,) in query(tmp_path / store, sql).rows]

    def bridge(store: str, *targets: Any) -> Any:
        return main.create_observation_bridge(*targets, store=tmp_path / store)

    below = ["child", "inner", "parent"]
    everything = sorted(["alone", "call", "other", "pay", "tool user", *below])
    got = [name for name in steps("all", bridge("all")) if name in everything]
    assert got == everything
    assert set(below) <= set(steps("flow", bridge("flow", parent))) <= {*below, "sub_flow"}
    assert steps("child", bridge("child"), {"target_type": "flow", "target_name": "child"}) == ["child", "inner"]
    assert steps("tool", bridge("tool", pay)) == ["pay"]
    assert set(everything) <= set(steps("main", bridge("main", parent), main))
    with main.runtime.observe(store=tmp_path / "shared"):
        assert set(everything) <= set(steps("shared", bridge("shared", parent)))

    first = bridge("late", parent)
    with main.runtime.observe(store=tmp_path / "late"):
        assert set(everything) <= set(steps("late", first))

    for wrong in (3, {"target_type": "weather", "target_name": "x"}, {"target_type": "flow"}):
        with pytest.raises(TypeError, match="watch"):
            bridge("wrong", wrong)

    assert not (tmp_path / "wrong").exists()


def test_the_environment_counts_whichever_name_is_imported(tmp_path: Path) -> None:
    """A program that imports flowdeck.triggerflow alone is observed as FLOWDECK_STORE says."""
    script = (
        "from flowdeck.triggerflow import TriggerFlow\n"
        "flow = TriggerFlow(name='alone')\n"
        "flow.to(lambda data: data.input)\n"
        "flow.start(1)\n"
    )
    env = {**os.environ, "FLOWDECK_STORE": str(tmp_path / "s"), "FLOWDECK_SINKS": ""}
    subprocess.run([sys.executable, "-c", script], check=True, env=env, timeout=60)
    assert list(query(tmp_path / "s", "SELECT flow_name FROM runs").rows) == [("alone",)]


def test_a_problem_of_the_control_store_is_an_event(tmp_path: Path) -> None:
    """Another process holds state.db: the run goes on, and who watches hears why others do not see it."""
    host, seen = Runtime(), Collector()
    host.center.add_sink(seen)
    flow = TriggerFlow(name="f")
    flow.to(lambda data: data.input)
    with host.observe(tmp_path / "s"), host.use():
        holder = sqlite3.connect(tmp_path / "s" / "state.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        flow.start(1)
        assert seen.wait_for(lambda: "runtime.control_problem" in seen.types)
        holder.rollback()
        holder.close()

    (record,) = [r for r in seen.records if r.event_type == "runtime.control_problem"]
    assert record.payload["kind"] == "busy"


def test_a_cancellation_is_an_error_like_any_other() -> None:
    """A CancelledError given as an event's error becomes an ErrorInfo with its type."""
    host, seen = Runtime(), Collector()
    host.center.add_sink(seen)
    host.emit({"event_type": "a.b", "level": "ERROR", "error": asyncio.CancelledError("stopped")})
    (record,) = seen.records
    assert isinstance(record.error, ErrorInfo)
    assert (record.error.type, record.error.message) == ("CancelledError", "stopped")


def test_nothing_is_attached_unasked() -> None:
    """Making the main object and using it attaches no sink and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = AgentlyMain(Runtime())
        made.print("hello", 1)
        made.set_settings("my.own", 1)

    assert made.runtime.center.sinks() == ()
