"""A deterministic simulation of the core: random flows, interleavings, crashes and answers, against a sequential model.

``build`` makes a random flow whose handlers are scripts; ``model`` says by plain recursion what must come of it;
``Simulation`` drives a real :class:`Core` through one seeded interleaving, crashing it (dump to JSON, load into a new
core, run unfinished handlers again) wherever the seed says. No asyncio, no clock, no threads.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.operators import START
from flowdeck.definition.plan import BATCH, CHUNK, FOR_EACH, JOIN, MATCH_END, ROUTE, Plan, compile_plan
from flowdeck.definition.process import Process
from flowdeck.errors import InterruptError
from flowdeck.execution.core import CommittedFailure, Core
from flowdeck.execution.snapshot import dump_core, load_core
from flowdeck.execution.state import CANCELLING, Interrupt, Task
from flowdeck.execution.values import decode, encode

MAX_CRASHES = 40
"""A run: crashing for ever would be no progress for ever."""


@dataclass
class Script:
    """What a chunk does: effects in order, then what it returns."""

    name: str
    effects: list[tuple[Any, ...]] = field(default_factory=list)
    split: int = 0
    fails: bool = False

    def __call__(self, data: object) -> None:
        raise AssertionError("scripts are run by the simulation, not called")

    def result(self, value: Any, notes: str) -> Any:
        text = f"{self.name}({_text(value)}{notes})"
        return [f"{text}.{i}" for i in range(self.split)] if self.split else text


@dataclass
class Flow:
    plan: Plan
    scripts: dict[str, Script]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _even(value: Any) -> bool:
    return sum(map(ord, _text(value))) % 2 == 0


# -- random flows ----------------------------------------------------------------------------------------------------


class Builder:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.blueprint = Blueprint("sim")
        self.scripts: dict[str, Script] = {}
        self.events = 0
        self.count = 0

    def chunk(self, level: int, *, pauses: bool = True, split: bool = False, event_pause: bool = False) -> Any:
        self.count += 1
        script = Script(f"c{self.count}")
        rng = self.rng
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            kind = rng.choice(("log", "log", "count", "emit", "nowait", "catch"))
            if kind in ("log", "count"):
                script.effects.append((kind,))
            elif level < 2:
                script.effects.append((kind, self.event(level + 1, fails=kind == "catch")))

        if pauses and rng.random() < 0.25:
            choices = ["next", "self"] + (["event"] if event_pause else [])
            target = rng.choice(choices)
            if target == "event":
                script.effects.append(("pause", {"event": self.event(level + 1, fails=False)}))
            else:
                script.effects.append(("pause", target))

        if split:
            script.split = rng.choice((0, 1, 2, 3))

        self.scripts[script.name] = script
        return (script.name, script)

    def event(self, level: int, *, fails: bool) -> str:
        """Declare a chain behind a new event."""
        self.events += 1
        name = f"E{self.events}"
        start = Process(self.blueprint).when(name)
        if fails:
            self.count += 1
            script = Script(f"c{self.count}", fails=True)
            self.scripts[script.name] = script
            start.to((script.name, script))
        else:
            self.chain(start, level, self.rng.choice((1, 1, 2)))

        return name

    def chain(self, at: Process, level: int, length: int, depth: int = 0, inside: bool = False) -> Process:
        rng = self.rng
        for _ in range(length):
            kind = rng.choice(("to", "to", "to", "side", "for_each", "batch", "match", "all"))
            if depth >= 2 and kind in ("for_each", "batch", "match", "all"):
                kind = "to"

            if kind == "to":
                at = at.to(self.chunk(level, event_pause=not inside))
            elif kind == "side":
                at = at.side_branch(self.chunk(level))
            elif kind == "for_each":
                at = at.to(self.chunk(level, pauses=False, split=True))
                at = at.for_each(concurrency=rng.choice((None, 1, 2)), name=f"each{self.count}")
                at = self.chain(at, level, rng.choice((1, 2)), depth + 1, inside=True).end_for_each()
            elif kind == "batch":
                at = at.batch(
                    self.chunk(level), self.chunk(level), concurrency=rng.choice((None, 1)), name=f"batch{self.count}"
                )
            else:
                at = at.match(mode="hit_all" if kind == "all" else "hit_first", name=f"match{self.count}")
                at = self.chain(at.case(_Even()), level, 1, depth + 1, inside=True)
                if kind == "all":
                    at = self.chain(at.case(_Always()), level, 1, depth + 1, inside=True)
                elif rng.random() < 0.6:
                    at = self.chain(at.case_else(), level, 1, depth + 1, inside=True)

                at = at.end_match()

        return at


class _Even:
    def __call__(self, value: Any) -> bool:
        return _even(value)


class _Always:
    def __call__(self, value: Any) -> bool:
        return True


def build(seed: int) -> Flow:
    """Return a random flow."""
    builder = Builder(random.Random(seed))
    for _ in range(builder.rng.choice((1, 1, 2))):
        builder.chain(Process(builder.blueprint), 0, builder.rng.choice((1, 2, 3)))

    return Flow(compile_plan(builder.blueprint), builder.scripts)


# -- the sequential model --------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    completed: Counter[tuple[str, str]] = field(default_factory=Counter)
    log: Counter[str] = field(default_factory=Counter)
    counts: int = 0


class _Frame:
    def __init__(self, outer: _Frame | None, op: int, total: int) -> None:
        self.outer, self.op, self.total = outer, op, total
        self.results: dict[int, Any] = {}


def model(flow: Flow) -> Outcome:
    """Run the flow by plain recursion, one thing after the other."""
    outcome = Outcome()
    ops = flow.plan.ops
    Place = tuple[_Frame, int] | None

    def fire(event: str, value: Any, place: Place = None) -> None:
        for index in flow.plan.events.get(event, ()):
            step(index, value, place)

    def following(indices: tuple[int, ...], value: Any, place: Place) -> None:
        for index in indices:
            step(index, value, place)

    def step(index: int, value: Any, place: Any) -> None:
        op = ops[index]
        if op.kind == CHUNK:
            script = flow.scripts[op.name]
            notes = ""
            for effect in script.effects:
                if effect[0] == "log":
                    outcome.log[f"{op.name}:{_text(value)}"] += 1
                elif effect[0] == "count":
                    outcome.counts += 1
                elif effect[0] in ("emit", "nowait"):
                    fire(effect[1], value)
                elif effect[0] == "catch":
                    notes += "!"
                elif effect[0] == "pause":
                    answer = f"answer({op.name},{_text(value)})"
                    if effect[1] == "next":
                        outcome.completed[op.name, "paused " + _text(value)] += 1
                        following(op.next, answer, place)
                        return

                    if isinstance(effect[1], dict):
                        outcome.completed[op.name, "paused " + _text(value)] += 1
                        fire(effect[1]["event"], answer)
                        return

                    outcome.completed[op.name, "paused " + _text(value)] += 1
                    notes += f"?{answer}"
                    for again in script.effects:  # the chunk runs once more, as a new activation
                        if again[0] == "log":
                            outcome.log[f"{op.name}:{_text(value)}"] += 1
                        elif again[0] == "count":
                            outcome.counts += 1
                        elif again[0] in ("emit", "nowait"):
                            fire(again[1], value)
                        elif again[0] == "pause":
                            break

            outcome.completed[op.name, _text(value)] += 1
            following(op.next, script.result(value, notes), place)
        elif op.kind in (FOR_EACH, BATCH):
            items = (
                (value if isinstance(value, list) else [value]) if op.kind == FOR_EACH else [value] * len(op.members)
            )
            if not items:
                following(ops[op.end].next, [], place)
                return

            frame = _Frame(place, op.index, len(items))
            for i, item in enumerate(items):
                following((op.members[i],) if op.kind == BATCH else op.next, item, (frame, i))
        elif op.kind == ROUTE:
            hits = [k for k, case in enumerate(op.cases) if case.condition(value)]
            if not hits:
                following(op.next if op.else_next is None else op.else_next, value, place)
            elif op.hits_all:
                frame = _Frame(place, op.index, len(hits))
                for i, k in enumerate(hits):
                    following(op.case_next[k], value, (frame, i))
            else:
                following(op.case_next[hits[0]], value, place)
        elif op.kind in (JOIN, MATCH_END):
            if place is None or place[0].op != op.group:
                if op.kind == MATCH_END:
                    following(op.next, value, place)

                return

            frame, i = place
            frame.results[i] = value
            if len(frame.results) == frame.total:
                opener = ops[op.group]
                ordered = [frame.results[k] for k in range(frame.total)]
                joined = (
                    {ops[m].name: v for m, v in zip(opener.members, ordered, strict=True)}
                    if opener.kind == BATCH
                    else ordered
                )
                following(op.next, joined, frame.outer)
        else:
            raise AssertionError(op.operator_kind)

    fire(START, "v")
    return outcome


# -- the simulation --------------------------------------------------------------------------------------------------

Handler = Generator[tuple[Any, ...], Any, Any]


class Simulation:
    """One interleaving of one flow."""

    def __init__(
        self, flow: Flow, seed: int, *, crash_rate: float = 0.0, crash_at: int = 0, concurrency: int = 0
    ) -> None:
        self.flow = flow
        self.rng = random.Random(seed)
        self.crash_rate = crash_rate
        self.crash_at = crash_at
        """The step before which to crash, counted from 1."""
        self.core = Core(flow.plan, "sim", concurrency)
        self.ready: dict[int, tuple[Handler, Any]] = {}
        """Handlers that can take a step, with what they are resumed with."""
        self.blocked: dict[int, tuple[int, str, Handler]] = {}
        """Awaiting handlers by group: record, tag, generator."""
        self.stopping: list[int] = []
        self.rerun: set[int] = set()
        self.outcome = Outcome()
        self.scopes: set[str] = set()
        self.crashes = 0
        self.refused = 0
        self.steps = 0

    def run(self) -> Outcome:
        self.core.started = True
        self.core.signal(START, "v", "start")
        self.drain()
        while True:
            self.steps += 1
            assert self.steps < 20_000, "the simulation does not end"
            if self.crashes < MAX_CRASHES and self.rng.random() < self.crash_rate:
                self.crash()

            if self.steps == self.crash_at:
                self.crash()

            waiting = self.core.open_interrupts
            moves = len(self.ready) + len(self.stopping) + len(waiting)
            if not moves:
                break

            pick = self.rng.randrange(moves)
            if pick < len(self.ready):
                self.advance(list(self.ready)[pick])
            elif pick < len(self.ready) + len(self.stopping):
                rec = self.stopping.pop(pick - len(self.ready))
                self.core.stopped(self.core.tasks[rec])
            else:
                self.answer(waiting[pick - len(self.ready) - len(self.stopping)])

            self.drain()

        assert not self.core.tasks, f"tasks are left: {self.core.tasks}"
        assert not self.blocked, "awaiters are left"
        assert not self.core.groups, f"groups are left: {self.core.groups}"
        assert not self.core.joins, f"joins are left: {self.core.joins}"
        assert set(self.core.blocks) == {0}, f"lanes are left: {self.core.blocks}"
        assert self.core.running == 0, f"{self.core.running} places were not given back"
        state = self.core.data
        self.outcome.log = Counter(state.get("log", []))
        self.outcome.counts = len(state.get("n", []))
        return self.outcome

    def answer(self, interrupt: Interrupt) -> None:
        """Answer it, or let it expire with the same value; now and then somebody answers a second time."""
        _, _, _, value, _ = interrupt.signal
        if self.rng.random() < 0.2:
            self.core.expire(interrupt.id, 0)
        else:
            self.core.answer(interrupt.id, f"answer({interrupt.chunk},{_text(value)})", 0, "sim")

        if self.rng.random() < 0.2:
            try:
                self.core.answer(interrupt.id, "a second answer", 0, "sim")
            except InterruptError:
                self.refused += 1
            else:
                raise AssertionError(f"{interrupt.id} was answered twice")

    def drain(self) -> None:
        while self.core.out:
            commands, self.core.out = self.core.out, []
            for command in commands:
                if isinstance(command, Task):
                    self.begin(command)
                elif command[0] == "resolved":
                    self.resolved(command[1])
                else:
                    self.cancel(command[1])

        if self.core.concurrency:
            assert self.core.running <= self.core.concurrency

    def begin(self, task: Task) -> None:
        if task.status == CANCELLING:
            self.core.stopped(task)
            return

        op = self.core.ops[task.op]
        self.scopes.add(self.core.scope(task))
        if op.kind == ROUTE:
            hits = []
            for k, case in enumerate(op.cases):
                if case.condition(task.value):
                    hits.append(k)
                    if not op.hits_all:
                        break

            self.core.routed(task, hits)
            return

        self.ready[task.rec] = (self.handler(task), None)

    def handler(self, task: Task) -> Handler:
        core = self.core
        script = self.flow.scripts[core.ops[task.op].name]
        value, notes = task.value, ""
        nth: Counter[str] = Counter()

        def tag(kind: str, key: str) -> str:
            nth[kind + key] += 1
            return f"{kind}:{key}:{nth[kind + key] - 1}"

        yield ("begin",)
        if script.fails:
            return None

        for effect in script.effects:
            kind = effect[0]
            if kind in ("log", "count"):
                key = "log" if kind == "log" else "n"
                if core.mark(task, tag("a", key)):
                    core.append_state(key, f"{script.name}:{_text(value)}")

                yield ("effect",)
            elif kind in ("emit", "nowait", "catch"):
                name = tag("e", effect[1])
                try:
                    group = core.emit(task, name, effect[1], value, kind != "nowait")
                    if group and (yield ("wait", group, name)) == "error":
                        notes += "!"
                    elif not group:
                        yield ("effect",)
                except CommittedFailure:
                    notes += "!"
            elif task.resume is not None and effect[1] == "self" and core.interrupts[task.resume].resume_to == "self":
                notes += f"?{core.interrupts[task.resume].response}"
            else:
                core.pause(
                    task, tag("p", "pause"), 0, type="pause", payload=None, resume_to=effect[1], resume_event=None,
                    interrupt_id=None, expires_us=1, on_expire={"value": f"answer({script.name},{_text(value)})"},
                )  # fmt: skip
                yield ("effect",)
                return "paused"

        return script.result(value, notes)

    def advance(self, rec: int) -> None:
        handler, send = self.ready.pop(rec)
        task = self.core.tasks[rec]
        try:
            what = handler.send(send)
        except StopIteration as stop:
            self.ended(task, stop.value)
            return

        if what[0] == "wait":
            self.blocked[what[1]] = (rec, what[2], handler)
        else:
            self.ready[rec] = (handler, None)

    def ended(self, task: Task, result: Any) -> None:
        name = self.core.ops[task.op].name
        if self.flow.scripts[name].fails:
            self.core.failed(task, "ValueError", name)
            return

        if task.num in self.rerun:
            self.rerun.discard(task.num)

        prefix = "paused " if task.interrupt is not None else ""
        self.outcome.completed[name, prefix + _text(task.value)] += 1
        following = self.core.done(task, result)
        if following is not None:
            self.begin(following)

    def resolved(self, group: int) -> None:
        waiting = self.blocked.pop(group, None)
        if waiting is None:
            return

        rec, tag, handler = waiting
        tags = self.core.tasks[rec].tags or {}
        self.ready[rec] = (handler, "error" if tags[tag][0] == "err" else "ok")

    def cancel(self, rec: int) -> None:
        self.ready.pop(rec, None)
        self.blocked = {g: w for g, w in self.blocked.items() if w[0] != rec}
        self.stopping.append(rec)

    def crash(self) -> None:
        """Lose everything but what a snapshot holds."""
        self.crashes += 1
        saved = json.dumps([dump_core(self.core), encode(self.core.data)])
        core = Core(self.flow.plan, "sim", self.core.concurrency)
        body, data = json.loads(saved)
        load_core(core, body)
        core.data = decode(data)
        assert json.dumps([dump_core(core), encode(core.data)]) == saved, "load and dump changed the state"
        self.core = core
        self.ready, self.blocked, self.stopping = {}, {}, []
        self.rerun = core.restart()
        self.drain()
