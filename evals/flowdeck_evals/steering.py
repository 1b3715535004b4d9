"""Interventions of a case: what is done to a run when a certain event happens in a certain place.

An intervention waits for the nth event that fits its pattern, never for wall time, and fires once. What can act on the
call that is just beginning (``fail_call``, ``replace_output``, ``pause``) does so before it goes out; everything else
is applied before any further port call of the run, and before other branches run on. One that never fired fails the
round.
Source: the evals reference, §3.7.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flowdeck.execution.ports import PortCall
from flowdeck_evals.happenings import Happening
from flowdeck_evals.plans import Missing
from flowdeck_evals.rounds import Finding
from flowdeck_evals.steps import Step

if TYPE_CHECKING:
    from flowdeck.events.record import EventRecord

__all__ = ["ACTIONS", "Interventions", "Override"]

ACTIONS: Final = (
    "cancel",
    "signal",
    "set",
    "intervene",
    "fail_call",
    "replace_output",
    "pause",
    "resume",
    "restart_from",
)
_OF_CALL: Final = frozenset({"fail_call", "replace_output"})


class Override:
    """What a call that is just beginning shall give instead."""

    def __init__(self, action: str, given: Any) -> None:
        self.action = action
        self.given = given


class _Intervention:
    """One entry of ``intervene``."""

    def __init__(self, number: int, given: Mapping[str, Any]) -> None:
        at, do = given["at"], given["do"]
        self.number = number
        self.nth = int(at.get("nth", 1)) if isinstance(at, Mapping) else 1
        self.text = at["event"] if isinstance(at, Mapping) else at
        self.step = Step({k: v for k, v in at.items() if k != "nth"} if isinstance(at, Mapping) else at)
        action, given_to = (do, None) if isinstance(do, str) else next(iter(do.items()), ("", None))
        self.action: str = action
        self.given: Any = given_to
        self.whole_run = given.get("hold") == "run"
        self.seen = 0
        self.fired = False
        self.fired_us = 0
        if self.action not in ACTIONS or (isinstance(do, Mapping) and len(do) != 1):
            raise Missing(f"intervention {number}: do: {do!r} is not known here; known: {', '.join(ACTIONS)}")

        if self.action in _OF_CALL and not self.text.startswith(("call.start", "triggerflow.port_called")):
            raise Missing(
                f"intervention {number}: {self.action} acts on a call that begins: write at: 'call.start PORT.NAME'"
            )

    def meets(self, event: Happening) -> bool:
        """Whether this event is the one it waits for."""
        if self.fired or not (self.step.pattern.matches(event) and self.step.fits(event)):
            return False

        self.seen += 1
        self.fired, self.fired_us = self.seen == self.nth, event.time_us
        return self.fired


class Interventions:
    """Plays a case's ``intervene`` on one run: it sees every event, and is a barrier for port calls."""

    def __init__(self, given: Sequence[Mapping[str, Any]]) -> None:
        self._all = [_Intervention(number, each) for number, each in enumerate(given, 1)]
        self._pending: deque[tuple[_Intervention, Happening]] = deque()
        self._overrides: dict[tuple[str, str, str, int], Override] = {}
        self._held: set[str] = set()
        """Scopes whose calls wait; the empty text is the whole run."""
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._execution: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.findings: list[Finding] = []
        self.restart: Callable[[str], None] = lambda place: None
        """Called with the place of a ``restart_from``; raises :class:`Missing` when the run was never there."""

    def steer(self, execution: Any) -> None:
        """Name the execution to act on; called on its event loop, before it starts."""
        self._execution = execution
        self._loop = asyncio.get_running_loop()

    def rearm(self, before_us: int) -> None:
        """Begin anew for a restarted run: what fired before that time will come again, what fired later will not."""
        self._overrides.clear()
        self._held.clear()
        self._released.set()
        for each in self._all:
            each.fired = each.fired and each.fired_us >= before_us
            each.seen = 0

    # -- seeing --------------------------------------------------------------------------------------------------

    def accept(self, record: EventRecord) -> None:
        """Look at an event; what it triggers is done as soon as that is possible."""
        event = Happening.of_record(record)
        for each in self._all:
            if each.meets(event):
                self._reached(each, event)

    def _reached(self, each: _Intervention, event: Happening) -> None:
        if each.action in _OF_CALL:
            payload = event.payload
            key = (payload["scope"], payload["port"], payload["name"], payload["ordinal"])
            self._overrides[key] = Override(each.action, each.given)
        elif each.action == "pause":
            self._held.add("" if each.whole_run else event.scope)
            self._released.clear()
        elif each.action == "resume":
            self._held.clear()
            self._released.set()
        else:
            # The event is emitted in the middle of a transition: acting on the run has to wait until that is done.
            self._pending.append((each, event))
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.apply)

    # -- acting --------------------------------------------------------------------------------------------------

    async def barrier(self, call: PortCall) -> Override | None:
        """Wait until everything that was reached is applied and nobody holds this call. Return what it shall give."""
        override = self._overrides.pop((call.scope, call.port, call.name, call.ordinal), None)
        if self._pending or self._tasks:
            self.apply()
            # A real turn of the loop: what was started above runs first. (A short handler's sleep(0) may be none.)
            turn = asyncio.get_running_loop().create_future()
            turn.get_loop().call_soon(turn.set_result, None)
            await turn

        while any(call.scope == held or call.scope.startswith(f"{held}/") or not held for held in self._held):
            await self._released.wait()

        return override

    def apply(self) -> None:
        """Do what was reached and could not be done in the middle of a transition."""
        while self._pending:
            each, event = self._pending.popleft()
            try:
                self._apply(each)
            except Exception as exc:
                self.findings.append(
                    Finding("failed", f"intervention {each.number} ({each.action}) was refused: {exc}", event.scope)
                )

    def _apply(self, each: _Intervention) -> None:
        execution, given = self._execution, each.given
        if each.action == "cancel":
            self._start(execution.async_cancel(reason=str(given or f"intervention {each.number}")))
        elif each.action == "signal":
            event, value = (given, None) if isinstance(given, str) else (given["event"], given.get("value"))
            execution.emit_nowait(event, value)
        elif each.action == "restart_from":
            self.restart(str(given))
            self._held.add("")  # nothing goes out any more
            self._released.clear()
        elif each.action == "set":
            self._start(execution.async_set_state(given["path"], given.get("value")))
        else:
            body = given if isinstance(given, Mapping) and "payload" in given else {"payload": given}
            execution.intervene(**{"author": "script", **body})

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def finish(self) -> list[Finding]:
        """Return what was refused, and every intervention that was never reached."""
        return self.findings + [
            Finding(
                "failed",
                f"intervention {each.number} never reached: no {each.text}"
                + (f" (it came {each.seen} times, not {each.nth})" if each.seen else ""),
            )
            for each in self._all
            if not each.fired
        ]
