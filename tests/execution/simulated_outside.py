"""What is around the core of a simulated run: a disk that lags, an inbox that repeats itself, people and a clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from tests.execution.simulated_flows import Flow, Script

from flowdeck.errors import InterruptError
from flowdeck.execution.core import Core
from flowdeck.execution.snapshot import dump_core, load_core
from flowdeck.execution.state import Interrupt
from flowdeck.execution.values import decode, encode

__all__ = ["Answer", "Faults", "Outside"]


@dataclass(frozen=True)
class Faults:
    """What the world does to a run."""

    concurrency: int = 0
    crash_rate: float = 0.0
    """The chance of a crash before each step."""
    crash_at: int = 0
    """The step before which to crash, counted from 1."""
    commit_rate: float = 1.0
    """How much of what happens is on disk: at 1 everything, at once; below, a crash loses what came since."""

    @property
    def crashes(self) -> bool:
        """Whether there may be any."""
        return bool(self.crash_rate or self.crash_at)

    @classmethod
    def of(cls, seed: int) -> Faults:
        """Return the faults of a seed."""
        rng = random.Random(-seed - 1)
        concurrency = rng.choice((0, 0, 0, 1, 2, 3))
        kind = rng.random()
        if kind < 0.4:
            return cls(concurrency)

        if kind < 0.7:
            return cls(concurrency, rng.choice((0.02, 0.1)))

        return cls(concurrency, rng.choice((0.02, 0.08)), commit_rate=rng.choice((0.05, 0.3)))


class Answer:
    """A row of the inbox. It stays there until its outcome is on disk, and may come again even then."""

    __slots__ = ("again", "interrupt", "settled", "value")

    def __init__(self, interrupt: str, value: Any, again: bool) -> None:
        self.interrupt, self.value, self.again = interrupt, value, again
        self.settled = False


class Outside:
    """The world around a core. :class:`tests.execution.simulation.Simulation` adds the handlers."""

    core: Core
    boot: Callable[[], None]
    drain: Callable[[], None]

    def __init__(self, flow: Flow, seed: int, faults: Faults, tells: bool) -> None:
        self.flow = flow
        self.rng = random.Random(seed)
        self.faults = faults
        self.tells = tells
        self.backoff: dict[int, int] = {}
        """Records that wait for their next attempt, and until when."""
        self.rerun: set[int] = set()
        """Activations that ran before a crash and run again."""
        self.inbox: list[Answer] = []
        self.asked: set[str] = set()
        """Interrupts somebody has answered or is about to."""
        self.visible: set[str] = set()
        """Interrupts that are on disk, so that people see them."""
        self.completed: list[tuple[str, str]] = []
        self.disk: tuple[bytes, int] | None = None
        self.now = 1_000_000_000
        self.crashes = self.refused = self.early = self.late = self.lent = self.steps = 0
        for name, script in flow.scripts.items():
            if script.pause is not None and script.pause.own_id and self.rng.random() < 0.6:
                self.asked.add(name)
                self.inbox.append(Answer(name, script.pause.answer(name, None), self.rng.random() < 0.3))

    def forget(self) -> None:
        """Lose every handler."""
        raise NotImplementedError

    def tell(self, *words: Any) -> None:
        print(f"{self.steps:4d} {self.now / 1e6:14.3f}s ", *words)

    def outside_moves(self) -> list[tuple[Any, ...]]:
        """Return what people, the inbox and the clock could do next."""
        moves: list[tuple[Any, ...]] = [(self.deliver, row) for row in self.inbox if not row.settled]
        for interrupt in self.core.open_interrupts:
            if interrupt.expires_us is not None and interrupt.expires_us <= self.now:
                moves.append((self.expire, interrupt))

            if interrupt.id in self.visible or self.faults.commit_rate == 1:
                how = self.script_of(interrupt).pause.how  # type: ignore[union-attr]
                if how == "cancel":
                    moves.append((self.give_up, interrupt))
                elif how in ("answer", "race") and interrupt.id not in self.asked:
                    moves.append((self.send, interrupt))

        return moves

    def wait(self) -> bool:
        """Nothing can happen now: commit what is not on disk, or let time pass. Returns whether anything changed."""
        if self.faults.commit_rate < 1 and (
            any(row.settled for row in self.inbox) or any(i.id not in self.visible for i in self.core.open_interrupts)
        ):
            self.commit()
            return True

        due = [i.expires_us for i in self.core.open_interrupts if i.expires_us is not None]
        due += self.backoff.values()
        if not due:
            return False

        self.now = max(self.now, min(due))
        return True

    # -- the disk ------------------------------------------------------------------------------------------------

    def written(self) -> bytes:
        return msgspec.json.encode([dump_core(self.core), encode(self.core.data)])

    def commit(self) -> None:
        """Write the state to disk; then people see what is asked, and settled rows leave the inbox."""
        if self.tells:
            self.tell("commit")

        self.disk = (self.written(), len(self.completed))
        self.visible = {interrupt.id for interrupt in self.core.open_interrupts}
        self.inbox = [row for row in self.inbox if not row.settled]

    def crash(self) -> None:
        """Lose everything but what is on disk, and what the inbox holds."""
        self.crashes += 1
        if self.faults.commit_rate == 1:
            self.disk = (self.written(), len(self.completed))

        self.forget()
        for row in self.inbox:
            row.settled = False

        if self.tells:
            self.tell("CRASH", "" if self.disk else "before anything was on disk")

        if self.disk is None:
            self.completed = []
            self.boot()
            return

        written, count = self.disk
        del self.completed[count:]
        core = Core(self.flow.plan, "sim", self.faults.concurrency)
        body, data = msgspec.json.decode(written)
        load_core(core, body)
        core.data = decode(data)
        self.core = core
        if not self.crashes & 1:
            assert self.written() == written, "load and dump changed the state"

        self.rerun = core.restart()
        self.drain()

    # -- answers and clocks --------------------------------------------------------------------------------------

    def script_of(self, interrupt: Interrupt) -> Script:
        return self.flow.scripts[interrupt.chunk or ""]

    def right_answer(self, interrupt: Interrupt) -> Any:
        pause = self.script_of(interrupt).pause
        assert pause is not None
        return pause.answer(interrupt.chunk or "", interrupt.signal[3])

    def send(self, interrupt: Interrupt) -> None:
        """Somebody has seen the question; the answer goes into the inbox, perhaps more than once."""
        self.asked.add(interrupt.id)
        self.inbox.append(Answer(interrupt.id, self.right_answer(interrupt), self.rng.random() < 0.3))
        if self.rng.random() < 0.15:
            self.inbox.append(Answer(interrupt.id, self.right_answer(interrupt), False))

        if self.tells:
            self.tell("somebody answers", interrupt.id)

    def deliver(self, row: Answer) -> None:
        """A row of the inbox reaches the execution: what it says is done, kept as early, or refused."""
        core = self.core
        if row.interrupt not in core.interrupts:
            outcome = "early" if row.interrupt not in core.early else "a second early one"
            if row.interrupt not in core.early:
                core.keep_early(row.interrupt, [row.value, "sim", 0])

            self.early += 1
        else:
            outcome = self.answered(row.interrupt, row.value)

        if self.tells:
            self.tell("row for", row.interrupt, "is", outcome)

        if row.again:
            row.again = False
        elif self.faults.commit_rate < 1:
            row.settled = True
        else:
            self.inbox.remove(row)

    def answered(self, interrupt_id: str, value: Any) -> str:
        core = self.core
        known = core.interrupts[interrupt_id]
        waits, before = known.status == "waiting", (core.seq, core.version, len(core.out), known.response)
        try:
            core.answer(interrupt_id, value, self.now, "sim")
        except InterruptError:
            assert not waits, f"{interrupt_id} waits, and refuses its answer"
            assert (core.seq, core.version, len(core.out), known.response) == before, "a refused answer changed things"
            self.refused += 1
            self.late += known.status == "expired"
            return "refused"

        assert waits, f"{interrupt_id} was answered twice"
        if self.rng.random() < 0.1:
            assert self.answered(interrupt_id, "another value") == "refused"

        return "applied"

    def expire(self, interrupt: Interrupt) -> None:
        if self.tells:
            self.tell(interrupt.id, "expires")

        self.core.expire(interrupt.id, self.now)

    def give_up(self, interrupt: Interrupt) -> None:
        if self.tells:
            self.tell("an operator cancels", interrupt.id)

        self.core.cancel_interrupt(interrupt.id, self.now, "sim")
