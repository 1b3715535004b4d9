"""The reference's names for actions and environments, through flowdeck.compat."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from flowdeck import Runtime
from flowdeck.compat.agently import AgentlyMain

pytestmark = pytest.mark.anyio


@pytest.fixture
def main() -> AgentlyMain:
    """A main object over a runtime of its own."""
    return AgentlyMain(Runtime())


async def test_registering_and_calling(main: AgentlyMain) -> None:
    """Agently.action and Agently.tool are one thing, with decorators, register and the loop's handlers."""

    @main.action.action_func
    async def weather(city: Annotated[str, "A city."]) -> str:
        """Tell the weather."""
        return f"rain in {city}"

    main.tool.register(name="shout", desc="Shout.", kwargs={"text": (str, "what")}, func=_shout)
    assert set(main.tool.get_tool_info()) >= {"weather", "shout"}
    assert await main.action.async_call_action("weather", {"city": "Ulm"}) == "rain in Ulm"
    assert await main.tool.async_call_tool("shout", {"text": "hi"}) == "HI"
    record = await main.action.async_execute_action("weather", {"city": "Ulm"}, purpose="p", todo_suggestion="t")
    assert (record["status"], record["purpose"], record["todo_suggestion"]) == ("success", "p", "t")


def _shout(text: str) -> str:
    return text.upper()


async def test_hooks_of_old_and_new_see_one_loop_each(main: AgentlyMain) -> None:
    """A hook on tool.* does not get action.*, nor the other way round; both see the loop once."""
    seen: dict[str, list[Any]] = {"action.loop_started": [], "tool.loop_started": []}
    for name, events in seen.items():
        main.event_center.register_hook(events.append, event_types=name, hook_name=name)

    main.action.register_action(action_id="shout", desc="Shout.", kwargs={"text": (str, "what")}, func=_shout)
    main.action.register_plan_analysis_handler(
        lambda context, request: {
            "next_action": "execute" if not context["done_plans"] else "response",
            "tool_commands": [{"purpose": "to shout", "tool_name": "shout", "tool_kwargs": {"text": "hi"}}],
        }
    )
    main.action.set_loop_options(max_rounds=3, concurrency=2, timeout=5)
    result = await main.action.loop.async_run()
    await main.event_center.async_flush()
    assert [r["data"] for r in result["records"]] == ["HI"]
    [primary], [twin] = seen["action.loop_started"], seen["tool.loop_started"]
    assert twin.meta["primary_event_id"] == primary.event_id and twin.payload == primary.payload


async def test_environments(main: AgentlyMain) -> None:
    """Agently.execution_environment is the manager; its events reach a hook on the whole family."""
    events: list[str] = []
    main.event_center.register_hook(
        lambda event: events.append(event.event_type), event_types="execution_environment.*", hook_name="env"
    )
    manager = main.execution_environment
    declared = manager.declare({"kind": "sqlite", "scope": "session"})
    handle = await manager.async_ensure(declared["requirement_id"], owner_id="s-1")
    assert (await handle["resource"].query("SELECT 1 AS one"))["rows"] == [{"one": 1}]
    await manager.async_release_scope("session", "s-1")
    await main.event_center.async_flush()
    family = "execution_environment."
    assert events == [family + each for each in ("declared", "ensuring", "ready", "releasing", "released")]


def test_the_synchronous_names(main: AgentlyMain) -> None:
    """Sync callers have ensure, release and call_action."""
    handle = main.execution_environment.ensure({"kind": "sqlite"})
    main.execution_environment.release(handle)
    main.action.register_action(action_id="shout", desc="", func=_shout)
    assert main.action.call_action("shout", {"text": "a"}) == "A"
    assert asyncio.run(main.action.async_call_action("shout", {"text": "b"})) == "B"
