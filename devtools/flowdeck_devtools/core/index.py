"""Every recent root run, kept up to date line by line by the thread that follows the journal.

Ten thousand lines a second pass here, so the loop looks at each line's head only; the few lines that carry facts of a
run (its first, those that change its status, its errors and waits) are decoded whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowdeck_devtools.core.model import (
    ACTIVITY_STEP_MS,
    MAX_OPEN,
    WAIT_EVENTS,
    RunRow,
    error_line,
    projected_as,
    wait_ids,
)
from flowdeck_devtools.core.status import ENDED, transition
from flowdeck_devtools.core.wire import Event, Head, decode

__all__ = ["RunIndex"]

MAX_RUNS = 2_000
"""Rows kept from the live journal; older ones are a query away."""

_LOUD = frozenset({"WARNING", "ERROR", "CRITICAL"})
_NOTHING, _OPENS, _CLOSES, _WAIT, _BEGINS = 0, 1, 2, 4, 8
_CONTINUES = frozenset({"triggerflow.execution_resumed", "triggerflow.execution_recovered"})
_plans: dict[str, int] = {}
"""What the index does about an event type: computed from the catalogue once per type."""


def _plan(event_type: str) -> int:
    target = transition(event_type)
    plan = _NOTHING
    if target is not None:
        plan = _CLOSES if target in ENDED else _OPENS
        if target == "running" and event_type not in _CONTINUES:
            plan |= _BEGINS
    if event_type in WAIT_EVENTS:
        plan |= _WAIT
    if len(_plans) < 4_096:  # types come from outside
        _plans[event_type] = plan
    return plan


class RunIndex:
    """Every recent root run, newest first, kept up to date by one thread."""

    def __init__(self, *, max_runs: int = MAX_RUNS) -> None:
        self.max_runs = max_runs
        self.rows: dict[str, RunRow] = {}
        self.version = 0
        """Rises whenever anything a row shows may have changed."""
        self.dropped = 0
        """Events the producers' sinks reported as dropped."""
        self._flow_names: dict[str, str] = {}
        self._sorted: tuple[int, list[RunRow]] = (-1, [])
        self.structure = 0
        """Rises when a run came, went, or has another status or place in the order."""

    def __iter__(self) -> Iterator[RunRow]:
        return iter(self.newest())

    def __len__(self) -> int:
        return len(self.rows)

    def newest(self) -> list[RunRow]:
        """Rows by start, newest first. The list is shared: do not change it."""
        made_at, rows = self._sorted
        if made_at != self.structure:
            made_at = self.structure
            rows = list(self.rows.values())  # a copy: the thread goes on adding
            rows.sort(key=lambda row: (row.started_us or row.last_us, row.run_id))
            rows.reverse()
            self._sorted = (made_at, rows)
        return rows

    def apply(self, heads: Sequence[Head], lines: Sequence[bytes], writer: str, position: int = -1) -> None:
        """Take lines of one writer; ``position`` is the ring position of the first. Costs about 1 µs a line.

        Lines without lineage belong to no run.
        """
        rows, plans = self.rows, _plans
        for offset, head in enumerate(heads):
            run = head.run
            if run is None:
                if head.event_type == "sink.dropped":
                    self._lost(lines[offset])
                continue
            run_id = run.run_id
            root = run.root_run_id or run_id
            if root is None:
                continue

            meta = head.meta
            if meta is not None and meta.compat_event_alias:
                continue  # the twin of an event that was counted

            row = rows.get(root)
            if row is None:
                row = self._add(root, position + offset if position >= 0 else -1)
            row.events += 1
            row.writer = writer
            stamp = head.timestamp
            if stamp * 1000 > row.last_us:
                row.last_us = stamp * 1000
            activity = row.activity
            if stamp // ACTIVITY_STEP_MS == activity.newest:
                activity.counts[-1] += 1
            else:
                activity.add(stamp)
            if head.level in _LOUD:
                self._trouble(row, head.level, lines[offset])

            event_type = head.event_type
            plan = plans.get(event_type)
            if plan is None:
                plan = _plan(event_type)
            if plan == _NOTHING and run_id != root:
                continue
            if plan & _WAIT:
                self._wait(row, lines[offset])
            if run_id == root:
                self._own(row, head, lines[offset], plan)
            elif plan & _CLOSES:
                if row.open_steps.pop(run_id or "", None) is not None:
                    row.steps_done += 1
                row.last_step = lines[offset]
            elif plan & _OPENS and len(row.open_steps) < MAX_OPEN and row.ended_us is None:
                row.open_steps[run_id or ""] = lines[offset]
        self.version += 1

    def _add(self, root: str, position: int) -> RunRow:
        row = self.rows[root] = RunRow(root, first_position=position)
        self.structure += 1
        if len(self.rows) > self.max_runs * 5 // 4:
            self._evict()
        return row

    def _evict(self) -> None:
        """Drop the rows that were silent longest, ended ones first."""
        victims = sorted(self.rows.values(), key=lambda row: (row.is_open, row.last_us))
        for row in victims[: len(self.rows) - self.max_runs]:
            del self.rows[row.run_id]
        self.structure += 1

    def _lost(self, line: bytes) -> None:
        number = decode(line).payload_map().get("count")
        if isinstance(number, int) and number > 0:
            self.dropped += number

    def _trouble(self, row: RunRow, level: str, line: bytes) -> None:
        if level == "WARNING":
            row.warnings += 1
            return

        event = decode(line)
        if event.payload_map().get("will_retry") is True:
            row.retries += 1
            return
        row.errors += 1
        if row.error is None:
            row.error = error_line(event.error)

    def _own(self, row: RunRow, head: Head, line: bytes, plan: int) -> None:
        """An event of the root run itself: identity, status, ends."""
        meta = head.meta
        if row.tracker.apply(head.event_type, meta.epoch if meta else 0, meta.seq if meta else 0):
            self.structure += 1
        known = plan & (_OPENS | _CLOSES)
        if not known and row.name and row.execution_id:
            return

        event = decode(line)
        self._identify(row, event)
        if known:
            if row.started_us is None:
                row.started_us = head.time_us
                row.partial = not plan & _BEGINS
                self.structure += 1
            if row.status in ENDED:
                row.ended_us = head.time_us
                row.open_steps.clear()
                row.error = row.error if row.status == "failed" else None
            else:
                row.ended_us = None
            if row.status == "failed" and row.error is None:
                row.error = error_line(event.error)

    def _identify(self, row: RunRow, event: Event) -> None:
        run, payload = event.run, event.payload_map()
        if run is None:
            return

        row.kind = row.kind or run.run_kind or ""
        row.execution_id = row.execution_id or run.execution_id
        meta = run.meta
        row.task_id = row.task_id or _string(meta.get("task_id"))
        row.tenant_id = row.tenant_id or _string(meta.get("tenant_id"))
        row.user_id = row.user_id or _string(meta.get("user_id"))
        name = _string(meta.get("flow_name")) or _string(payload.get("flow_name"))
        fingerprint = _string(payload.get("fingerprint"))
        if name and fingerprint:
            self._flow_names[fingerprint] = name
        if not name:
            name = self._flow_names.get(_string(payload.get("definition")) or "") or run.agent_name
        row.name = row.name or name or ""

    def _wait(self, row: RunRow, line: bytes) -> None:
        event = decode(line)
        opened, ended = wait_ids(event)
        projected = projected_as(event) if opened else None
        for interrupt_id in [projected] if projected is not None else opened:
            if len(row.waits) < MAX_OPEN:
                row.waits[interrupt_id] = line
        for interrupt_id in ended:
            row.waits.pop(interrupt_id, None)

    def name_executions(self, names: Mapping[str, str]) -> None:
        """Fill in flow names known from the control store (execution id to name)."""
        for row in list(self.rows.values()):
            name = names.get(row.execution_id or "")
            if name and not row.name:
                row.name = name
                self.version += 1

    def mark_lost(self, dead_writers: Iterable[str]) -> None:
        """Open runs whose writer is gone are lost; one that shows life again is not."""
        dead = set(dead_writers)
        for row in list(self.rows.values()):
            if row.tracker.status in ENDED or not row.writer:
                continue
            lost = row.writer in dead
            if lost != row.lost:
                row.lost = lost
                self.version += 1
                self.structure += 1

    def merge(self, rows: Iterable[RunRow]) -> None:
        """Take rows read from history; what the live journal knows completely is not overwritten."""
        for old in rows:
            row = self.rows.get(old.run_id)
            if row is None:
                self.rows[old.run_id] = old
            elif row.partial:
                old.activity, old.open_steps, old.waits = row.activity, row.open_steps, row.waits
                old.last_step = row.last_step
                old.writer = row.writer or old.writer
                if row.tracker.at >= old.tracker.at and row.status != "unknown":
                    old.tracker, old.ended_us = row.tracker, row.ended_us
                old.last_us = max(old.last_us, row.last_us)
                self.rows[old.run_id] = old
        self.structure += 1
        self.version += 1


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
