"""The samples of seed 004, run as they stand, with only the import changed."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from inspect import CO_COROUTINE
from types import CodeType
from typing import Any

import pytest

from flowdeck.events import ErrorInfo, EventCenter
from flowdeck.events.aliases import get_triggerflow_event_aliases

HOOK = """
from agently import Agently
captured = []
async def capture(event):
    captured.append(event)
Agently.event_center.register_hook(
    capture,
    event_types="runtime.info",
    hook_name="docs.capture",
)
emitter = Agently.event_center.create_emitter("Docs")
await emitter.async_info("hello")
Agently.event_center.unregister_hook("docs.capture")
"""
EMITTER = """
emitter = Agently.event_center.create_emitter(
    "BillingWorker",
    base_meta={"tenant": "demo"},
)
await emitter.async_emit(
    "billing.invoice_created",
    message="invoice created",
    payload={"invoice_id": "inv-1"},
)
"""
DIRECT = """
await Agently.event_center.async_emit({
    "event_type": "runtime.info",
    "source": "Docs",
    "message": "direct event",
})
"""
TOP_LEVEL = """
await Agently.async_emit_observation({
    "event_type": "runtime.info",
    "source": "Docs",
    "message": "preferred observation API",
})
await Agently.async_emit_runtime({
    "event_type": "runtime.info",
    "source": "Docs",
    "message": "legacy runtime API",
})
"""
IMPORT = "from agently import Agently"


def run_sample(*samples: str) -> dict[str, Any]:
    """Run code blocks of the seed, one after the other, in one namespace."""
    source = "\n".join(samples)
    if IMPORT not in source:
        source = f"{IMPORT}\n{source}"

    changed = source.replace(IMPORT, "from flowdeck.compat import Agently")
    code: CodeType = compile(changed, "<seed 004>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert code.co_flags & CO_COROUTINE
    namespace: dict[str, Any] = {"__name__": "docs"}

    async def main() -> None:
        await eval(code, namespace)

    asyncio.run(main())
    return namespace


@pytest.fixture
def everything() -> Iterator[list[Any]]:
    """Every event of the compatible main object, as a hook sees it."""
    from flowdeck.compat import Agently

    events: list[Any] = []
    Agently.event_center.register_hook(events.append, event_types=None, hook_name="test.everything")
    yield events
    Agently.event_center.unregister_hook("test.everything")


def test_the_hook_sample() -> None:
    """A hook on runtime.info captures what an emitter's async_info says, before the call returns."""
    names = run_sample(HOOK)
    (event,) = names["captured"]

    assert (event.event_type, event.source, event.level, event.message) == ("runtime.info", "Docs", "INFO", "hello")


def test_the_hook_is_gone_after_unregistering() -> None:
    """Events after unregister_hook are not captured."""
    assert len(run_sample(HOOK, DIRECT)["captured"]) == 1


def test_the_emitter_sample(everything: list[Any]) -> None:
    """An emitter stamps source and base meta on its events."""
    run_sample(EMITTER)
    (event,) = everything

    assert (event.event_type, event.source, event.message) == (
        "billing.invoice_created", "BillingWorker", "invoice created",
    )  # fmt: skip
    assert event.payload == {"invoice_id": "inv-1"}
    assert event.meta["tenant"] == "demo"


def test_the_direct_and_top_level_samples(everything: list[Any]) -> None:
    """A plain mapping can be emitted through the center and through both top-level names."""
    run_sample(DIRECT)
    run_sample(TOP_LEVEL)

    assert [event.message for event in everything] == [
        "direct event",
        "preferred observation API",
        "legacy runtime API",
    ]
    assert {event.source for event in everything} == {"Docs"}


@pytest.mark.parametrize("event_types", ["runtime.info", ["billing.paid", "runtime.info"], None])
def test_event_types_may_be_text_list_or_none(event_types: Any) -> None:
    """The three forms the seed names all receive runtime.info; a plain function can be registered too."""
    from flowdeck.compat import Agently

    seen: list[Any] = []
    Agently.event_center.register_hook(seen.append, event_types=event_types, hook_name="docs.forms")
    try:
        run_sample(DIRECT)
    finally:
        Agently.event_center.unregister_hook("docs.forms")

    assert [event.message for event in seen] == ["direct event"]


def test_the_fields_of_the_table() -> None:
    """The event has the ten fields of the table, the run its lineage fields, and an exception becomes ErrorInfo."""
    from flowdeck.compat import ObservationEvent, RunContext, RuntimeEvent

    run = RunContext.create(run_kind="request", session_id="s", execution_id="e", parent_run_id="p")
    event = ObservationEvent(event_type="a.b", error=ValueError("bad"), run=run)

    assert set(ObservationEvent.model_fields) == {
        "event_id", "event_type", "source", "level", "message", "payload", "error", "run", "meta", "timestamp",
    }  # fmt: skip
    assert isinstance(event.error, ErrorInfo)
    assert (event.run.run_id, event.run.parent_run_id) == (run.run_id, "p")
    assert (event.run.session_id, event.run.execution_id) == ("s", "e")
    assert issubclass(RuntimeEvent, ObservationEvent)


@pytest.mark.parametrize(
    ("subscribed", "emitted"),
    [
        ("workflow.execution_started", "triggerflow.execution_started"),
        ("trigger_flow.signal", "triggerflow.signal"),
    ],
)
def test_legacy_prefixes_receive_new_names(subscribed: str, emitted: str) -> None:
    """Subscribers of the old prefixes get the events, under the type they were emitted with."""
    center = EventCenter()
    seen: list[str] = []
    center.register_hook(lambda event: seen.append(event.event_type), event_types=subscribed, hook_name="h")
    center.emit({"event_type": emitted})

    assert seen == [emitted]
    assert subscribed in get_triggerflow_event_aliases(emitted)


def test_actions_and_tools_are_separate() -> None:
    """A subscriber of action.loop_started does not get its tool.* twin."""
    center = EventCenter()
    seen: list[str] = []
    center.register_hook(lambda event: seen.append(event.event_type), event_types="action.loop_started", hook_name="h")
    for name in ("action.loop_started", "tool.loop_started"):
        center.emit({"event_type": name})

    assert seen == ["action.loop_started"]
