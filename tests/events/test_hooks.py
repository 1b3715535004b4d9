from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import Any

import pytest
from tests.events.support import Collector, collecting

from flowdeck.events import EventCenter, ObservationEvent


class Waiter:
    """A callback that remembers events and lets a test wait for them."""

    def __init__(self) -> None:
        self.events: list[ObservationEvent] = []
        self.threads: set[int] = set()
        self._changed = threading.Condition()

    def __call__(self, event: ObservationEvent) -> None:
        with self._changed:
            self.events.append(event)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()

    def wait(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.events) >= count, 10)

    @property
    def types(self) -> list[str]:
        return [event.event_type for event in self.events]


@pytest.mark.parametrize("wanted", ["runtime.info", ["runtime.info", "a.b"], ("runtime.*",), None])
def test_names_lists_none_and_patterns(wanted: Any) -> None:
    """All four ways of asking match; a plain function is as good as an async one."""
    center = EventCenter()
    plain: list[Any] = []
    awaited: list[Any] = []

    async def coroutine(event: ObservationEvent) -> None:
        awaited.append(event)

    center.register_hook(plain.append, event_types=wanted, hook_name="plain")
    center.register_hook(coroutine, event_types=wanted)

    async def main() -> None:
        await center.async_emit({"event_type": "runtime.info", "message": "m"})
        await center.async_emit({"event_type": "other.thing"})

    asyncio.run(main())
    expected = ["runtime.info"] if wanted is not None else ["runtime.info", "other.thing"]

    assert [event.event_type for event in plain] == [event.event_type for event in awaited] == expected
    assert plain[0] is awaited[0], "hooks of one event share it"
    assert isinstance(plain[0], ObservationEvent)


def test_an_awaited_emit_returns_after_its_hooks() -> None:
    """The hook has finished, also when it waits itself; several hooks run side by side."""
    center = EventCenter()
    done: list[str] = []
    gate = asyncio.Event()

    async def first(event: ObservationEvent) -> None:
        await gate.wait()
        done.append("first")

    async def second(event: ObservationEvent) -> None:
        gate.set()
        done.append("second")

    center.register_hook(first)
    center.register_hook(second)
    asyncio.run(center.async_emit({"event_type": "a.b"}))

    assert done == ["second", "first"]


def test_the_payload_is_the_emitters_own() -> None:
    """A hook gets the same payload object, unredacted: it lives in the process."""
    center = EventCenter()
    seen: list[Any] = []
    center.register_hook(lambda event: seen.append(event.payload), hook_name="h")
    payload = {"api_key": "sk", "live": object()}
    center.emit({"event_type": "a.b", "payload": payload})

    assert seen[0] is payload


def test_framework_events_never_wait_for_a_hook() -> None:
    """A hook that hangs does not hold the emitter; the event is delivered behind its back."""
    center = EventCenter()
    started, release = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def slow(event: ObservationEvent) -> None:
        started.set()
        await release.wait()
        seen.append(event.event_type)

    center.register_hook(slow)

    async def main() -> None:
        for _ in range(3):
            center.type("chunk.started").emit({"status": "running"})

        assert seen == []
        await started.wait()
        assert seen == []
        release.set()
        assert await center.async_flush(timeout=10)
        assert seen == ["chunk.started"] * 3

    asyncio.run(main())


def test_order_is_kept_between_offered_and_awaited_events() -> None:
    """A hook sees what was emitted before first, whichever way it came."""
    center = EventCenter()
    seen: list[int] = []

    async def hook(event: ObservationEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.payload)

    center.register_hook(hook)

    async def main() -> None:
        for number in range(0, 100, 2):
            center.type("a.b").emit(number)
            await center.async_emit({"event_type": "a.b", "payload": number + 1})

    asyncio.run(main())

    assert seen == list(range(100))


def test_events_of_a_plain_thread_reach_hooks() -> None:
    """Without a running loop, offered events are delivered on the Event Center's own thread, in order."""
    center = EventCenter()
    waiter = Waiter()
    center.register_hook(waiter, hook_name="w")
    for _ in range(200):
        center.type("chunk.started").emit()

    assert waiter.wait(200)
    assert waiter.threads.isdisjoint({threading.get_ident()})
    center.close()


def test_a_plain_emit_has_delivered_when_it_returns() -> None:
    """emit() from synchronous code has run plain and async hooks; inside a loop it has run the plain ones."""
    center = EventCenter()
    seen: list[str] = []

    async def coroutine(event: ObservationEvent) -> None:
        await asyncio.sleep(0)
        seen.append("async")

    center.register_hook(lambda event: seen.append("plain"), hook_name="plain")
    center.register_hook(coroutine)
    center.emit({"event_type": "a.b"})
    assert seen == ["plain", "async"]

    async def main() -> None:
        seen.clear()
        center.emit({"event_type": "a.b"})
        assert seen == ["plain"]
        await center.async_flush()
        assert seen == ["plain", "async"]

    asyncio.run(main())
    center.close()


def test_what_a_loop_emitted_is_delivered_before_it_ends() -> None:
    """asyncio.run ends, and every event emitted inside has reached its hook."""
    center = EventCenter()
    seen: list[Any] = []

    async def hook(event: ObservationEvent) -> None:
        seen.append(event.payload)
        await asyncio.sleep(0)

    center.register_hook(hook)

    async def main() -> None:
        for number in range(300):
            center.type("a.b").emit(number)

    asyncio.run(main())

    assert seen == list(range(300))


def test_what_a_closed_loop_left_is_rescued() -> None:
    """A loop closed without running its tasks loses nothing: flush delivers the rest elsewhere."""
    center = EventCenter()
    waiter = Waiter()
    center.register_hook(waiter, hook_name="w")
    loop = asyncio.new_event_loop()

    async def main() -> None:
        center.type("a.b").emit(1)
        hook = center._hooks["w"]
        for lane in hook.lanes():
            assert lane.task is not None
            lane.task.cancel()  # as if the loop had been stopped in the middle
            lane.task = None
            lane.scheduled = True

    loop.run_until_complete(main())
    loop.close()
    center.flush(5.0)

    assert waiter.wait(1)
    center.close()


def test_a_failing_hook_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is isolated, counted, logged and told as an event; other hooks and the emitter go on."""
    center, sink = collecting()
    seen: list[str] = []

    async def bad(event: ObservationEvent) -> None:
        raise ValueError("bad hook")

    def worse(event: ObservationEvent) -> None:
        raise KeyError("worse hook")

    async def canceller(event: ObservationEvent) -> None:
        raise asyncio.CancelledError

    center.register_hook(bad, event_types="a.b")
    center.register_hook(worse, event_types="a.b")
    center.register_hook(canceller, event_types="a.b")
    center.register_hook(lambda event: seen.append(event.event_type), event_types="a.*", hook_name="good")

    with caplog.at_level(logging.WARNING, "flowdeck.events"):
        asyncio.run(center.async_emit({"event_type": "a.b"}))

    assert seen == ["a.b"]
    told = [record.payload for record in sink.records if record.event_type == "runtime.hook_failed"]
    assert {payload["hook"] for payload in told} == {"bad", "worse", "canceller"}
    assert told[0]["event_type"] == "a.b"
    assert "bad hook" in caplog.text
    assert {name: hook["failures"] for name, hook in center.statistics()["hooks"].items()} == {
        "bad": 1, "worse": 1, "canceller": 1, "good": 0,
    }  # fmt: skip


def test_hooks_that_fail_on_everything_do_not_feed_each_other() -> None:
    """Two hooks on all events which always fail settle down instead of answering each other for ever."""
    center = EventCenter()

    async def bad(event: ObservationEvent) -> None:
        raise ValueError("no")

    center.register_hook(bad, hook_name="one")
    center.register_hook(bad, hook_name="two")

    async def main() -> None:
        await center.async_emit({"event_type": "a.b"})
        for _ in range(5):
            assert await center.async_flush(timeout=10)

    asyncio.run(main())

    assert sum(hook["failures"] for hook in center.statistics()["hooks"].values()) <= 6


def test_a_hook_does_not_hear_itself() -> None:
    """An event emitted by a hook's own callback goes to the others only."""
    center = EventCenter()
    seen: list[str] = []

    async def echo(event: ObservationEvent) -> None:
        seen.append(f"echo {event.event_type}")
        await center.async_emit({"event_type": "echo.said"})

    center.register_hook(echo)
    center.register_hook(lambda event: seen.append(f"other {event.event_type}"), hook_name="other")

    async def main() -> None:
        await center.async_emit({"event_type": "a.b"})
        await center.async_flush()

    asyncio.run(main())

    assert sorted(seen) == ["echo a.b", "other a.b", "other echo.said"]


def test_hooks_that_emit_for_each_other_do_not_deadlock() -> None:
    """Awaited emits inside hooks are queued, so two hooks can never wait for each other."""
    center = EventCenter()
    seen: list[str] = []

    enough = asyncio.Event()

    async def ping(event: ObservationEvent) -> None:
        seen.append("ping")
        if len(seen) < 10:
            await center.async_emit({"event_type": "to.pong"})

    async def pong(event: ObservationEvent) -> None:
        seen.append("pong")
        if len(seen) < 10:
            await center.async_emit({"event_type": "to.ping"})
        else:
            enough.set()

    center.register_hook(ping, event_types="to.ping")
    center.register_hook(pong, event_types="to.pong")

    async def main() -> None:
        async with asyncio.timeout(10):
            await center.async_emit({"event_type": "to.ping"})
            await enough.wait()

    asyncio.run(main())

    assert seen == ["ping", "pong"] * 5


def test_a_full_queue_drops_and_counts() -> None:
    """A hook that cannot keep up loses events by count, and the loss is an event itself."""
    center = EventCenter(hook_queue=10)
    sink = Collector()
    center.add_sink(sink)
    seen: list[Any] = []

    async def hook(event: ObservationEvent) -> None:
        seen.append(event.payload)

    center.register_hook(hook, event_types="a.b")

    async def main() -> None:
        for number in range(25):
            center.type("a.b").emit(number)

        await center.async_flush()

    asyncio.run(main())

    assert seen == list(range(10))
    told = [record.payload for record in sink.records if record.event_type == "sink.dropped"]
    assert sum(payload["count"] for payload in told) == 15 == center.statistics()["hooks"]["hook"]["dropped"]
    assert told[0] == {"sink": "hook:hook", "count": 1, "bytes": 0, "reason": "hook queue full"}


def test_unregistering_drains_first() -> None:
    """What was offered before is delivered, what is emitted after is not; an unknown name is no error."""
    center = EventCenter()
    seen: list[Any] = []

    async def coroutine(event: ObservationEvent) -> None:
        seen.append(event.payload)

    async def main() -> None:
        center.register_hook(lambda event: seen.append(event.payload), hook_name="plain")
        center.type("a.b").emit("plain")
        center.unregister_hook("plain")
        assert seen == ["plain"]

        center.register_hook(coroutine)
        center.type("a.b").emit("async")
        await center.async_unregister_hook("coroutine")
        assert seen == ["plain", "async"]

        center.type("a.b").emit("nobody")
        center.unregister_hook("never there")
        await center.async_flush()

    asyncio.run(main())

    assert seen == ["plain", "async"]
    assert not center.type("a.b").sinks


def test_the_same_name_replaces() -> None:
    """One name, one hook; the name defaults to the callback's own."""
    center = EventCenter()
    seen: list[str] = []

    def hook(event: ObservationEvent) -> None:
        seen.append("old")

    center.register_hook(hook)
    center.register_hook(lambda event: seen.append("new"), hook_name="hook")
    center.emit({"event_type": "a.b"})

    assert seen == ["new"]


def test_callable_objects_and_partials_work() -> None:
    """Objects with an async __call__, partials and objects without a name can be hooks."""
    center = EventCenter()
    seen: list[str] = []

    class Async:
        async def __call__(self, event: ObservationEvent) -> None:
            seen.append("object")

    async def partial(mark: str, event: ObservationEvent) -> None:
        seen.append(mark)

    def sneaky(event: ObservationEvent) -> Any:
        return partial("returned", event)

    center.register_hook(Async())
    center.register_hook(functools.partial(partial, "partial"), hook_name="partial")
    center.register_hook(sneaky)
    asyncio.run(center.async_emit({"event_type": "a.b"}))
    center.emit({"event_type": "a.b"})

    assert sorted(seen) == ["object", "object", "partial", "partial", "returned", "returned"]
    center.close()


def test_a_background_hook_is_never_awaited() -> None:
    """With dispatch="background" even a user's awaited emit does not wait."""
    center = EventCenter()
    release = asyncio.Event()
    seen: list[str] = []

    async def hook(event: ObservationEvent) -> None:
        await release.wait()
        seen.append(event.event_type)

    center.register_hook(hook, dispatch="background")

    async def main() -> None:
        await center.async_emit({"event_type": "a.b"})
        assert seen == []
        release.set()
        assert await center.async_flush("hook", timeout=10)
        assert seen == ["a.b"]

    asyncio.run(main())


def test_flush_says_when_it_gave_up() -> None:
    """A hook that does not return makes flush answer False within its time."""
    center = EventCenter()
    stuck = asyncio.Event()

    async def hook(event: ObservationEvent) -> None:
        await stuck.wait()

    center.register_hook(hook)

    async def main() -> None:
        center.type("a.b").emit()
        assert not await center.async_flush(timeout=0.05)
        stuck.set()
        assert await center.async_flush(timeout=10)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"callback": 3}, TypeError, "must be callable"),
        ({"callback": print, "dispatch": "later"}, ValueError, "background"),
        ({"callback": print, "event_types": [1]}, TypeError, "int: 1"),
    ],
)
def test_wrong_registrations_are_named(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """The error says what was wrong."""
    with pytest.raises(error, match=text):
        EventCenter().register_hook(**options)


def test_hooks_run_in_a_clean_context() -> None:
    """A background hook does not inherit the run of whichever step emitted first."""
    from flowdeck.events import RunContext, current_run, run_scope

    center = EventCenter()
    seen: list[Any] = []

    async def hook(event: ObservationEvent) -> None:
        seen.append(current_run.get())

    center.register_hook(hook)

    async def main() -> None:
        with run_scope(RunContext.create(run_kind="chunk_execution")):
            center.type("a.b").emit()

        await center.async_flush()

    asyncio.run(main())

    assert seen == [None]
