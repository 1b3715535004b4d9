"""Batches on their way to a collector: what is tried again, split, given up, and counted.

A :class:`Lane` is the line of one signal. It has no thread and never sleeps: whoever drives it calls :meth:`Lane.step`
when :meth:`Lane.due_in` has passed. Both modes stand on it: :mod:`~flowdeck_sinks.otlp.memory` feeds it from a bounded
queue, :mod:`~flowdeck_sinks.otlp.durable` from the store.

===========================  =====================================================================================
the collector says           what happens
===========================  =====================================================================================
2xx                          done; items it rejected are counted
429, 502-504, unreachable    again after 0.25 s … 5 s, or ``Retry-After``; for ever
500 and other 5xx            again, five times; then dead letter
413, "message too large"     halves; one item alone that is too large: dead letter
401, 403, 404, 405, 407      the address or the key is wrong, not the data: again every 30 s, and said aloud
404 for logs or metrics      the collector does not take this signal: the lane is closed
other 4xx                    dead letter
===========================  =====================================================================================
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from flowdeck_sinks.otlp import transport as answers
from flowdeck_sinks.otlp.dead_letters import DeadLetters
from flowdeck_sinks.otlp.settings import OtlpSettings, Target
from flowdeck_sinks.otlp.transport import Outcome, Transport, open_transport
from flowdeck_sinks.otlp.wire import encode_request, encode_resource, encode_scope

__all__ = ["Batch", "Group", "Groups", "Item", "Lane", "LaneCounts"]

log = logging.getLogger("flowdeck.sinks.otlp")

FIRST_PAUSE: Final = 0.25
LAST_PAUSE: Final = 5.0
"""Short enough that a collector which comes back is found while the queue of memory mode still holds."""
WRONG_PLACE_PAUSE: Final = 30.0
ITEM_OVERHEAD: Final = 6
"""Bytes of tag and length around an item, at most."""
METRIC_REQUESTS: Final = 60
"""An hour's, at the default interval."""
FAULTS: Final = 5
"""How often a collector may break over a batch before the batch is held to be at fault."""


class Group(NamedTuple):
    """What the items of one resource and scope share, encoded once."""

    resource: tuple[bytes, bytes]
    scope: tuple[bytes, bytes]


class Item(NamedTuple):
    """One encoded span or log record."""

    group: Group
    data: bytes
    key: bytes
    """Eight bytes that name it among the items of its signal."""


class Groups:
    """Finds the group of a resource and a scope. Objects are told apart by identity, which costs 0.1 us."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Group, Any, Any]] = {}

    def of(self, resource: Any, scope: Any) -> Group:
        found = self._known.get((id(resource), id(scope)))
        if found is None:
            if len(self._known) > 1000:
                self._known.clear()

            # The objects are kept: an id is only theirs while they live.
            found = (Group(encode_resource(resource), encode_scope(scope)), resource, scope)
            self._known[id(resource), id(scope)] = found

        return found[0]


@dataclass(slots=True)
class Batch:
    """Items that travel together."""

    items: Sequence[Item]
    body: bytes | None = None
    """A request that was encoded elsewhere and cannot be split (metrics)."""
    count: int = 0
    attempts: int = 0
    faults: int = 0

    def encoded(self) -> bytes:
        """Return the request's body."""
        if self.body is not None:
            return self.body

        groups: dict[int, tuple[Group, list[bytes]]] = {}
        for item in self.items:
            known = groups.get(id(item.group))
            if known is None:
                known = groups[id(item.group)] = (item.group, [])
            known[1].append(item.data)

        return encode_request([(group.resource, group.scope, items) for group, items in groups.values()])


@dataclass(slots=True)
class LaneCounts:
    """What became of the items of one signal."""

    exported: int = 0
    rejected: int = 0
    """Taken by the collector and thrown away there (partial success)."""
    dead: int = 0
    """Items in dead letters."""
    dropped: int = 0
    """Items that were given up: the queue was full, the collector does not take the signal, or the process ended."""
    requests: int = 0
    retries: int = 0
    splits: int = 0
    bytes: int = 0
    failure: str = ""
    """What stands in the way now; empty when nothing does."""
    unwanted: str = ""
    """What the collector said when it was found not to take this signal."""
    last_refusal: str = ""
    """Why the last dead letter or rejected item was refused."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped items by reason."""


class Lane:
    """The line of one signal towards its collector.

    Args:
        target: where the signal goes.
        settings: batch limits.
        letters: where refused batches are kept.
        on_settled: called with the items that are delivered or given up for good.
        on_lost: called with (signal, count, bytes, reason) for items that are dropped.
    """

    def __init__(
        self,
        target: Target,
        settings: OtlpSettings,
        letters: DeadLetters,
        *,
        on_settled: Callable[[Sequence[Item]], None] | None = None,
        on_lost: Callable[[str, int, int, str], None] | None = None,
    ) -> None:
        self.target = target
        self.signal = target.signal
        self.counts = LaneCounts()
        self.open = True
        """False once the collector said that it does not take this signal."""
        self.batches: deque[Batch] = deque()
        self._settings = settings
        self._letters = letters
        self._on_settled = on_settled
        self._on_lost = on_lost
        self._transport: Transport | None = None
        self._not_before = 0.0
        self._failing_since = 0.0
        self._misdirected = False

    @property
    def waiting(self) -> int:
        """Items in the batches of this lane."""
        return sum(batch.count for batch in self.batches)

    def put(self, items: Sequence[Item]) -> None:
        """Line up items, in batches within the limits of count and bytes."""
        limit = self._settings.batch_items_of(self.signal)
        start = size = 0
        for index, item in enumerate(items):
            size += len(item.data) + ITEM_OVERHEAD
            if index > start and (index - start >= limit or size > self._settings.batch_bytes):
                self.batches.append(Batch(items[start:index], count=index - start))
                start, size = index, len(item.data) + ITEM_OVERHEAD

        if len(items) > start:
            self.batches.append(Batch(items[start:], count=len(items) - start))

    def put_encoded(self, body: bytes, count: int) -> None:
        """Line up a whole request of metrics. An outage keeps the newest :data:`METRIC_REQUESTS` of them."""
        self.batches.append(Batch((), body, count))
        while len(self.batches) > METRIC_REQUESTS:
            self._give_up(self.batches[0], "the queue was full")

    @property
    def misdirected(self) -> bool:
        """Whether the collector said that the address or the key is wrong."""
        return self._misdirected

    @property
    def failing_for(self) -> float:
        """Seconds since the first of the failures in a row; 0 while nothing fails."""
        return time.monotonic() - self._failing_since if self.counts.failure else 0.0

    def due_in(self) -> float | None:
        """Return the seconds until the next attempt; ``None`` when nothing waits."""
        return max(0.0, self._not_before - time.monotonic()) if self.batches else None

    def step(self, timeout: float = float("inf")) -> Outcome | None:
        """Make one attempt for the first batch, of at most ``timeout`` seconds. Never raises, never sleeps."""
        if not self.batches:
            return None

        batch = self.batches[0]
        if not self.open:
            self._give_up(batch, f"the collector takes no {self.signal}")
            return None

        try:
            body = batch.encoded()
            if self._transport is None:
                self._transport = open_transport(self.target)

            outcome = self._transport.send(body, min(self.target.timeout, timeout))
        except ImportError as problem:
            body = b""
            outcome = Outcome(
                answers.MISDIRECTED, f"{problem.name} is not installed: pip install 'flowdeck[otlp]'", WRONG_PLACE_PAUSE
            )
        except Exception as problem:  # a defect of ours must not end the thread
            log.exception("flowdeck otlp: a batch of %d %s could not be encoded", batch.count, self.signal)
            body = b""
            outcome = Outcome(answers.REFUSED, f"{type(problem).__name__}: {problem}")

        self.counts.requests += 1
        batch.attempts += 1
        self._resolve(batch, body, outcome)
        return outcome

    def _resolve(self, batch: Batch, body: bytes, outcome: Outcome) -> None:
        if not self.batches or self.batches[0] is not batch:
            return  # given up meanwhile, by a close that could not wait for the answer

        counts = self.counts
        kind = outcome.kind
        if kind == answers.FAULTY:
            batch.faults += 1
            kind = answers.REFUSED if batch.faults >= FAULTS else answers.RETRY

        if kind == answers.DELIVERED:
            self.batches.popleft()
            counts.exported += max(0, batch.count - outcome.rejected)
            counts.rejected += outcome.rejected
            counts.bytes += len(body)
            if outcome.rejected or outcome.reason:
                counts.last_refusal = outcome.reason or f"{outcome.rejected} rejected without a reason"
                log.warning("flowdeck otlp: %s: %d %s rejected: %s", self.target.shown, outcome.rejected, self.signal,
                            outcome.reason)  # fmt: skip
            self._recovered()
            self._settled(batch)
        elif kind == answers.SPLIT and len(batch.items) > 1:
            self.batches.popleft()
            half = len(batch.items) // 2
            counts.splits += 1
            self.batches.appendleft(Batch(batch.items[half:], count=len(batch.items) - half))
            self.batches.appendleft(Batch(batch.items[:half], count=half))
        elif kind in (answers.SPLIT, answers.REFUSED):
            self.batches.popleft()
            counts.dead += batch.count
            counts.last_refusal = outcome.reason
            self._letters.keep(self.signal, body, batch.count, outcome.reason, self.target.shown)
            log.warning("flowdeck otlp: %d %s refused for good: %s", batch.count, self.signal, outcome.reason)
            self._recovered()
            self._settled(batch)
        elif kind == answers.UNWANTED:
            self.open = False
            counts.failure = ""
            counts.unwanted = outcome.reason
            log.info("flowdeck otlp: %s takes no %s; none are sent from now on", self.target.shown, self.signal)
            while self.batches:
                self._give_up(self.batches[0], f"the collector takes no {self.signal}")
        else:
            self._postpone(batch, outcome)

    def _postpone(self, batch: Batch, outcome: Outcome) -> None:
        self.counts.retries += 1
        if not self.counts.failure:
            self._failing_since = time.monotonic()
            log.warning("flowdeck otlp: %s waits: %s", self.signal, outcome.reason)

        self.counts.failure = outcome.reason
        self._misdirected = outcome.kind == answers.MISDIRECTED
        if outcome.retry_after is not None:
            pause = outcome.retry_after
        elif outcome.kind == answers.MISDIRECTED:
            pause = WRONG_PLACE_PAUSE
        else:
            pause = min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(batch.attempts - 1, 16))
            pause *= random.uniform(0.8, 1.2)  # many processes must not knock at once

        self._not_before = time.monotonic() + pause

    def _recovered(self) -> None:
        self._not_before = 0.0
        self._misdirected = False
        if self.counts.failure:
            log.warning(
                "flowdeck otlp: %s is there again after %.1f s",
                self.target.shown,
                time.monotonic() - self._failing_since,
            )
            self.counts.failure = ""

    def _settled(self, batch: Batch) -> None:
        if self._on_settled is not None:
            self._on_settled(batch.items)

    def _give_up(self, batch: Batch, reason: str) -> None:
        self.batches.popleft()
        self.lost(batch.count, sum(len(item.data) for item in batch.items), reason)
        self._settled(batch)

    def lost(self, count: int, size: int, reason: str) -> None:
        """Count items that will not be sent."""
        self.counts.dropped += count
        self.counts.reasons[reason] = self.counts.reasons.get(reason, 0) + count
        if self._on_lost is not None:
            self._on_lost(self.signal, count, size, reason)

    def hurry(self) -> None:
        """Try at once: the process is about to end."""
        self._not_before = 0.0

    def close(self) -> None:
        """Give up the connection; what waits stays where it is."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
