from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.events.support import Collector, collecting

from flowdeck.events import EventCenter, UnlistedEvent
from flowdeck.events.catalogue import (
    CATALOGUE,
    INITIAL,
    LEVELS,
    STATUSES,
    TERMINAL,
    TRANSITIONS,
    catalogue_markdown,
    is_framework_type,
    next_status,
    problems,
    status_mermaid,
)
from flowdeck.events.model import ObservationEvent


def test_every_row_is_sound() -> None:
    """Levels, names and transitions of every row exist."""
    for spec in CATALOGUE.values():
        assert spec.level in LEVELS, spec
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", spec.name), spec
        assert spec.transition is None or spec.transition in STATUSES, spec
        assert spec.summary.endswith("."), spec
        assert len(set(spec.payload_keys)) == len(spec.payload_keys), spec


def test_every_status_can_be_reached_and_left() -> None:
    """The machine has no dead end but the terminal statuses, and no status nothing leads to."""
    reached = {INITIAL} | {target for targets in TRANSITIONS.values() for target in targets}

    assert reached == set(STATUSES)
    assert {status for status in STATUSES if not TRANSITIONS[status]} == TERMINAL
    assert "lost" not in {spec.transition for spec in CATALOGUE.values()}, "observers conclude it, nobody emits it"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "created"),
        (["triggerflow.execution_started"], "running"),
        (["triggerflow.execution_started", "triggerflow.execution_waiting"], "waiting"),
        (
            ["triggerflow.execution_started", "triggerflow.execution_waiting", "triggerflow.execution_resumed"],
            "running",
        ),
        (
            ["triggerflow.execution_started", "triggerflow.execution_completed", "triggerflow.execution_resumed"],
            "completed",
        ),
        (["triggerflow.execution_started", "triggerflow.execution_failed", "triggerflow.execution_closed"], "failed"),
        (["triggerflow.execution_started", "triggerflow.some_new_failed", "user.completed"], "running"),
    ],
)
def test_status_comes_from_the_machine(events: list[str], status: str) -> None:
    """Known events move the status, unknown names and late events do not."""
    at = INITIAL
    for name in events:
        at = next_status(at, name)

    assert at == status


def test_lost_ends_with_a_sign_of_life() -> None:
    """What an observer took for lost may come back."""
    assert next_status("lost", "triggerflow.execution_recovered") == "running"


def test_a_strict_center_refuses_unlisted_framework_types() -> None:
    """Framework code cannot get a type the catalogue does not list; user types stay open."""
    center = EventCenter(strict_catalogue=True)

    with pytest.raises(UnlistedEvent, match="_catalogue_rows"):
        center.type("triggerflow.execution_exploded")

    assert center.type("billing.invoice_created").level == "INFO"
    assert center.type("execution_environment.warming_up").level == "INFO"
    center.emit({"event_type": "chunk.exploded"})
    assert center.quarantine()[0].event_type == "chunk.exploded"


def test_problems_name_what_differs() -> None:
    """An event with another level, unknown payload keys or another run kind is reported, a user's never."""
    center, sink = collecting()
    center.type("chunk.started").emit({"status": "running"})
    center.type("chunk.started").emit({"surprise": 1}, level="ERROR")
    center.type("triggerflow.exploded").emit()
    center.type("billing.paid").emit({"anything": 1})
    center.type("execution_environment.new").emit({"x": 1})

    good, bad, unlisted, user, extensible = (problems(record) for record in sink.records)

    assert good == user == extensible == []
    assert [line.partition(":")[2] for line in bad] == [
        " level ERROR, the catalogue says INFO",
        " payload keys surprise are not in the catalogue",
    ]
    assert "not in the catalogue" in unlisted[0]


def test_the_tables_show_every_event() -> None:
    """The generated documentation lists each event once."""
    text = catalogue_markdown()

    for name in CATALOGUE:
        assert text.count(f"| `{name}` |") == 1

    assert catalogue_markdown(["runtime.info"]).count("| `") == 1
    assert all(line.count("|") == 7 for line in text.splitlines() if line.startswith("|"))


def test_the_diagram_has_every_transition() -> None:
    """The Mermaid diagram draws the whole machine."""
    lines = [line.strip() for line in status_mermaid().splitlines()]

    for status, following in TRANSITIONS.items():
        for target in following:
            assert any(line.startswith(f"{status} --> {target}") for line in lines)


def test_a_flow_emits_only_what_is_listed() -> None:
    """A real flow with failure, retry, pause, state and stream has no event the catalogue does not know."""
    from flowdeck import Retry, Runtime, TriggerFlow

    host = Runtime()
    sink = Collector()
    host.center.add_sink(sink, min_level="DEBUG")

    async def step(data: Any) -> Any:
        await data.async_set_state("seen", data.input)
        await data.async_put_into_stream({"item": data.input})
        return data.input

    async def flaky(data: Any) -> Any:
        if data.attempt == 1:
            raise ValueError("first")

        return data.input

    async def ask(data: Any) -> Any:
        return await data.async_pause_for(type="approval", payload={"x": 1})

    async def boom(data: Any) -> Any:
        raise RuntimeError("boom")

    async def main() -> None:
        flow = TriggerFlow(name="listed")
        flow.to(step).to(flaky, retry=Retry(attempts=2)).for_each(concurrency=2).to(("inner", step)).end_for_each().to(
            ask
        )
        execution = flow.create_execution(auto_close=False)
        await execution.async_start([1, 2])
        for interrupt in list(execution.get_pending_interrupts()):
            await execution.async_continue_with(interrupt, "yes", actor="ana")

        await execution.async_close()

        failing = TriggerFlow(name="failing")
        failing.to(boom)
        with pytest.raises(RuntimeError):
            await failing.async_start(1)

    with host.use():
        asyncio.run(main())

    assert {"triggerflow.execution_started", "chunk.failed", "triggerflow.interrupt_raised"} <= set(sink.types)
    assert [problem for record in sink.records for problem in problems(record)] == []


def test_events_of_users_are_no_framework_types() -> None:
    """Only the families of the catalogue are held to it."""
    assert is_framework_type("chunk.anything")
    assert not is_framework_type("billing.paid")
    assert ObservationEvent(event_type="billing.paid").level == "INFO"
