"""What hooks of the compatible API get that native ones do not: built-in hookers, and diagrams in the definition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from flowdeck import Runtime, TriggerFlow
from flowdeck.compat import AgentlyMain, EventCenter, RuntimeConsoleSinkHooker, RuntimeStorageSinkHooker


@pytest.fixture
def main() -> Iterator[AgentlyMain]:
    made = AgentlyMain(Runtime())
    yield made
    made.runtime.close()


def attached(main: AgentlyMain) -> list[str]:
    return [sink.name for sink in main.runtime.center.sinks()]


def test_the_console_hooker_is_a_switch_of_the_console(main: AgentlyMain) -> None:
    """It is registered from the start and follows the settings; without it they show nothing."""
    main.event_center.register_hooker_plugin(RuntimeConsoleSinkHooker)
    assert attached(main) == []
    main.set_settings("debug", True)
    assert attached(main) == ["console"]
    main.event_center.unregister_hooker_plugin("RuntimeConsoleSinkHooker")
    assert attached(main) == []
    main.set_settings("debug", "detail")
    assert attached(main) == []
    main.event_center.register_hooker_plugin(RuntimeConsoleSinkHooker)
    main.event_center.register_hooker_plugin(RuntimeConsoleSinkHooker)
    assert attached(main) == ["console"]


def test_the_storage_hooker_logs_warnings(main: AgentlyMain, caplog: pytest.LogCaptureFixture) -> None:
    """From WARNING on, while it is registered; also below what the logger is set to."""
    caplog.set_level(logging.DEBUG, "flowdeck.observation")
    for registered in (True, False):
        if registered:
            main.event_center.register_hooker_plugin(RuntimeStorageSinkHooker)
        else:
            main.event_center.unregister_hooker_plugin(RuntimeStorageSinkHooker)

        main.event_center.emit({"event_type": "billing.late", "level": "WARNING", "message": f"late {registered}"})
        main.event_center.emit({"event_type": "billing.paid", "message": "paid"})
        main.runtime.center.flush()

    assert [record.getMessage() for record in caplog.records] == ["billing.late - late True"]


def test_a_built_in_hooker_needs_a_runtime() -> None:
    """A center of its own has no place for sinks; the error names the one that has."""
    with pytest.raises(ValueError, match="RuntimeConsoleSinkHooker .*register it with Agently.event_center"):
        EventCenter().register_hooker_plugin(RuntimeConsoleSinkHooker)


def test_a_center_takes_the_references_options() -> None:
    """``idle_flush_seconds`` and ``background_timeout`` hold for hooks whose policy says nothing else."""
    center = EventCenter(idle_flush_seconds=30.0, background_timeout=0.01)
    stuck: list[str] = []

    async def hangs(event: Any) -> None:
        stuck.append(event.event_type)
        await asyncio.Event().wait()

    async def run() -> bool:
        center.register_hook(hangs, delivery_policy={"mode": "summary", "dispatch": "background"})
        await center.async_emit({"event_type": "a.delta"})
        return bool(await center.async_flush())

    assert asyncio.run(run()) is False
    assert stuck == ["a.delta"]


def test_a_definition_comes_with_its_diagrams(main: AgentlyMain) -> None:
    """In both modes, for hooks that want the event, plain or async; a native hook gets the definition alone."""
    seen: dict[str, Any] = {}

    async def slow(event: Any) -> None:
        seen["async"] = event.payload

    async def run() -> None:
        flow = TriggerFlow(name="drawn")
        flow.to(("step", lambda data: data.input))
        with main.runtime.use():
            await flow.async_start(1)

        await main.event_center.async_flush()

    main.event_center.register_hook(lambda event: seen.setdefault("all", event.payload), hook_name="all")
    main.event_center.register_hook(slow, event_types=["workflow.definition_declared"])
    main.runtime.center.register_hook(
        lambda event: seen.update(native=event.payload), event_types="triggerflow.definition_declared", hook_name="n"
    )
    asyncio.run(run())
    native = seen.pop("native")
    assert "mermaid" not in native
    for payload in seen.values():
        assert payload["mermaid"]["simplified"].startswith("flowchart TD") and "step" in payload["mermaid"]["detailed"]
        assert {name: payload[name] for name in native} == native
    assert set(seen) == {"all", "async"}
