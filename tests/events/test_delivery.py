"""Delivery policies: background hooks that hang, and hooks that gather events into summaries."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.events.support import collecting

from flowdeck.events import EventCenter, EventRecord, ObservationEvent
from flowdeck.events.delivery import DeliveryPolicy, is_high_frequency
from flowdeck.events.intake import make_record


class Inbox:
    """A callback that keeps events and lets a test wait for them."""

    def __init__(self) -> None:
        self.events: list[ObservationEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: ObservationEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.events) >= count, 10)

    @property
    def counts(self) -> list[int]:
        """How many events each delivery stands for."""
        return [e.payload["count"] if e.meta.get("coalesced") else 1 for e in self.events]


def delta(n: int, **more: Any) -> dict[str, Any]:
    return {"event_type": "model.streaming", "source": "S", "payload": {"delta": f"t{n}"}, **more}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event_type": "model.streaming", "payload": {"delta": "x"}}, True),
        ({"event_type": "model.response.delta"}, True),
        ({"event_type": "triggerflow.stream_item_emitted"}, True),
        ({"event_type": "a.delta"}, True),
        ({"event_type": "a.text_delta"}, True),
        ({"event_type": "a.b", "meta": {"high_frequency": True}}, True),
        ({"event_type": "a.b", "meta": {"frequency": "high"}}, True),
        ({"event_type": "a.b", "payload": {"event_type": "delta"}}, True),
        ({"event_type": "a.b", "payload": {"delta": "text"}}, True),
        ({"event_type": "a.b", "payload": {"delta": 3}}, False),
        ({"event_type": "a.b", "meta": {"high_frequency": "yes"}}, False),
        ({"event_type": "deltas"}, False),
        ({"event_type": "chunk.started"}, False),
    ],
)
def test_what_is_of_high_frequency(event: dict[str, Any], expected: bool) -> None:
    """Deltas, stream items, and what says so itself."""
    assert is_high_frequency(make_record(**event)) is expected


@pytest.mark.parametrize(
    ("given", "dispatch", "expected"),
    [
        (None, "await", DeliveryPolicy()),
        ({}, "background", DeliveryPolicy(dispatch="background")),
        ({}, "coalesced", DeliveryPolicy(dispatch="background", summary=True)),
        ({"mode": "summary"}, "await", DeliveryPolicy(summary=True)),
        ({"batch_size": 5}, "await", DeliveryPolicy(summary=True, max_items=5)),
        ({"interval": 0.5}, "await", DeliveryPolicy(summary=True, emit_interval=0.5)),
        ({"background_timeout": 2}, "background", DeliveryPolicy("background", background_timeout=2.0)),
        ({"mode": "fancy", "dispatch": "later", "max_items": -1, "emit_interval": None}, "await", DeliveryPolicy()),
        ({"max_items": "many", "idle_flush_seconds": float("nan"), "max_summary_items": 0}, "await", DeliveryPolicy()),
        ({"max_items": True, "emit_interval": float("inf")}, "await", DeliveryPolicy()),
        ("summary", "await", DeliveryPolicy()),
    ],
)  # fmt: skip
def test_reading_a_policy(given: Any, dispatch: str, expected: DeliveryPolicy) -> None:
    """Both names of an option count; what is invalid counts as not given."""
    assert DeliveryPolicy.of(given, dispatch) == expected


def test_a_summary_for_so_many_events() -> None:
    """With max_items, one summary stands for that many; it carries the last events, the counts and the lineage."""
    center, inbox = EventCenter(), Inbox()
    policy = {"mode": "summary", "max_items": 5, "max_summary_items": 2, "idle_flush_seconds": 60}
    center.register_hook(inbox, hook_name="h", delivery_policy=policy)

    async def main() -> None:
        for n in range(12):
            await center.async_emit(delta(n, run={"run_id": f"r{n}"}, meta={"k": n, "high_frequency": True}))

        assert inbox.counts == [5, 5]
        assert center.statistics()["hooks"]["h"]["queued"] == 1
        assert await center.async_flush("h")

    asyncio.run(main())
    assert inbox.counts == [5, 5, 2]
    summary = inbox.events[0]
    assert (summary.event_type, summary.source, summary.message) == (
        "model.streaming",
        "S",
        "5 coalesced runtime events",
    )
    assert summary.payload["truncated"] is True
    assert summary.payload["last_payload"] == {"delta": "t4"}
    assert [item["payload"]["delta"] for item in summary.payload["events"]] == ["t3", "t4"]
    assert summary.run is not None and summary.run.run_id == "r4"
    assert summary.payload["events"][-1]["run"]["run_id"] == "r4"
    meta = summary.meta
    assert (meta["coalesced"], meta["coalesced_count"], meta["k"]) == (True, 5, 4)
    assert meta["first_event_id"] != meta["last_event_id"] == summary.payload["events"][-1]["event_id"]
    assert meta["first_event_at"] <= meta["last_event_at"]
    assert summary.event_id not in (meta["first_event_id"], meta["last_event_id"])
    assert not is_high_frequency(EventRecord("x", "INFO", 0, 0, "", None, None, None, _meta=meta))
    assert inbox.events[2].payload["truncated"] is False


def test_another_event_comes_after_the_summary_before_it() -> None:
    """An event that is not of high frequency is delivered at once, behind what was gathered; order is kept."""
    center, inbox = EventCenter(), Inbox()
    center.register_hook(inbox, hook_name="h", delivery_policy={"mode": "summary", "idle_flush_seconds": 60})
    for n in range(3):
        center.emit(delta(n))

    center.emit({"event_type": "model.completed", "message": "done"})
    assert inbox.counts == [3, 1]
    assert inbox.events[1].message == "done"


def test_everything_can_be_gathered() -> None:
    """high_frequency_only=False gathers any event; one summary mixes their types."""
    center, inbox = EventCenter(), Inbox()
    policy = {"max_items": 3, "high_frequency_only": False, "idle_flush_seconds": 60}
    center.register_hook(inbox, hook_name="h", delivery_policy=policy)
    for name in ("a.one", "a.two", "a.three"):
        center.emit({"event_type": name})

    assert inbox.counts == [3]
    assert [item["event_type"] for item in inbox.events[0].payload["events"]] == ["a.one", "a.two", "a.three"]
    assert inbox.events[0].event_type == "a.three"


def test_an_old_summary_goes_with_the_next_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """With emit_interval, a summary whose first event is that old is delivered when a further one arrives."""
    now = [100.0]
    monkeypatch.setattr("flowdeck.events.delivery.time.monotonic", lambda: now[0])
    center, inbox = EventCenter(), Inbox()
    center.register_hook(inbox, hook_name="h", delivery_policy={"emit_interval": 5, "idle_flush_seconds": 3600})
    center.emit(delta(1))
    now[0] += 4.0
    center.emit(delta(2))
    assert inbox.counts == []
    now[0] += 1.0
    center.emit(delta(3))
    assert inbox.counts == [3]


def test_a_summary_after_a_quiet_moment() -> None:
    """Nothing further comes: the summary is delivered after the idle time, on the loop its events came from."""
    threads: list[int] = []
    center = EventCenter(idle_flush_seconds=0.01)

    async def main() -> None:
        come = asyncio.Event()

        async def hook(event: ObservationEvent) -> None:
            threads.append(threading.get_ident())
            come.set()

        center.register_hook(hook, dispatch="coalesced")
        center.emit(delta(1))
        await asyncio.wait_for(come.wait(), 10)
        come.clear()
        center.emit(delta(2))
        await asyncio.wait_for(come.wait(), 10)

    asyncio.run(main())
    assert threads == [threading.get_ident()] * 2


def test_a_summary_outlives_its_loop() -> None:
    """A program's loop may end before the idle time: the summary is delivered on the Event Center's thread."""
    center, inbox = EventCenter(idle_flush_seconds=0.05), Inbox()
    center.register_hook(inbox, hook_name="h", dispatch="coalesced")

    async def main() -> None:
        center.emit(delta(1))
        center.emit(delta(2))

    asyncio.run(main())
    assert inbox.wait(1)
    assert inbox.counts == [2]
    center.hook_thread.stop()  # as close() does; a later event starts it again
    center.emit(delta(3))
    assert inbox.wait(2)


def test_nothing_gathered_is_lost_at_the_end() -> None:
    """Removing the hook, flushing and closing deliver what is gathered."""
    for end in ("unregister_hook", "flush", "close", "replace"):
        center, inbox = EventCenter(), Inbox()
        center.register_hook(inbox, hook_name="h", dispatch="coalesced", delivery_policy={"idle_flush_seconds": 60})
        for n in range(7):
            center.emit(delta(n))

        if end == "unregister_hook":
            center.unregister_hook("h")
        elif end == "replace":
            center.register_hook(lambda event: None, hook_name="h")
        else:
            getattr(center, end)()

        assert inbox.wait(1), end
        assert inbox.counts == [7], end


def test_runtime_events_are_gathered_too() -> None:
    """What the framework emits is gathered without a wait, from many threads at once, and every event is counted."""
    center, inbox = EventCenter(), Inbox()
    center.register_hook(inbox, hook_name="h", dispatch="coalesced", delivery_policy={"max_items": 100})
    event = center.type("model.streaming")

    def work() -> None:
        for n in range(1_000):
            event.emit({"delta": str(n)})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert center.flush()
    assert sum(inbox.counts) == 4_000
    assert set(inbox.counts) == {100}


def test_a_hook_that_emits_what_it_gathers() -> None:
    """A hook's own events are not gathered for it, so it cannot feed itself."""
    center = EventCenter()
    seen: list[ObservationEvent] = []

    def hook(event: ObservationEvent) -> None:
        seen.append(event)
        center.emit(delta(99))

    center.register_hook(hook, delivery_policy={"max_items": 1})
    center.emit(delta(1))
    assert center.flush()
    assert len(seen) == 1


def test_flooding_costs_no_memory() -> None:
    """A summary keeps the last few events; the others are only counted."""
    center, inbox = EventCenter(), Inbox()
    center.register_hook(inbox, hook_name="h", dispatch="coalesced", delivery_policy={"idle_flush_seconds": 60})
    for n in range(20_000):
        center.emit(delta(n))

    hook = center._hooks["h"]
    assert len(hook._gathered.items) == 20  # type: ignore[attr-defined]
    assert center.flush()
    assert inbox.counts == [20_000]


def test_a_background_hook_that_hangs() -> None:
    """async_flush cancels what a background hook hangs in after its timeout, says so, and delivers the rest."""
    center, sink = collecting()
    seen: list[str] = []

    async def hook(event: ObservationEvent) -> None:
        seen.append(event.message or "")
        if event.message == "hang":
            await asyncio.Event().wait()

    policy = {"dispatch": "background", "background_timeout": 0.05}
    center.register_hook(hook, hook_name="h", event_types="a.*", delivery_policy=policy)

    async def main() -> None:
        for text in ("one", "hang", "two", "three"):
            await center.async_emit({"event_type": "a.b", "message": text})

        assert await center.async_flush("h") is False
        assert await center.async_flush("h", timeout=5) is True

    asyncio.run(main())
    assert seen == ["one", "hang", "two", "three"]
    assert center.statistics()["hooks"]["h"]["failures"] == 1
    (failed,) = [r for r in sink.records if r.event_type == "runtime.hook_failed"]
    assert failed.error is not None and "cancelled after 0.05 s" in str(failed.error.message)


def test_waiting_is_not_cancelling() -> None:
    """Without a background_timeout a flush only waits: a hook that is slow, or awaited, is never cancelled."""
    center = EventCenter()
    done: list[str] = []

    async def main() -> None:
        gate = asyncio.Event()

        async def hook(event: ObservationEvent) -> None:
            await gate.wait()
            done.append("end")

        center.register_hook(hook, hook_name="h", dispatch="background")
        await center.async_emit({"event_type": "a.b"})
        assert await center.async_flush("h", timeout=0.02) is False
        gate.set()
        assert await center.async_flush("h") is True

    asyncio.run(main())
    assert done == ["end"]


@pytest.mark.parametrize("dispatch", ["await", "background", "coalesced"])
def test_a_hook_that_flushes_does_not_wait_for_itself(dispatch: str) -> None:
    """It is told that not everything is delivered, and the flush outside waits for it as for any other."""
    center = EventCenter()
    done: list[bool] = []

    async def hook(event: ObservationEvent) -> None:
        done.append(await center.async_flush("h"))

    async def main() -> None:
        center.register_hook(hook, hook_name="h", dispatch=dispatch)
        await center.async_emit({"event_type": "a.delta"})
        assert await center.async_flush("h")

    asyncio.run(asyncio.wait_for(main(), 10))
    assert done == [False]


def test_what_is_no_event_type_is_refused_by_name() -> None:
    """Where the hook is registered."""
    for wrong, text in ((3, "got 3"), ([3], "got int: 3")):
        with pytest.raises(TypeError, match=f"event_types must .*{text}"):
            EventCenter().register_hook(print, event_types=wrong)  # type: ignore[arg-type]
