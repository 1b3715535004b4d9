from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.events.support import collecting

from flowdeck.events import RunContext, run_scope


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_level_helpers(level: str) -> None:
    """Each helper, in both forms, emits runtime.<level> at its level with the message as text."""
    center, sink = collecting()
    emitter = center.create_emitter("Docs", base_meta={"tenant": "demo"})
    getattr(emitter, level)("hello", payload={"a": 1})
    asyncio.run(getattr(emitter, f"async_{level}")("hello", meta={"extra": 1}))

    first, second = sink.records
    assert {first.event_type, second.event_type} == {f"runtime.{level}"}
    assert {first.level, second.level} == {level.upper()}
    assert (first.message, first.source, first.payload) == ("hello", "Docs", {"a": 1})
    assert second.meta["tenant"] == "demo" and second.meta["extra"] == 1
    if level in ("error", "critical"):
        assert first.error is not None and first.error.type == "RuntimeError"


def test_messages_become_text_and_types_can_be_given() -> None:
    """Anything can be said; another event type is welcome; an error's message defaults to its text."""
    center, sink = collecting()
    emitter = center.create_emitter("Docs")
    emitter.info(42, event_type="billing.note")
    emitter.error(ValueError("bad"), event_type="billing.failed")
    emitter.error(ValueError("bad"), message="worse")

    assert [(record.event_type, record.message) for record in sink.records] == [
        ("billing.note", "42"),
        ("billing.failed", "bad"),
        ("runtime.error", "worse"),
    ]
    assert sink.records[1].error is not None and sink.records[1].error.type == "ValueError"


def test_run_falls_back_to_the_base_run_then_to_the_current() -> None:
    """The explicit run wins, then the emitter's, then the code's."""
    center, sink = collecting()
    base, explicit, current = (RunContext.create(run_kind=kind) for kind in ("base", "explicit", "current"))
    with run_scope(current):
        center.create_emitter("A", base_run=base).emit("a.b", run=explicit)
        center.create_emitter("A", base_run=base).emit("a.b")
        center.create_emitter("A").emit("a.b")

    assert [record.run for record in sink.records] == [explicit, base, current]


def test_base_meta_can_grow() -> None:
    """update_base_meta reaches later events, not earlier ones; the call's meta lies over it."""
    center, sink = collecting()
    emitter = center.create_emitter("A", base_meta={"a": 1})
    emitter.emit("a.b")
    emitter.update_base_meta({"b": 2})
    emitter.emit("a.b", meta={"a": 3})

    own = [{key: value for key, value in record.meta.items() if key in "ab"} for record in sink.records]
    assert own == [{"a": 1}, {"a": 3, "b": 2}]


@pytest.mark.parametrize(
    "bad", [{"event_type": ""}, {"event_type": "a", "level": "LOUD"}, {"event_type": "a", "run": 3}]
)
def test_a_bad_event_is_quarantined_not_raised(bad: dict[str, Any]) -> None:
    """Emitters never raise."""
    center, sink = collecting()
    center.create_emitter("A").emit(**bad)
    asyncio.run(center.create_emitter("A").async_emit(**bad))

    assert len(center.quarantine()) == 2
    assert sink.types == ["runtime.event_quarantined"] * 2


def test_a_source_is_found_when_none_is_given() -> None:
    """An emitter without a name takes its maker's."""
    center, _ = collecting()

    assert center.create_emitter().source.endswith("test_emitter")
    assert center.create_observation_emitter("X").source == "X"
