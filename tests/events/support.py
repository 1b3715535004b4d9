"""What several tests of the Event Center need."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from threading import Condition
from typing import Any

from flowdeck.events import EventCenter, EventRecord


class Collector:
    """A sink that keeps records, and their wire form as it was when they were accepted."""

    def __init__(self, name: str = "collector") -> None:
        self.name = name
        self.records: list[EventRecord] = []
        self.lines: list[bytes] = []
        self.closed = 0
        self._changed = Condition()

    def accept(self, record: EventRecord) -> None:
        with self._changed:
            self.records.append(record)
            self.lines.append(record.encoded)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def flush(self, timeout: float) -> bool:
        return True

    def close(self, timeout: float) -> None:
        self.closed += 1

    def statistics(self) -> dict[str, int | float | str]:
        return {"accepted": len(self.records), "dropped": 0}

    @property
    def types(self) -> list[str]:
        return [record.event_type for record in self.records]

    def events(self) -> list[dict[str, Any]]:
        return [strict(line) for line in self.lines]


def collecting(**options: Any) -> tuple[EventCenter, Collector]:
    """A center with one sink that takes everything."""
    center = EventCenter()
    sink = Collector()
    center.add_sink(sink, **{"min_level": "DEBUG", **options})
    return center, sink


def strict(line: bytes) -> Any:
    """Decode JSON the strict way: UTF-8, no NaN, no duplicate keys."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        assert len(keys) == len(set(keys)), f"duplicate keys: {keys}"
        return dict(items)

    def constant(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)


def depth(value: Any) -> int:
    """How many containers lie inside each other."""
    if isinstance(value, dict):
        return 1 + max((depth(item) for item in value.values()), default=0)

    if isinstance(value, list):
        return 1 + max((depth(item) for item in value), default=0)

    assert not isinstance(value, float) or math.isfinite(value)
    return 0


def cycle_payload() -> dict[str, Any]:
    """A payload that holds itself."""
    loop: dict[str, Any] = {"n": 1}
    loop["again"] = [loop]
    return loop
