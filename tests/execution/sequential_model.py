"""What must come of a random flow, by plain recursion: one thing after the other, no interleaving, no crash."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.execution.simulated_flows import Flow, Script, text

from flowdeck.definition.operators import START
from flowdeck.definition.plan import BATCH, CHUNK, COLLECT, FOR_EACH, GATE, JOIN, MATCH_END, ROUTE, PlanOp


@dataclass
class Outcome:
    """Everything about a run that no interleaving may change."""

    completed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Handlers that returned, with what they were given; ``paused …`` when they returned a question."""
    log: Counter[str] = field(default_factory=Counter)
    """What they appended to state."""
    counts: int = 0
    failed: bool = False


class _Fan:
    """A fan-out under way."""

    def __init__(self, outer: _Place, op: int, total: int) -> None:
        self.outer, self.op, self.total = outer, op, total
        self.results: dict[int, Any] = {}
        self.spoiled: set[int] = set()
        """Members that were cancelled: the others wait for them for ever."""


_Place = tuple[_Fan, int] | None


def model(flow: Flow) -> Outcome:
    """Return the outcome of ``flow``."""
    return _Model(flow).run()


class _Model:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.ops = flow.plan.ops
        self.outcome = Outcome()
        self.gates: dict[str, dict[str, Any]] = {}

    def run(self) -> Outcome:
        self.fire(START, "v")
        return self.outcome

    def fire(self, event: str, value: Any) -> None:
        for index in self.flow.plan.events.get(event, ()):
            self.step(index, value, None, event)

    def follow(self, indices: tuple[int, ...], value: Any, place: _Place, event: str) -> None:
        for index in indices:
            self.step(index, value, place, event)

    def step(self, index: int, value: Any, place: _Place, event: str) -> None:
        op = self.ops[index]
        if op.kind == CHUNK:
            self.chunk(op, self.flow.scripts[op.name], value, place)
        elif op.kind in (FOR_EACH, BATCH):
            items = value if isinstance(value, list) else [value]
            if op.kind == BATCH:
                self.fan(op, [(value, (member,), op.emits) for member in op.members], place)
            elif items:
                self.fan(op, [(item, op.next, op.emits) for item in items], place)
            else:
                self.follow(self.ops[op.end].next, [], place, self.ops[op.end].emits)
        elif op.kind == ROUTE:
            self.route(op, value, place)
        elif op.kind in (JOIN, MATCH_END):
            if place is not None and place[0].op == op.group:
                place[0].results[place[1]] = value
            elif op.kind == MATCH_END:
                self.follow(op.next, value, place, op.emits)
        else:
            self.gate(op, value, place, event)

    # -- a chunk -------------------------------------------------------------------------------------------------

    def chunk(self, op: PlanOp, script: Script, value: Any, place: _Place) -> None:
        if script.fails:
            return

        notes = self.effects(script, value)
        pause = script.pause
        if pause is not None:
            self.outcome.completed[op.name, "paused " + text(value)] += 1
            answer = pause.answer(op.name, value)
            if pause.how in ("late", "fail"):
                self.outcome.failed |= pause.how == "fail"
                return

            if pause.how == "cancel":
                while place is not None:
                    place[0].spoiled.add(place[1])
                    place = place[0].outer

                return

            if pause.how == "event":
                self.fire(pause.event, None)
                return

            if isinstance(pause.target, dict):
                self.fire(pause.target["event"], answer)
                return

            if pause.target == "next":
                self.follow(op.next, answer, place, op.emits)
                return

            notes = self.effects(script, value) + f"?{answer}"  # the chunk runs once more, as a new activation

        self.outcome.completed[op.name, text(value)] += 1
        self.follow(op.next, script.result(value, notes), place, op.emits)

    def effects(self, script: Script, value: Any) -> str:
        notes = ""
        for kind, event in script.effects:
            if kind == "log":
                self.outcome.log[f"{script.name}:{text(value)}"] += 1
            elif kind == "count":
                self.outcome.counts += 1
            elif kind == "catch":
                notes += "" if self.flow.skip else "!"
            elif kind != "reply":
                self.fire(event, value)

        return notes

    # -- blocks --------------------------------------------------------------------------------------------------

    def fan(self, op: PlanOp, members: list[tuple[Any, tuple[int, ...], str]], place: _Place) -> None:
        fan = _Fan(place, op.index, len(members))
        for nth, (item, targets, event) in enumerate(members):
            self.follow(targets, item, (fan, nth), event)
            if nth not in fan.results and nth not in fan.spoiled:
                fan.total -= 1  # it failed under skip_exceptions, left through an event, or nobody answered it

        if len(fan.results) < fan.total or op.end < 0 or (op.kind == BATCH and not fan.results):
            return

        order = sorted(fan.results)
        joined: Any = [fan.results[nth] for nth in order]
        if op.kind == BATCH:
            joined = {self.ops[op.members[nth]].name: fan.results[nth] for nth in order}

        self.follow(self.ops[op.end].next, joined, place, self.ops[op.end].emits)

    def route(self, op: PlanOp, value: Any, place: _Place) -> None:
        hits = [k for k, case in enumerate(op.cases) if case.condition(value)]
        if not hits:
            self.follow(op.next if op.else_next is None else op.else_next, value, place, op.emits)
        elif op.hits_all:
            self.fan(op, [(value, op.case_next[k], op.case_events[k]) for k in hits], place)
        else:
            self.follow(op.case_next[hits[0]], value, place, op.case_events[hits[0]])

    def gate(self, op: PlanOp, value: Any, place: _Place, event: str) -> None:
        """A meeting of branches. Every branch of a random flow comes at most once."""
        if op.kind == COLLECT:
            ops = [each for each in self.ops if each.kind == COLLECT]
            names = [each.options["branch_id"] for each in ops]
            mine = op.options["branch_id"]
        else:
            assert op.kind == GATE
            names, mine = [trigger.name for trigger in op.triggers], event

        gathered = self.gates.setdefault(op.operator_kind, {})
        gathered[mine] = value
        if len(gathered) == len(names):
            met: Any = {name: gathered[name] for name in names}
            self.follow(op.next, met if op.kind == COLLECT else {"event": met}, place, op.emits)
