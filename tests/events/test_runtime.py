from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.events.support import Collector

import flowdeck
from flowdeck import Observation, Runtime, TriggerFlow, run_context
from flowdeck._observation import SinkNotAvailable
from flowdeck.execution.services import current_services
from flowdeck.layout import StoreError


def flow_of(name: str = "double") -> TriggerFlow:
    async def double(data: Any) -> Any:
        return data.input * 2

    flow = TriggerFlow(name=name)
    flow.to(double)
    return flow


def journal(store: Path) -> list[dict[str, Any]]:
    """Every event in a store's journal, headers left out."""
    lines: list[dict[str, Any]] = []
    for path in sorted((store / "journal").glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]

    return [line for line in lines if "event_type" in line]


def test_the_public_names_resolve() -> None:
    """Every exported name exists, the list is sorted, an unknown name fails plainly."""
    assert sorted(flowdeck.__all__) == flowdeck.__all__
    for name in flowdeck.__all__:
        assert getattr(flowdeck, name) is not None

    with pytest.raises(AttributeError, match="flowdeck"):
        flowdeck.nothing


def test_the_version_is_the_distributions() -> None:
    """The version in the code and the installed one are the same."""
    from importlib.metadata import version

    assert flowdeck.__version__ == version("flowdeck")


def test_windows_is_refused() -> None:
    """Importing on Windows ends in one clear error."""
    code = "import sys; sys.platform = 'win32'\ntry:\n import flowdeck\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert "Linux and macOS" in done.stdout


def test_the_default_runtime_hosts_flows_nobody_placed() -> None:
    """flowdeck.runtime owns the default services; use() selects another for a block."""
    assert current_services() is flowdeck.runtime.services
    other = Runtime(settings={"a": 1})
    with other.use() as selected:
        assert selected is other
        assert current_services() is other.services

    assert current_services() is flowdeck.runtime.services
    assert other.settings["a"] == 1


def test_runtimes_stay_apart() -> None:
    """An execution's events go to the runtime it was created in, and nowhere else."""
    here, there = Runtime(), Runtime()
    mine, other = Collector(), Collector()
    here.observe(sinks=[mine])
    there.observe(sinks=[other])
    with here.use(), run_context(task_id="t1", tenant_id="demo"):
        asyncio.run(flow_of().async_start(2))

    assert "triggerflow.execution_completed" in mine.types
    assert other.types == []
    assert {record.run.meta.get("task_id") for record in mine.records if record.run} == {"t1"}


def test_an_observation_stores_what_happens(tmp_path: Path) -> None:
    """Inside the block events reach the journal and executions register; afterwards nothing does."""
    host = Runtime()
    store = tmp_path / "store"
    with host.observe(store=store) as seen, host.use():
        assert seen.store == store
        assert seen.writer
        assert host.services.control is not None
        asyncio.run(flow_of().async_start(2))
        assert seen.flush(10.0)
        before = len(journal(store))

    with host.use():
        asyncio.run(flow_of().async_start(2))

    assert before and len(journal(store)) == before
    assert seen.statistics()["sinks"]["journal"]["written"] >= before
    assert seen.closed and host.services.control is None
    seen.close()


def test_one_store_has_one_writer(tmp_path: Path) -> None:
    """Two observations of one path share the sink; it lives until both are closed."""
    host = Runtime()
    first = host.observe(store=tmp_path / "s")
    second = host.observe(store=str(tmp_path / "s"))
    assert first.writer == second.writer

    first.close()
    host.emit({"event_type": "a.b"})
    assert second.flush(10.0)
    second.close()

    assert [event["event_type"] for event in journal(tmp_path / "s")] == ["a.b"]
    assert host.services.control is None


def test_two_stores_get_the_same_events(tmp_path: Path) -> None:
    """Another path is another writer; the first store stays the control plane."""
    host = Runtime()
    with host.observe(store=tmp_path / "a") as one, host.observe(store=tmp_path / "b") as two:
        control = host.services.control
        host.emit({"event_type": "a.b"})
        assert one.writer != two.writer
        assert host.services.control is control

    assert [len(journal(tmp_path / name)) for name in "ab"] == [1, 1]


def test_a_bad_store_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A path that is a file raises a StoreError that names it, and no sink stays attached."""
    host = Runtime()
    path = tmp_path / "file"
    path.write_text("x")

    with pytest.raises(StoreError, match="file"):
        host.observe(store=path, console="simple")

    assert host.center.sinks() == ()
    assert host.services.control is None


def test_a_bad_second_sink_detaches_the_first(tmp_path: Path) -> None:
    """When one of several sinks cannot be made, none stays."""
    host = Runtime()
    with pytest.raises(ValueError, match="console mode"):
        host.observe(store=tmp_path / "s", console="loud")

    assert host.center.sinks() == ()
    assert host.services.control is None


def test_a_missing_sink_names_the_install_command() -> None:
    """Asking for a sink nobody installed says what to install and what is there."""
    with pytest.raises(SinkNotAvailable, match=r"no sink 'nonsense'.*installed sinks: .*console"):
        Runtime().observe(sinks=["nonsense:target"])


def test_a_missing_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink whose dependency is missing names the extra."""
    import flowdeck._observation as observation

    class Point:
        name = "otlp"

        def load(self) -> Any:
            raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")

    monkeypatch.setattr(observation, "entry_points", lambda group: [Point()])

    with pytest.raises(SinkNotAvailable, match=r"pip install 'flowdeck\[otlp\]'"):
        Runtime().observe(otlp=True)


def test_third_party_sinks_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink found by its entry point gets its target, events, flush and close."""
    import flowdeck._observation as observation

    made: list[tuple[str, Collector]] = []

    class Point:
        name = "mine"

        def load(self) -> Any:
            def create_sink(target: str, **options: Any) -> Collector:
                made.append((target, Collector("mine")))
                return made[-1][1]

            return create_sink

    monkeypatch.setattr(observation, "entry_points", lambda group: [Point()])
    host = Runtime()
    with host.observe(sinks=["mine:tcp://x:1"], event_types="billing.*", level="WARNING") as seen:
        host.emit({"event_type": "billing.paid", "level": "WARNING"})
        host.emit({"event_type": "billing.paid"})
        host.emit({"event_type": "other", "level": "WARNING"})

    ((target, sink),) = made
    assert target == "tcp://x:1"
    assert sink.types == ["billing.paid"]
    assert sink.closed == 1
    assert seen.statistics()["sinks"]["mine"]["accepted"] == 1


@pytest.mark.parametrize(
    ("environ", "names", "stored"),
    [
        ({}, None, False),
        ({"FLOWDECK_SINKS": "off", "FLOWDECK_STORE": "x"}, None, False),
        ({"FLOWDECK_STORE": "x"}, ["journal"], True),
        ({"FLOWDECK_STORE": "x", "FLOWDECK_SINKS": "console:detail"}, ["journal", "console"], True),
        ({"FLOWDECK_SINKS": "console"}, ["console"], False),
        ({"FLOWDECK_STORE": "x", "FLOWDECK_SINKS": " store , console "}, ["journal", "console"], True),
    ],
)
def test_the_environment_attaches_sinks(
    environ: dict[str, str], names: list[str] | None, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLOWDECK_STORE and FLOWDECK_SINKS attach what they say."""
    monkeypatch.chdir(tmp_path)
    host = Runtime()
    seen = host.observe_from_environment(environ)
    try:
        assert (None if seen is None else [sink.name for sink in seen.sinks]) == names
        assert (seen is not None and seen.store is not None) == stored
    finally:
        host.close(2.0)


def test_a_bad_environment_does_not_break_the_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the variables is logged; the program runs unobserved."""
    path = tmp_path / "file"
    path.write_text("x")

    assert Runtime().observe_from_environment({"FLOWDECK_STORE": str(path)}) is None
    assert "runs unobserved" in caplog.text
    assert Runtime().observe_from_environment({"FLOWDECK_SINKS": "nonsense"}) is None
    assert "no sink 'nonsense'" in caplog.text


PROGRAM = """
import asyncio
from flowdeck import TriggerFlow, runtime
{first}
async def double(data):
    return data.input * 2
flow = TriggerFlow(name="double")
flow.to(double)
asyncio.run(flow.async_start(2))
"""


@pytest.mark.parametrize(
    ("first", "environ"),
    [("runtime.observe(store='s')", {}), ("", {"FLOWDECK_STORE": "s"})],
    ids=["code", "environment"],
)
def test_a_program_that_just_ends_loses_nothing(first: str, environ: dict[str, str], tmp_path: Path) -> None:
    """Interpreter exit closes observations: every event is in the store although nobody closed anything."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("FLOWDECK_")}
    subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first)],
        cwd=tmp_path, env={**env, **environ}, check=True, timeout=60,
    )  # fmt: skip
    types = [event["event_type"] for event in journal(tmp_path / "s")]

    assert types[0] == "triggerflow.definition_declared"
    assert types[-1] == "triggerflow.execution_closed"


def test_exit_waits_for_a_stuck_sink_only_so_long(tmp_path: Path) -> None:
    """A sink that never finishes holds the interpreter's exit for two seconds, not for ever."""
    code = """
import threading, time
from flowdeck import runtime
class Stuck:
    name = "stuck"
    def accept(self, record): pass
    def flush(self, timeout): return threading.Event().wait(timeout)
    def close(self, timeout): threading.Event().wait(timeout)
    def statistics(self): return {}
runtime.observe(sinks=[Stuck(), Stuck()])
"""
    done = subprocess.run(
        [sys.executable, "-c", code + "print(time.time())"],
        cwd=tmp_path, timeout=30, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert time.time() - float(done.stdout) < 6.0, "two sinks share the two seconds"


def test_the_emit_family_is_one(tmp_path: Path) -> None:
    """All emit names of a runtime reach the same center, and an emitter made by it too."""
    host = Runtime()
    sink = Collector()
    host.observe(sinks=[sink])

    async def main() -> None:
        await host.async_emit({"event_type": "a.b"})
        await host.async_emit_observation({"event_type": "a.b"})
        await host.async_emit_runtime({"event_type": "a.b"})
        await host.create_emitter("X").async_info("m")

    asyncio.run(main())
    host.emit_observation({"event_type": "a.b"})
    host.emit_runtime({"event_type": "a.b"})

    assert len(sink.records) == 6
    assert host.flush(1.0)
    assert host.statistics()["sinks"]["collector"]["accepted"] == 6


def test_observations_work_in_async_blocks(tmp_path: Path) -> None:
    """The async form closes without blocking the loop."""
    host = Runtime()

    async def main() -> Observation:
        async with host.observe(store=tmp_path / "s") as seen:
            await host.async_emit({"event_type": "a.b"})

        return seen

    assert asyncio.run(main()).closed
    assert len(journal(tmp_path / "s")) == 1


def test_closing_a_runtime_closes_everything(tmp_path: Path) -> None:
    """Every observation and every sink is closed, once."""
    host = Runtime()
    sink, direct = Collector(), Collector("direct")
    host.observe(store=tmp_path / "s", sinks=[sink])
    host.center.add_sink(direct)
    host.close(5.0)
    host.close(5.0)

    assert (sink.closed, direct.closed) == (1, 1)
    assert host.center.sinks() == ()
