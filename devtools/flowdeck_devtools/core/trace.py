"""A run as a tree with times: what the waterfall draws, built line by line in any order.

The tree is made from two facts and no names: ``run.parent_run_id`` says whose child a run is, and ``meta.scope`` says
where in the flow a step stands, from which the groups of ``for_each`` and ``batch`` follow although they emit nothing.
Attempts of one step (same parent, same scope) share one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowdeck_devtools.core.attempt import Attempt, Outcome, Wait
from flowdeck_devtools.core.model import WAIT_EVENTS, projected_as, wait_ids
from flowdeck_devtools.core.nodes import Nodes
from flowdeck_devtools.core.span import GOING_ON, SpanNode, one_of
from flowdeck_devtools.core.spanform import Form, Role, exact, steps, tail_of
from flowdeck_devtools.core.spool import LineSpool
from flowdeck_devtools.core.status import ENDED, transition
from flowdeck_devtools.core.wire import Event, Head, Lineage, decode

__all__ = ["Trace"]

_ORIGINS = ("propagated_from", "origin_run_id", "request_run_id")
"""What an error event calls the run its error was raised in, when that was another."""
_GOING_ON = frozenset({"running", "created", "retried", "unknown"})
MAX_SPANS = 200_000
MAX_DEPTH = 128
"""Levels of the tree. The runtime's own scopes end at 64; what a foreign producer nests deeper is drawn flat."""
MAX_LINE_BYTES = 512 * 1024 * 1024
"""Lines kept for the event pane of one trace, in a file; what comes beyond it is counted and not kept."""


class Trace:
    """One root run and everything below it."""

    def __init__(self, root_run_id: str) -> None:
        self._spool = LineSpool()
        self._owners: list[SpanNode] = []
        """Whose each line of the spool is."""
        self._form = Form(self._spool, kind="run")
        roles: tuple[Role, ...] = ("span", "group", "item")
        self._forms = {role: self._form.like(role, is_keyed=False) for role in roles}
        """Of new rows with a place in the scope."""
        self.root = SpanNode(self._form, root_run_id)
        self.version = 0
        """Rises with every change."""
        self.structure = 0
        """Rises when a node was added or moved."""
        self.events = 0
        self.line_bytes = 0
        self.first_error: SpanNode | None = None
        self._seen: dict[str, int] = {}
        self._of_run: dict[str, SpanNode] = {root_run_id: self.root}
        self.nodes = Nodes(self.root, self._of_run)
        self._waits: dict[str, tuple[SpanNode, Wait]] = {}
        self._projected: set[str] = set()
        self.lost_us: int | None = None
        """The last sign of life of a run whose process is gone: nothing in it goes on after that."""

    @property
    def started_us(self) -> int | None:
        return self.root.started_us

    @property
    def ended_us(self) -> int | None:
        return self.root.ended_us

    @property
    def status(self) -> str:
        return self.root.own_status

    @property
    def is_open(self) -> bool:
        return self.root.own_status not in ENDED and self.lost_us is None

    def shown_status(self, node: SpanNode) -> str:
        """What a person should see: what ran in a process that is gone is lost; a question can still be answered."""
        status = node.status
        if self.lost_us is not None and (status in _GOING_ON or (node is self.root and status not in ENDED)):
            return "lost"
        return status

    def node_of(self, run_id: str | None) -> SpanNode | None:
        """The row a run (one attempt of something) belongs to."""
        return self._of_run.get(run_id) if run_id is not None else None

    def extend(self, lines: Iterable[tuple[str, bytes, Head]]) -> None:
        """Take lines as ``(writer, line, head)``; a line taken before (by writer and wseq) is skipped."""
        for writer, line, head in lines:
            if head.wseq:
                if head.wseq <= self._seen.get(writer, 0):
                    continue
                self._seen[writer] = head.wseq
            self.apply(line, head)

    def apply(self, line: bytes, head: Head) -> None:
        """Take one line. Lines of other runs are ignored."""
        run = head.run
        if run is None or self.root.key not in (run.root_run_id, run.run_id):
            return

        self.events += 1
        self.version += 1
        node = self._node(run, head)
        begins = not node.has_begun
        if begins:
            node.kind = run.run_kind or node.kind
        self.line_bytes += len(line)
        if begins or self.line_bytes <= MAX_LINE_BYTES:
            # A received log record knows the id of its span and nothing else of it: the span begins with its own lines.
            self._keep(node, line, asked=run.run_kind is None and node is not self.root, needed=begins)
        else:
            node.drop_line()

        target = transition(head.event_type)
        if target is not None:
            self._move(node, run.run_id or "", head, target, line)
        elif head.meta is not None and head.meta.duration_us is not None and run.run_id not in (None, self.root.key):
            self._close_unknown(node, run.run_id or "", head)
        if head.event_type in WAIT_EVENTS:
            event = decode(line)
            opened, ended = wait_ids(event)
            if opened and (known := projected_as(event)) is not None:
                self._projected.add(known)  # the parent will tell of it again
            for interrupt_id in opened:
                self._open_wait(node, head, interrupt_id, line)
            for interrupt_id in ended:
                self._end_wait(head, interrupt_id)
        self._widen(node, head.time_us, started=True)

    def _keep(self, node: SpanNode, line: bytes, *, asked: bool = False, needed: bool = False) -> None:
        self._owners.append(node)  # before the line: others read meanwhile
        try:
            number = self._spool.append(line, node.last_number, needed=needed)
        except OSError:  # a full disk
            self._owners.pop()
            node.drop_line()
        else:
            node.keep(number, asked=asked)

    @property
    def line_count(self) -> int:
        """Lines that are kept, numbered from 0."""
        return len(self._spool)

    def line(self, number: int) -> tuple[bytes, SpanNode]:
        """A line by its number, and the node it belongs to."""
        return self._spool.get(number), self._owners[number]

    def lines_with(self, *marks: bytes) -> Iterator[tuple[bytes, SpanNode]]:
        """Lines that hold any of some words and whose they are, in the order they came; may grow meanwhile."""
        for number in self._spool.search(marks):
            yield self._spool.get(number), self._owners[number]

    # -- nodes -------------------------------------------------------------------------------------------------

    def _node(self, run: Lineage, head: Head) -> SpanNode:
        run_id = run.run_id or self.root.key
        node = self._of_run.get(run_id)
        if node is not None and node.has_begun:
            return node
        if run_id == self.root.key or len(self.nodes) >= MAX_SPANS:
            return self.root

        parent = self._parent(run)
        scope = head.meta.scope if head.meta else None
        if node is not None:  # a placeholder: a child was seen before its parent
            self._adopt(parent, node)
            return node
        if scope and run.run_kind == "chunk_execution":
            node = self._scoped(parent, scope)
        else:
            node = self._add(SpanNode(self._form.like("span", run.run_kind or "", is_keyed=True), run_id), parent)
            if scope:
                node.scope = scope
        self._of_run[run_id] = node
        return node

    def _parent(self, run: Lineage) -> SpanNode:
        parent_id = run.parent_run_id
        if parent_id is None or parent_id == run.run_id:
            return self.root
        known = self._of_run.get(parent_id)
        if known is None:
            known = self._add(SpanNode(self._form.like("span", is_keyed=True), parent_id), self.root)
            self._of_run[parent_id] = known
        return known

    def _add(self, node: SpanNode, parent: SpanNode) -> SpanNode:
        parent = _not_too_deep(parent)
        node.parent = parent
        parent.add_child(node)
        self.nodes.count += 1
        self._raise(node)
        self.structure += 1
        return node

    def _raise(self, node: SpanNode) -> None:
        """Tell the ancestors how deep it goes below them."""
        height = node.height + 1
        for ancestor in node.ancestors():
            if ancestor.height >= height:
                break
            ancestor.height = height
            height += 1

    def _adopt(self, parent: SpanNode, node: SpanNode) -> None:
        """Move a placeholder below its real parent, unless that would close a circle."""
        if node.parent is parent or parent is node or node in parent.ancestors():
            return
        if parent.depth + node.height >= MAX_DEPTH:
            return  # every change walks up to the root, so the tree may not become a chain without end
        if node.parent is not None:
            node.parent.remove_child(node)
            self._count_up(node, -1)
        node.parent = parent
        parent.add_child(node)
        self._raise(node)
        self._count_up(node, 1)
        self.structure += 1

    def _count_up(self, node: SpanNode, sign: int) -> None:
        number = node.counts + (one_of(node.counted) if node.counted else 0)
        for ancestor in node.ancestors():
            ancestor.counts += sign * number

    def _scoped(self, parent: SpanNode, scope: str) -> SpanNode:
        """The node of a step, with the groups and items its scope runs through."""
        node, above, forms = parent, "", self._forms
        for role, path in steps(scope):
            tail = tail_of(above, path)
            found = node.child_at(role, tail) or self.nodes.moved_up(parent, role, path)
            if found is None:
                below = _not_too_deep(node)
                if below is node:
                    found = self._add(SpanNode(forms[role], tail), node)
                else:
                    key = f"{parent.key}\0{role[0]}{path}"
                    found = self._add(SpanNode(self._form.like(role, is_keyed=True), key), below)
                    self.nodes.elsewhere[key] = found
            node, above = found, path
        return node

    # -- status and times --------------------------------------------------------------------------------------

    def _attempt(self, node: SpanNode, run_id: str, head: Head) -> Attempt:
        for attempt in reversed(node.attempts):
            if attempt.run_id == run_id:
                return attempt
        number = head.meta.attempt if head.meta and head.meta.attempt else len(node.attempts) + 1
        attempt = Attempt(run_id, number)
        node.add_attempt(attempt)
        return attempt

    def _move(self, node: SpanNode, run_id: str, head: Head, target: str, line: bytes) -> None:
        attempt = self._attempt(node, run_id, head)
        meta = head.meta
        attempt.move(head.event_type, meta.epoch if meta else 0, meta.seq if meta else 0)
        now = exact(head.time_us)
        lasted = meta.duration_us if meta else None
        if attempt.started_us is None or now < attempt.started_us:
            attempt.started_us = exact(now - lasted) if lasted else now
        if attempt.reached in ENDED and target in ENDED:
            attempt.ended_us = now
            if target == "failed":
                self._failed(node, attempt, decode(line))
        elif attempt.reached not in ENDED:
            attempt.ended_us = None
        self._widen(node, attempt.started_us, started=True)
        self._settle(node)

    def _failed(self, node: SpanNode, attempt: Attempt, event: Event) -> None:
        payload = event.payload_map()
        attempt.outcome = Outcome(
            will_retry=payload.get("will_retry") is True,
            cancelled=payload.get("status") == "cancelled",
            propagated=bool(payload.get("propagated_from")),
            origin=next((one for key in _ORIGINS if isinstance(one := payload.get(key), str)), None),
            error=event.error or _record_error(payload),
        )
        if self.first_error is None and attempt.status == "failed" and node is not self.root:
            self.first_error = node

    def _close_unknown(self, node: SpanNode, run_id: str, head: Head) -> None:
        """A kind of run the catalogue has no machine for: it has a length but no status."""
        attempt = self._attempt(node, run_id, head)
        attempt.ended_us = head.time_us
        if attempt.started_us is None:
            attempt.started_us = head.time_us - (head.meta.duration_us or 0 if head.meta else 0)
        self._settle(node)

    def _settle(self, node: SpanNode) -> None:
        """Bring a node's end and the counts above it in line with its attempts and waits."""
        status = node.own_status
        ends = [attempt.ended_us for attempt in node.attempts]
        is_over = bool(ends) and status not in ("waiting", "retried") and None not in ends[-1:]
        node.ended_us = max((end for end in ends if end is not None), default=None) if is_over else None
        if node.ended_us is not None and node.waits:
            node.ended_us = max(node.ended_us, *(wait.end_us or 0 for wait in node.waits))
        was = node.counted
        changed = status != was
        if changed:
            node.counted = status
        step = one_of(status) - (one_of(was) if was else 0)
        ended_us = node.ended_us or 0
        ancestor = node.parent
        while ancestor is not None:
            if changed:
                ancestor.counts += step
            if ancestor.form.role != "span":
                self._settle_group(ancestor, ended_us)
            ancestor = ancestor.parent

    def _settle_group(self, group: SpanNode, ended_us: int) -> None:
        latest = max(ended_us, group.last_end_us, group.ended_us or 0)
        if not group.counts & GOING_ON:
            group.ended_us = latest or None
            return
        if latest > group.last_end_us:
            group.last_end_us = latest
        group.ended_us = None

    def _widen(self, node: SpanNode, time_us: int, *, started: bool) -> None:
        """A row begins no later than anything in it; groups take their times from their members."""
        if time_us <= 0:
            return
        at: SpanNode | None = node
        while at is not None:
            if at.started_us is None or (started and time_us < at.started_us):
                at.started_us = time_us
            elif at is not node:
                break
            at = at.parent if at is node or at.form.role != "span" else None

    # -- waits -------------------------------------------------------------------------------------------------

    def _open_wait(self, node: SpanNode, head: Head, interrupt_id: str, line: bytes) -> None:
        if interrupt_id in self._waits or interrupt_id in self._projected:
            return
        owner = self._asked_by(node, head)
        wait = Wait(interrupt_id, head.time_us)
        owner.add_wait(wait)
        if owner is not node:
            self._keep(owner, line, asked=True)
        self._waits[interrupt_id] = (owner, wait)
        self._settle(owner)

    def _asked_by(self, node: SpanNode, head: Head) -> SpanNode:
        """The step an interrupt belongs to: raised in its own run, or in the execution's with the step's scope."""
        scope = head.meta.scope if head.meta else None
        if node is not self.root or not scope:
            return node
        return self.nodes.placed(node, "span", scope) or node

    def _end_wait(self, head: Head, interrupt_id: str) -> None:
        found = self._waits.get(interrupt_id)
        if found is not None and found[1].end_us is None:
            found[1].end_us = head.time_us
            self._settle(found[0])


def _not_too_deep(parent: SpanNode) -> SpanNode:
    """Below whom a row stands that is too deep to be drawn below this one: beside it."""
    while parent.depth >= MAX_DEPTH and parent.parent is not None:
        parent = parent.parent
    return parent


def _record_error(payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error of an action that failed: its event has none of its own, its record says what was wrong."""
    record = payload.get("record")
    message = record.get("error") if isinstance(record, dict) else None
    return {"message": message} if isinstance(message, str) and message else None
