"""How a case meets the world: its tape, its people, its interventions and its clock, put together for one round.

Order of calls (see also :mod:`flowdeck_evals.plans`)::

    plan_case(case, n, level)     history: the tape is the evidence, nothing runs
                                  else: TapePorts, ScriptedPeople or TapePeople, Interventions, JumpingClock
    plan.attach(services)         the answerer, a sink that records the round as a tape, the interventions
    plan.drive(execution, input)  start; answer, jump, intervene; cancel when a question can never be answered
    plan.finish(evidence)         misses, unused entries, rules never used, the first divergence by scope and line
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowdeck.execution.port_events import DIGEST_KEY, key_id
from flowdeck_evals.cases import Case, Level
from flowdeck_evals.divergence import first_difference, source_of
from flowdeck_evals.history import evidence_of
from flowdeck_evals.humans import ScriptedPeople, TapePeople
from flowdeck_evals.plans import Missing, RoundPlan
from flowdeck_evals.recording import Recorder
from flowdeck_evals.replay import TapePorts
from flowdeck_evals.rounds import Evidence, Finding
from flowdeck_evals.steering import Interventions
from flowdeck_evals.tapes import BadTape, Tape
from flowdeck_evals.virtual_time import JumpingClock

if TYPE_CHECKING:
    from flowdeck.events.record import EventRecord
    from flowdeck.execution.services import Services

__all__ = ["ReplayPlan", "cut_of", "load_tape", "plan_case"]

_EMPTY: Final = Tape([])


def plan_case(case: Case[Any, Any], number: int, level: Level) -> RoundPlan:
    """Return the plan of a round as its case says.

    Raises:
        Missing: it needs a recording that is not there, or an intervention nobody knows.
    """
    wants_tape = level != "live" or "tape" in case.stub.values()
    if wants_tape and case.tape is None:
        raise Missing(
            f"case {case.id!r}: level {level!r} needs a tape; record one and name it: tape: tapes/{case.id}.tape"
        )

    tape = load_tape(case.tape) if wants_tape and case.tape is not None else None
    if level == "history":
        assert tape is not None
        return RoundPlan(evidence=evidence_of(tape))

    if tape is None and not (case.human or case.intervene or case.mutate or case.stub):
        return RoundPlan()

    return ReplayPlan(
        tape,
        level=level,
        stub=case.stub,
        human=case.human,
        intervene=case.intervene,
        mutate=case.mutate,
    )


class ReplayPlan(RoundPlan):
    """One round whose world is (partly) played: from a tape, by a script, or both.

    Args:
        live_from: a position on the tape from which on the world answers (a fork).
    """

    def __init__(
        self,
        tape: Tape | None,
        *,
        level: Level = "recorded",
        stub: Mapping[str, Any] | None = None,
        human: Sequence[Mapping[str, Any]] = (),
        intervene: Sequence[Mapping[str, Any]] = (),
        mutate: Sequence[Mapping[str, Any]] = (),
        live_from: int | None = None,
    ) -> None:
        self.tape = tape
        self._level = level
        self._live_from = live_from
        self._stub = {"clock": "tape" if level == "recorded" else "live"} | dict(stub or {})
        self._steered = bool(human or intervene or mutate or live_from is not None or stub)
        """Whether it is meant to go another way than the tape."""
        waits = any({"delay", "timeout"} & set(rule) for rule in human)
        virtual = waits or self._stub["clock"] != "live"
        clock = JumpingClock(_start_us(tape or _EMPTY)) if virtual else None
        self._go_live = clock.go_live if clock is not None and not waits else lambda: None
        script = Interventions(intervene) if intervene else None
        scripted = ScriptedPeople(human)
        people: ScriptedPeople | TapePeople = scripted
        if tape is not None and level != "live" and (live_from is not None or not human):
            people = TapePeople(tape, live_from, scripted)

        super().__init__(clock=clock, answerer=people, interventions=script, debug=script is not None)
        self.people = people
        self.recorder = Recorder()
        """Records this round; ``recorder.tape()`` is its own tape."""
        self._script = script
        self._scripted = scripted
        self._mutate = mutate
        self._locate: Any = lambda chunk_id, name: ""
        self._look_up = asyncio.Event()
        """Set when the run can go no further, or shall begin anew."""
        self._restart: tuple[Tape, int] | None = None
        """What the next attempt plays first, and up to where."""
        self._execution: Any = None
        self._services: Any = None
        self._replayed: list[TapePorts] = []
        """One, or two more per restart."""

    def attach(self, services: Services) -> None:
        """Attach people, recorder and interventions to what hosts the round.

        Raises:
            Missing: the tape's digests were made with another key.
        """
        key = str(services.settings.get(DIGEST_KEY) or "")
        made_with = (self.tape.header.get("key_id") or "") if self.tape is not None else ""
        if self.tape is not None and self.tape.calls and made_with != key_id(key):
            raise Missing(
                f"tape {self.tape.path or ''}: its digests were made with another key; set the runtime setting "
                f"{DIGEST_KEY!r} to the one it was recorded with"
            )

        self._services = services
        services.ports = self.ports = self._world(key, self._script)
        services.answerer = self.people
        self.observers = [self.recorder.accept, self._watch]
        if self._script is not None:
            self.observers.append(self._script.accept)

    def _world(self, key: str, script: Interventions | None) -> TapePorts:
        """Return the round's world from its beginning."""
        world = TapePorts(
            self.tape or _EMPTY,
            stub=self._stub,
            mutate=self._mutate,
            key=key,
            live_from=self._live_from,
            otherwise="tape" if self._level == "recorded" else "live",
            clock=self.clock,
            interventions=script,
            go_live=self._go_live,
        )
        self._replayed.append(world)
        return world

    async def drive(self, execution: Any, value: Any) -> Any:
        """Run an execution until it closes, and cancel it when it waits for an answer that cannot come.

        A ``restart_from`` ends it and drives another one, which plays what came before the place.
        """
        self._locate = source_of(execution)
        while True:
            run: asyncio.Future[Any] = await self._drive_once(execution, value)
            if self._restart is None or self.make is None:
                return await run

            if not run.cancelled():
                run.exception()  # the attempt that is given up may have failed, and nobody else looks

            self._begin_anew(*self._restart)
            execution = self.make()

    async def _drive_once(self, execution: Any, value: Any) -> asyncio.Future[Any]:
        """Start an execution and return its end, which has come: whoever awaits it gets the snapshot or the error."""
        self._execution, self._restart = execution, None
        self._look_up.clear()
        loop = asyncio.get_running_loop()
        self.people.notice = lambda: _soon(loop, self._look)
        if self._script is not None:
            self._script.steer(execution)
            self._script.restart = self._restart_from

        execution.auto_close, execution.auto_close_timeout = True, 0.0
        run: asyncio.Future[Any] = asyncio.ensure_future(execution.async_start(value))
        told = asyncio.ensure_future(self._look_up.wait())
        try:
            await asyncio.wait({run, told}, return_when=asyncio.FIRST_COMPLETED)
            if self._script is not None:
                self._script.apply()

            if not execution.is_closed() and (self._restart is not None or not run.done()):
                await execution.async_cancel(reason="it begins anew" if self._restart else "nobody answers")

            await asyncio.wait({run})
            return run
        finally:
            told.cancel()
            if not run.done():
                run.cancel()

    def _restart_from(self, place: str) -> None:
        tape = self.recorder.tape()
        self._restart = tape, cut_of(tape, place)
        self._look_up.set()

    def _begin_anew(self, tape: Tape, cut: int) -> None:
        """Play a tape of the attempt that is given up as far as ``cut``, and go on from there as the round began."""
        if self._script is not None:
            self._script.rearm(tape.events[cut].time_us)

        again: ScriptedPeople | TapePeople = self._scripted
        if self.people is not self._scripted and self.tape is not None:
            again = TapePeople(self.tape, self._live_from, self._scripted, partly=True)

        key = str(self._services.settings.get(DIGEST_KEY) or "")
        beyond = self._world(key, None)
        beyond.share_faults(self._replayed[0])
        prefix = TapePorts(tape, key=key, live_from=cut, clock=self.clock, interventions=self._script, beyond=beyond)
        self._replayed.append(prefix)
        self.people = TapePeople(tape, cut, again, partly=True)
        self._services.ports, self._services.answerer = prefix, self.people
        self.recorder.clear()

    def _watch(self, record: EventRecord) -> None:
        if record.event_type == "triggerflow.execution_waiting":
            try:
                asyncio.get_running_loop().call_soon(self._look)  # when the transition is done
            except RuntimeError:
                pass  # emitted from another thread: a run that waits says so on its own thread, too

    def _look(self) -> None:
        """The run waits, or nobody answers a question: is anybody left who will?"""
        execution = self._execution
        if execution is not None and execution.is_waiting():
            waiting = set(execution.get_pending_interrupts())
            if waiting and waiting <= self.people.unanswered:
                self._look_up.set()

    def finish(self, evidence: Evidence) -> Sequence[Finding]:
        """Return what was noticed; the first divergence is the first finding of its kind."""
        found: list[Finding] = [*self.findings, *self.people.finish()]
        if self._script is not None:
            found += self._script.finish()

        if not self._replayed:
            return found

        misses = [finding for ports in self._replayed for _, finding in ports.misses]
        if misses:  # what was not asked for after a miss says nothing new
            found = [finding for finding in found if finding.detail.get("cause") != "unused"]

        if self.tape is None or self._level == "live":
            return misses + found

        partly = misses or self._live_from is not None or len(self._replayed) > 1
        unused = [] if partly else self._replayed[0].unused
        kind: Any = "warning" if self._steered else "divergence"
        found += [
            Finding(
                kind,
                f"unused: {entry} was recorded and never called",
                scope=entry.scope,
                recorded=entry.args,
                source=self._locate("", entry.scope.rpartition("/")[2].partition("#")[0]),
                detail={"cause": "unused", "port": entry.port, "name": entry.name},
            )
            for entry in unused[:20]
        ]
        if self.tape.outside:
            found.append(Finding("warning", f"{len(self.tape.outside)} interventions of the tape are not replayed"))

        if not self._steered:
            step = first_difference(self.tape.lines, self.recorder.lines, self._locate)
            # A miss makes its chunk fail, so the steps differ from there on; what differs before is the cause.
            if step is not None and not (misses and self._after_the_miss(step)):
                return [step[0], *misses, *found]

        return misses + found

    def _after_the_miss(self, step: tuple[Finding, int]) -> bool:
        lines = self.recorder.lines
        at = next(
            (
                index
                for index, line in enumerate(lines)
                if line["event_type"] == "triggerflow.port_failed"
                and str(((line.get("payload") or {}).get("failure") or {}).get("type", "")).endswith("TapeMiss")
            ),
            len(lines),
        )
        return step[1] > at


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon(call)


def cut_of(tape: Tape, place: str) -> int:
    """Return the position on a tape where ``place`` is first mentioned: a scope, or ``@N`` for event N.

    Raises:
        Missing: the tape has no such place.
    """
    if place.startswith("@") and place[1:].isdigit():
        return int(place[1:])

    for index, event in enumerate(tape.events):
        if event.scope == place or event.scope.startswith(f"{place}/"):
            return index

    scopes = sorted({event.scope for event in tape.events if event.scope})
    raise Missing(
        f"the run never came to {place!r}; it was at: {', '.join(scopes[:12])}{' …' if len(scopes) > 12 else ''}"
    )


def load_tape(path: Path) -> Tape:
    """Return a tape, read once per change of its file.

    Raises:
        Missing: it is not there or cannot be read.
    """
    try:
        stat = path.stat()
        return _load(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        raise Missing(f"there is no tape {path}; record one: evals record") from None
    except BadTape as problem:
        raise Missing(str(problem)) from None


@lru_cache(maxsize=256)
def _load(path: Path, changed_ns: int, size: int) -> Tape:
    return Tape.load(path)


def _start_us(tape: Tape) -> int:
    """Virtual time begins when the recorded run did."""
    first = next(iter(tape.lines), None)
    return int(first.get("timestamp") or 0) * 1000 if first else 1_700_000_000_000_000
