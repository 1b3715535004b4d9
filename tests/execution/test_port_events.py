"""What a port call tells observers, and what it costs nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.events.record import EventRecord
from flowdeck.execution.port_events import DIGEST_KEY, argument_digest, encode_arguments


class Collector:
    """Keeps the payloads of port events, as emitted."""

    name = "ports"

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any], bytes]] = []

    def accept(self, record: EventRecord) -> None:
        if record.event_type.startswith("triggerflow.port_"):
            self.events.append((record.event_type, record.level, dict(record.payload), record.encoded))

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        return None

    def statistics(self) -> dict[str, int | float | str]:
        return {}


def run(handler: Any, level: str | None = "INFO", **settings: Any) -> tuple[Collector, int]:
    """Run one handler and return the port events and the execution's last sequence number."""
    flow, collector, runtime = TriggerFlow(name="ports"), Collector(), Runtime(settings=settings)
    flow.to(handler)
    if level is not None:
        runtime.center.add_sink(collector, None, level)

    with runtime.use():
        execution = flow.create_execution(auto_close_timeout=0.0)
        asyncio.run(execution.async_start("go"))

    return collector, execution._core.seq


async def calls(data: TriggerFlowRuntimeData) -> None:
    """Use every port once, and fail one call."""
    await data.call("web", "get", lambda q: ("a", q["n"]), {"n": 1, "token": "secret"})
    with pytest.raises(KeyError):
        await data.call("web", "fail", dict[str, int]().__getitem__, "x")

    await data.call("web", "live", lambda _: object(), lambda: None)
    data.now(), data.new_id(), data.random.random()


def test_results_and_failures_are_recorded_exactly() -> None:
    """A tuple stays one, an exception has its class, and what cannot be stored says so."""
    collector, _ = run(calls)
    by_name = {payload["name"]: (kind, level, payload) for kind, level, payload, _ in collector.events}
    assert by_name["get"][2]["result"] == {"$type": "tuple", "v": ["a", 1]}
    assert by_name["fail"][:2] == ("triggerflow.port_failed", "WARNING")
    assert by_name["fail"][2]["failure"] == {"type": "builtins.KeyError", "message": "'x'", "args": ["x"]}
    assert "unrecorded" in by_name["live"][2]
    assert by_name["live"][2]["args"] == [{"$opaque": "builtins.function"}]
    assert {"now", "new_id", "random"} <= set(by_name)


def test_the_digest_is_taken_before_redaction() -> None:
    """A secret is masked on the wire, and yet another secret has another digest."""
    collector, _ = run(calls)
    _, _, payload, encoded = collector.events[0]
    assert b"secret" not in encoded
    assert payload["digest"] == argument_digest([{"n": 1, "token": "secret"}])
    assert payload["digest"] != argument_digest([{"n": 1, "token": "other"}])


def test_a_key_changes_every_digest_and_is_named_not_shown() -> None:
    """With a key nobody can guess short arguments from their digests."""
    payload = run(calls, **{DIGEST_KEY: "k"})[0].events[0][2]
    assert payload["digest"] == argument_digest([{"n": 1, "token": "secret"}], "k")
    assert len(payload["key_id"]) == 8


def test_values_that_differ_have_different_digests() -> None:
    """1 and 1.0, a tuple and a list, True and 1 are not the same arguments; the order of keys does not matter."""
    given = [(1,), (1.0,), (True,), ((1,),), ([1],), ("1",), (None,), ()]
    assert len({argument_digest(encode_arguments(args)) for args in given}) == len(given)
    assert argument_digest([{"a": 1, "b": 2}]) == argument_digest([{"b": 2, "a": 1}])


def test_observers_change_no_sequence_number() -> None:
    """The core counts the same whether nobody, somebody or a debugger listens."""
    assert len({run(calls, level)[1] for level in (None, "INFO", "DEBUG")}) == 1
