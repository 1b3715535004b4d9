from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

import flowdeck
import flowdeck.compat
from flowdeck import Runtime
from flowdeck.compat.agently import AgentlyMain


@pytest.fixture
def main() -> Iterator[AgentlyMain]:
    """A main object over a runtime of its own."""
    host = Runtime()
    yield AgentlyMain(host)
    host.close(1.0)


def test_every_name_resolves() -> None:
    """All exported names exist; an unknown one says where the list is."""
    for name in flowdeck.compat.__all__:
        assert getattr(flowdeck.compat, name) is not None

    assert flowdeck.compat.TriggerFlow is flowdeck.TriggerFlow
    with pytest.raises(AttributeError, match="flowdeck docs compatibility"):
        flowdeck.compat.NotThere


@pytest.mark.parametrize("event", [{}, {"event_type": "a", "level": "LOUD"}, 3, {"event_type": "a", "meta": 3}])
def test_bad_events_raise_into_the_emitter(main: AgentlyMain, event: Any) -> None:
    """Unlike the native center, the compatible one raises ValidationError."""
    with pytest.raises(pydantic.ValidationError):
        main.emit_observation(event)

    with pytest.raises(pydantic.ValidationError):
        asyncio.run(main.async_emit_runtime(event))

    with pytest.raises(pydantic.ValidationError):
        main.event_center.create_emitter("X").emit("a.b", level="LOUD")


@pytest.mark.parametrize("level", ["error", "critical"])
def test_error_helpers_raise_after_delivering(main: AgentlyMain, level: str) -> None:
    """The error is delivered, then raised, until the setting turns that off."""
    seen: list[Any] = []
    main.event_center.register_hook(seen.append, event_types=f"runtime.{level}", hook_name="h")
    emitter = main.event_center.create_emitter("X")

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(getattr(emitter, f"async_{level}")(ValueError("bad")))

    with pytest.raises(RuntimeError, match="text"):
        getattr(emitter, level)("text")

    main.settings.set(f"runtime.raise_{level}", False)
    getattr(emitter, level)("quiet")

    assert [event.message for event in seen] == ["bad", "text", "quiet"]
    assert seen[0].error.type == "ValueError"


def test_hooker_plugins(main: AgentlyMain) -> None:
    """A hook given as a class, or an object of it, is registered with its callbacks, and gone afterwards."""
    calls: list[str] = []

    class Plugin:
        name = "plugin"
        event_types = "runtime.info"
        delivery_policy = {"dispatch": "await"}  # noqa: RUF012

        @staticmethod
        async def handler(event: Any) -> None:
            calls.append(event.message)

        @staticmethod
        def _on_register() -> None:
            calls.append("registered")

        @staticmethod
        def _on_unregister() -> None:
            calls.append("unregistered")

    for plugin in (Plugin, Plugin()):
        main.event_center.register_hooker_plugin(plugin)  # type: ignore[arg-type]
        asyncio.run(main.async_print("not for it"))
        main.set_settings("debug", False)
        asyncio.run(main.event_center.async_emit({"event_type": "runtime.info", "message": "m"}))
        main.event_center.unregister_hooker_plugin(plugin)  # type: ignore[arg-type]

    main.emit_runtime({"event_type": "runtime.info", "message": "late"})

    assert calls == ["registered", "m", "unregistered"] * 2


def test_the_facade_is_the_runtimes_center(main: AgentlyMain) -> None:
    """Native and compatible code see each other's events; everything else of the center is reachable."""
    seen: list[Any] = []
    main.runtime.center.register_hook(seen.append, hook_name="native")
    main.print("a", 1)
    main.set_settings("x", 1).set_log_level("INFO")

    assert [(event.event_type, event.message) for event in seen] == [("runtime.print", "a 1")]
    assert main.event_center.statistics()["hooks"]["native"]["delivered"] == 1
    assert main.runtime.settings["x"] == 1


def test_the_source_is_the_callers(main: AgentlyMain) -> None:
    """Source inference looks past the facade."""
    seen: list[Any] = []
    main.event_center.register_hook(seen.append, hook_name="h")
    main.emit_observation({"event_type": "a.b"})

    assert seen[0].source.endswith("test_compat")
