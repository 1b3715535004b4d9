"""A deterministic simulation of the core: random flows, interleavings, crashes, answers and clocks, against a model.

:mod:`simulated_flows` makes a random flow whose handlers are scripts, :mod:`sequential_model` says what must come of
it. :class:`Simulation` drives a real :class:`Core` through one seeded interleaving. Around the core it plays

- the disk: a state is lost back to what was last committed, or taken up from the very moment of the crash;
- the inbox: answers are delivered at least once, in any order, early, late, twice, again after a crash;
- the clock: it jumps by hours, forth and back, while expiries and retries wait for it and race the answers.

No asyncio, no threads, no sleeping. ``python -m tests.execution.simulation SEED`` tells a seed's story.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator
from functools import lru_cache
from typing import Any

from tests.execution.sequential_model import Outcome, model
from tests.execution.simulated_flows import Flow, Script, build, text
from tests.execution.simulated_outside import Faults, Outside

from flowdeck.definition.operators import START
from flowdeck.definition.plan import ROUTE
from flowdeck.execution.core import CommittedFailure, Core
from flowdeck.execution.state import BACKOFF, CANCELLING, RUNNING, Task

__all__ = ["Faults", "Simulation", "build", "check", "model"]

MAX_CRASHES = 6
"""A run: crashing for ever would be no progress for ever."""
MAX_STEPS = 20_000
SEEDS_PER_FLOW = 8
"""Declaring and compiling a flow costs as much as running it, so eight seeds share one."""

Handler = Generator[tuple[Any, ...], Any, Any]


class Simulation(Outside):
    """One interleaving of one flow."""

    def __init__(self, flow: Flow, seed: int, faults: Faults | None = None, *, tells: bool = False) -> None:
        super().__init__(flow, seed, faults or Faults(), tells)
        self.ready: dict[int, tuple[Handler, Any]] = {}
        """Handlers that can take a step, with what they are resumed with."""
        self.blocked: dict[int, tuple[int, str, Handler]] = {}
        """Awaiting handlers by group: record, tag, generator."""
        self.stopping: list[int] = []
        self.boot()

    def boot(self) -> None:
        """Begin from nothing."""
        self.core = Core(self.flow.plan, "sim", self.faults.concurrency)
        self.core.skip_exceptions = self.flow.skip
        self.core.started = True
        self.core.signal(START, "v", "start")
        self.drain()

    def forget(self) -> None:
        self.ready, self.blocked, self.backoff, self.stopping = {}, {}, {}, []

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run to the end and return what came of it.

        Raises:
            AssertionError: an invariant broke on the way, or something is left at the end.
        """
        rng, faults = self.rng, self.faults
        chance = rng.random
        while True:
            self.steps += 1
            assert self.steps < MAX_STEPS, "the simulation does not end"
            if self.steps == faults.crash_at or (
                faults.crash_rate and self.crashes < MAX_CRASHES and chance() < faults.crash_rate
            ):
                self.crash()

            if faults.commit_rate < 1 and chance() < faults.commit_rate:
                self.commit()

            self.now += 1_000
            if chance() < 0.03:
                self.now += rng.choice((-3_600, 3_600, 1, 60)) * 1_000_000

            moves = self.moves()
            if moves:
                move = moves[int(chance() * len(moves))]
                move[0](*move[1:])
                self.drain()
            elif not self.wait():
                break

        return self.end()

    def moves(self) -> list[tuple[Any, ...]]:
        """Return everything that could happen next."""
        moves: list[tuple[Any, ...]] = [(self.advance, rec) for rec in self.ready]
        if self.stopping:
            moves += [(self.stop, rec) for rec in self.stopping]

        if self.backoff:
            moves += [(self.attempt, rec) for rec, due in self.backoff.items() if due <= self.now]

        moves += self.outside_moves()
        return moves

    def end(self) -> Outcome:
        core = self.core
        assert not core.tasks, f"tasks are left: {core.tasks}"
        assert not self.blocked, "awaiters are left"
        assert not core.groups, f"groups are left: {core.groups}"
        assert not core.joins, f"joins are left: {core.joins}"
        assert set(core.blocks) == {0}, f"lanes are left: {core.blocks}"
        assert not core.guests and not core.away, f"{core.guests} and {core.away} still lend their places"
        assert core.running == 0, f"{core.running} places were not given back"
        assert not core.open_interrupts, f"nobody answered {[i.id for i in core.open_interrupts]}"
        assert core.error is None or core.error[0] == "InterruptExpired", f"an error nobody should see: {core.error}"
        state = core.data
        return Outcome(
            Counter(self.completed), Counter(state.get("log", [])), len(state.get("n", [])), core.error is not None
        )

    def attempt(self, rec: int) -> None:
        """The wait before the next attempt is over."""
        del self.backoff[rec]
        task = self.core.tasks[rec]
        if self.core.again(task):
            self.begin(task)

    # -- handlers ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        core = self.core
        while core.out:
            commands, core.out = core.out, []
            for command in commands:
                if isinstance(command, Task):
                    self.begin(command)
                elif command[0] == "resolved":
                    self.resolved(command[1])
                else:
                    self.cancel(command[1])

        if core.guests and core.plan.limited:
            assert core.away == core._lenders(), f"{core.away} have lent a lane's place, {core.guests} wait"

        if core.concurrency:
            active = [t for t in core.tasks.values() if t.status in (RUNNING, BACKOFF, CANCELLING) and not t.awaiting]
            assert len(active) == core.running <= core.concurrency, f"{len(active)} run, {core.running} are counted"

    def begin(self, task: Task) -> None:
        core = self.core
        if task.status == CANCELLING:
            core.stopped(task)
            return

        op = core.ops[task.op]
        if op.kind == ROUTE:
            hits = [k for k, case in enumerate(op.cases) if case.condition(task.value)]
            core.routed(task, hits if op.hits_all else hits[:1])
            return

        if self.tells:
            self.tell("begin", core.scope(task), repr(task.value), "again" if task.num in self.rerun else "")

        self.ready[task.rec] = (self.handler(task, self.flow.scripts[op.name]), None)

    def handler(self, task: Task, script: Script) -> Handler:
        """The script as the driver would run it: every effect reaches the core at once, between any two a crash."""
        core = self.core
        value, notes = task.value, ""
        seen: dict[str, int] = {}

        def tag(kind: str, key: str) -> str:
            nth = seen[f"{kind}:{key}"] = seen.get(f"{kind}:{key}", -1) + 1
            return f"{kind}:{key}:{nth}"

        yield ("begin",)
        if script.fails or (script.flaky and task.attempt == 1):
            return "fails"

        for kind, event in script.effects:
            if kind in ("log", "count"):
                key = "log" if kind == "log" else "n"
                if core.mark(task, tag("a", key)) and not script.ghost:
                    core.append_state(key, f"{script.name}:{text(value)}")

                yield ("effect",)
            elif kind == "reply" or (kind == "outside" and not self.faults.crashes):
                name, group = self.reply(task) if kind == "reply" else ("", core.signal(event, value, "runtime"))
                core.lend(task, group, name)
                if group in core.groups:
                    self.lent += bool(core.guests and core.concurrency)
                    yield ("wait", group, name)
                else:
                    yield ("effect",)
            else:
                name = tag("e", event)
                try:
                    group = core.emit(task, name, event, value, kind != "nowait")
                    if group and (yield ("wait", group, name)) == "error":
                        notes += "!"
                    elif not group:
                        yield ("effect",)
                except CommittedFailure:
                    notes += "!"

        pause = script.pause
        result: Any = None
        if pause is not None and task.resume is not None and self.asked_itself(task, pause.target):
            notes += f"?{core.interrupts[task.resume].response}"
            pause = None

        if pause is None:
            result = script.result(value, notes)
        else:
            on_expire = pause.on_expire(script.name, value)
            interrupt, new = core.pause(
                task, tag("p", "pause"), self.now, type="pause", payload=None, resume_to=pause.target,
                resume_event=None, interrupt_id=script.name if pause.own_id else None,
                expires_us=None if on_expire is None else self.now + self.rng.randrange(1, 30) * 1_000,
                on_expire=on_expire,
            )  # fmt: skip
            if new and interrupt.id in core.early:
                early = core.early.pop(interrupt.id)
                assert self.answered(interrupt.id, early[0]) == "applied"

            yield ("effect",)

        if task.num in self.rerun:
            core.check_rerun(task, {f"{key}:{i}" for key, n in seen.items() for i in range(n + 1)})

        return result

    def reply(self, task: Task) -> tuple[str, int]:
        """Give somebody who waits the right answer, or wait for what came of the one given before a crash.

        Returns the tag and the group, which is 0 when nobody waits.
        """
        for tag, outcome in (task.tags or {}).items():
            if outcome[0] == "ans":
                return tag, outcome[1]

        asking = [i for i in self.core.open_interrupts if self.script_of(i).pause.how in ("answer", "race")]  # type: ignore[union-attr]
        if not asking:
            return "", 0

        chosen = self.rng.choice(asking)
        return f"r:{chosen.id}:0", self.core.answer(chosen.id, self.right_answer(chosen), self.now, "a handler")

    def asked_itself(self, task: Task, target: Any) -> bool:
        interrupt = self.core.interrupts[task.resume or ""]
        return target == "self" and interrupt.resume_to == "self" and interrupt.chunk == self.core.ops[task.op].name

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
        core = self.core
        name = core.ops[task.op].name
        script = self.flow.scripts[name]
        self.rerun.discard(task.num)
        if self.tells:
            self.tell("end", core.scope(task), "asks" if task.interrupt is not None else repr(result))

        if result == "fails":
            if script.flaky and task.attempt == 1 and task.status != CANCELLING:
                core.retry(task)
                self.backoff[task.rec] = self.now + self.rng.randrange(20) * 1_000
            else:
                core.failed(task, "ValueError", name)

            return

        if not script.ghost:
            self.completed.append((name, ("paused " if task.interrupt is not None else "") + text(task.value)))

        following = core.done(task, result)
        if following is not None:
            self.begin(following)

    def resolved(self, group: int) -> None:
        waiting = self.blocked.pop(group, None)
        if waiting is None:
            return

        rec, tag, handler = waiting
        tags = self.core.tasks[rec].tags or {}
        self.ready[rec] = (handler, "error" if tag and tags[tag][0] == "err" else "ok")

    def cancel(self, rec: int) -> None:
        """A handler is told to stop. Most do; some swallow it and go on for a while."""
        if rec not in self.core.tasks:
            return  # it was, before a crash

        stubborn = self.rng.random() < 0.2
        for group, (blocked, _, handler) in list(self.blocked.items()):
            if blocked == rec:
                del self.blocked[group]
                if stubborn:
                    self.ready[rec] = (handler, "error")

        if self.backoff.pop(rec, None) is not None or not stubborn or rec not in self.ready:
            self.ready.pop(rec, None)
            self.stopping.append(rec)

    def stop(self, rec: int) -> None:
        self.stopping.remove(rec)
        self.core.stopped(self.core.tasks[rec])


# -- seeds -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _flow_of(number: int) -> tuple[Flow, Outcome]:
    flow = build(number)
    return flow, model(flow)


def check(seed: int, *, tells: bool = False) -> Simulation:
    """Run a seed and compare it with the model.

    Raises:
        AssertionError: it came to something else; says how to see it again.
    """
    flow, expected = _flow_of(seed // SEEDS_PER_FLOW)
    faults = Faults.of(seed)
    try:
        simulation = Simulation(flow, seed, faults, tells=tells)
        outcome = simulation.run()
        for what in ("completed", "log"):
            got, wanted = getattr(outcome, what), getattr(expected, what)
            assert got == wanted, f"{what}: too much {dict(got - wanted)}, missing {dict(wanted - got)}"

        assert outcome.counts == expected.counts, f"{outcome.counts} were counted, {expected.counts} expected"
        assert outcome.failed == expected.failed, f"failed is {outcome.failed}, {expected.failed} expected"
    except Exception as exc:
        raise AssertionError(
            f"seed {seed} ({faults}): {type(exc).__name__}: {exc}\n"
            f"see it again: python -m tests.execution.simulation {seed}"
        ) from exc

    return simulation


if __name__ == "__main__":
    check(int(sys.argv[1]), tells=True)
    print("as the model says")
