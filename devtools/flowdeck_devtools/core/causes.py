"""Why something happened: the chain of causes of a step, from the event asked about back to the beginning of the run.

Links come from what the events say: the transition an event names as its cause, the run an error was raised in, else
the beginning of its own run, else that of the run above. The SQL macro ``why`` follows the same rules over the store.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from flowdeck_devtools.core.failure import Failure, first_failure
from flowdeck_devtools.core.span import SpanNode
from flowdeck_devtools.core.trace import Trace
from flowdeck_devtools.core.wire import Event, decode

__all__ = ["Link", "Story", "telling_line"]

MOST_LINKS = 200


class _Run(msgspec.Struct, gc=False):
    run_id: str | None = None
    parent_run_id: str | None = None
    execution_id: str | None = None


class _Meta(msgspec.Struct, gc=False):
    epoch: int = 0
    seq: int = 0
    sub: int = 0
    cause: int = 0


class _Causal(msgspec.Struct, gc=False):
    event_id: str = ""
    run: _Run | None = None
    meta: _Meta | None = None


_causal = msgspec.json.Decoder(_Causal)


@dataclass(frozen=True, slots=True)
class Link:
    """One event of the chain and how the one before it came from it."""

    back: int
    because: str
    line: bytes
    node: SpanNode

    @property
    def event(self) -> Event:
        return decode(self.line)


class Story:
    """A trace's events by their place in the order of causes. Made once (2 µs an event), then asked."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._at: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self._start: dict[str, tuple[int, int, int]] = {}
        self._by_id: dict[str, int] = {}
        for number in range(trace.line_count):  # it may grow meanwhile
            self._take(number, trace.line(number)[0])

    def _take(self, number: int, line: bytes) -> None:
        try:
            one = _causal.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        self._by_id.setdefault(one.event_id, number)
        run, meta = one.run, one.meta or _Meta()
        if run is None or not run.run_id:
            return
        if meta.seq and not meta.sub and run.execution_id:
            self._at.setdefault((run.execution_id, meta.seq), []).append((meta.epoch, number))
        place = (meta.epoch, meta.seq or 1 << 60)
        known = self._start.get(run.run_id)
        if known is None or place < known[:2]:
            self._start[run.run_id] = (*place, number)

    def why_node(self, node: SpanNode) -> list[Link]:
        """What led to a step's outcome, the newest first."""
        line = telling_line(node)
        return self.why(line, node) if line is not None else []

    def why_failed(self) -> list[Link]:
        """What led to the failure that ended the run; nothing when none did."""
        failure = first_failure(self.trace)
        return self.why_failure(failure) if failure is not None else []

    def why_failure(self, failure: Failure) -> list[Link]:
        line = failure.line
        return self.why(line, failure.node) if line is not None else []

    def why_event(self, event_id: str) -> list[Link]:
        """What led to an event, by its id; nothing when the trace does not hold it."""
        found = self._by_id.get(event_id)
        return self.why(*self.trace.line(found)) if found is not None else []

    def why(self, line: bytes, node: SpanNode) -> list[Link]:
        """What led to an event: itself first, then each cause back to the beginning."""
        chain = [Link(0, "this", line, node)]
        seen = {_causal.decode(line).event_id}
        while len(chain) <= MOST_LINKS:
            found = self._before(chain[-1].line)
            if found is None:
                break
            because, earlier, where = found
            event_id = _causal.decode(earlier).event_id
            if event_id in seen:
                break
            seen.add(event_id)
            chain.append(Link(len(chain), because, earlier, where))
        return chain

    def _before(self, line: bytes) -> tuple[str, bytes, SpanNode] | None:
        one = _causal.decode(line)
        run, meta = one.run, one.meta or _Meta()
        if run is None:
            return None
        raised = self._raised(line, run.run_id)
        if raised is not None:
            return ("raised in", *raised)
        if meta.cause and run.execution_id:
            causes = [
                entry
                for entry in self._at.get((run.execution_id, meta.cause), ())
                if entry[0] <= meta.epoch and (not meta.seq or meta.cause < meta.seq)
            ]
            if causes:
                return "caused by", *self.trace.line(max(causes, key=lambda entry: entry[0])[1])
        for run_id, because in ((run.run_id, "in the run begun by"), (run.parent_run_id, "in the run above")):
            begun = self._start.get(run_id or "")
            if begun is not None:
                first, node = self.trace.line(begun[2])
                if first != line:
                    return because, first, node
        return None

    def _raised(self, line: bytes, run_id: str | None) -> tuple[bytes, SpanNode] | None:
        """The event that reports the error where it was raised, for one that only passes it on."""
        if b'"error":null' in line or (b"_run_id" not in line and b"propagated_from" not in line):
            return None
        node = self.trace.node_of(run_id)
        attempt = next((one for one in node.attempts if one.run_id == run_id), None) if node is not None else None
        if attempt is None or attempt.origin in (None, run_id) or not decode(line).error:
            return None
        origin = self.trace.node_of(attempt.origin)
        there = next((one for one in origin.attempts if one.run_id == attempt.origin), None) if origin else None
        if origin is None or there is None:
            return None
        reported = Failure(origin, there, False).line
        return (reported, origin) if reported is not None else None


def telling_line(node: SpanNode) -> bytes | None:
    """The event that says most of a step: how it ended, else how it began."""
    for line in reversed(node.lines):
        if b'"duration_us"' in line:
            return line
    return node.lines[-1] if node.lines else node.first_line
