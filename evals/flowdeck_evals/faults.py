"""Faults by tape: what becomes of a run when one of its calls raises, is late, or gives something else?

    @given(faults(tape))
    def test_nothing_is_charged_twice(fault):
        run = replay_with(tape, flow, fault)
        assert len([e for e in run.evidence.events if e.kind == "call.done" and e.subject == "bank.charge"]) <= 1

Hypothesis draws the fault and shrinks it: to the first call, the simplest kind. The same tape and fault give the same
run, so what it finds can be put into a suite as it is (``mutate: [fault.rule]``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from flowdeck_evals.looping import run_loop
from flowdeck_evals.single import Single, replay_tape
from flowdeck_evals.tapes import Tape

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["ERRORS", "KINDS", "Fault", "faults", "replay_with"]

Kind = Literal["raise", "delay", "wrong_type"]
KINDS: Final[tuple[Kind, ...]] = ("raise", "delay", "wrong_type")
ERRORS: Final = ("TimeoutError", "ConnectionError", "ValueError")
_DELAYS_S: Final = (1.0, 60.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One call that goes wrong."""

    call: str
    """``port.name``."""
    nth: int
    """Which call of that name, from 1."""
    kind: Kind
    given: Any = True
    """The error's name, or seconds."""

    @property
    def rule(self) -> dict[str, Any]:
        """It as a rule of ``mutate:``."""
        return {"call": self.call, "nth": self.nth, self.kind: self.given}

    def __str__(self) -> str:
        what = {
            "raise": f"raises {self.given}",
            "delay": f"takes {self.given:g} s longer" if self.kind == "delay" else "",
        }
        return f"{self.call}, call {self.nth}, {what.get(self.kind, 'gives another type')}"


def faults(
    tape: Tape, *, kinds: Sequence[Kind] = KINDS, errors: Sequence[str] = ERRORS, calls: Sequence[str] = ()
) -> SearchStrategy[Fault]:
    """Return a Hypothesis strategy over the single faults of a recorded run; it shrinks towards its first call.

    Args:
        errors: names of exceptions that calls may raise.
        calls: only calls of these names (``port.name``).

    Raises:
        ValueError: the tape has no such call, so nothing can go wrong.
    """
    from hypothesis import strategies as st

    seen: dict[str, int] = {}
    places: list[tuple[str, int]] = []
    for entry in tape.calls:
        name = f"{entry.port}.{entry.name}"
        if entry.port not in ("clock", "random", "id") and (not calls or name in calls):
            seen[name] = seen.get(name, 0) + 1
            places.append((name, seen[name]))

    if not places:
        raise ValueError("the run asked nothing of the world that could fail")

    given: dict[Kind, Sequence[Any]] = {"raise": errors, "delay": _DELAYS_S, "wrong_type": (True,)}
    options = [(kind, value) for kind in kinds for value in given[kind]]
    return st.builds(
        lambda place, option: Fault(place[0], place[1], option[0], option[1]),
        st.sampled_from(places),
        st.sampled_from(options),
    )


def replay_with(tape: Tape, target: Any, fault: Fault, *, timeout: float | None = 60.0) -> Single:
    """Run today's code in the world of a tape with one fault in it; what the tape cannot answer then makes it fail."""
    return run_loop(replay_tape(tape, target, mutate=[fault.rule], timeout=timeout))
