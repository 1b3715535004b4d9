"""One run outside a session, recorded as a tape or replayed from one: ``evals record`` and ``evals replay``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowdeck_evals.comparing import plain
from flowdeck_evals.hosting import Place
from flowdeck_evals.planning import ReplayPlan, cut_of
from flowdeck_evals.plans import Missing
from flowdeck_evals.recording import tape_of_lines
from flowdeck_evals.rounds import Evidence, Finding
from flowdeck_evals.tapes import Tape, loss_in

__all__ = ["Single", "record_live", "replay_tape"]

_TAPE_INPUT: Final = object()


@dataclass(slots=True)
class Single:
    """One run, what was noticed, and its own tape."""

    evidence: Evidence
    findings: list[Finding]
    tape: Tape

    @property
    def divergence(self) -> Finding | None:
        """The first thing that went another way than the tape; ``None`` when nothing did."""
        return next((finding for finding in self.findings if finding.kind == "divergence"), None)


async def record_live(
    target: Any,
    value: Any,
    *,
    human: Sequence[Mapping[str, Any]] = (),
    intervene: Sequence[Mapping[str, Any]] = (),
    stub: Mapping[str, Any] | None = None,
    redact: Sequence[str] = (),
    volatile: Sequence[str] = (),
    name: str = "",
    timeout: float | None = 60.0,
) -> Single:
    """Run a flow with the real world behind its ports and return the run with its tape.

    Args:
        human: who answers questions, as in a case.
        redact, volatile: see :func:`~.recording.tape_of_lines`.
        name: the target as ``module:flow``, for the tape's header.
        timeout: seconds on the wall.
    """
    plan = ReplayPlan(None, level="live", human=human, intervene=intervene, stub=stub)
    return await _run(plan, target, value, timeout, {"redact": redact, "volatile": volatile, "target": name})


async def replay_tape(
    tape: Tape,
    target: Any,
    value: Any = _TAPE_INPUT,
    *,
    live_from: str | None = None,
    human: Sequence[Mapping[str, Any]] = (),
    stub: Mapping[str, Any] | None = None,
    mutate: Sequence[Mapping[str, Any]] = (),
    timeout: float | None = 60.0,
) -> Single:
    """Run today's code in the world of a tape.

    Args:
        value: the input; by default the recorded one.
        live_from: a scope (or ``@N``, event N): everything before is played, from there on the world answers. The new
            tape's header says what it was forked from.
        human: who answers instead of the tape's people; in a fork, who answers after the place.
        stub: per port ``tape``, ``live`` or a value.
        mutate: faults that are put into calls, as in a suite: ``{"call": "web.*", "nth": 1, "raise": "TimeoutError"}``.

    Raises:
        Missing: the tape has no such place, or its input is lossy.
    """
    if value is _TAPE_INPUT:
        value = tape.input
        if loss := loss_in(value):
            raise Missing(f"the input on the tape is {loss}: give one")

    cut = cut_of(tape, live_from) if live_from is not None else None
    plan = ReplayPlan(tape, human=human, stub=stub, mutate=mutate, live_from=cut)
    header = {"target": tape.header.get("target") or "", "volatile": tape.volatile}
    single = await _run(plan, target, value, timeout, header)
    if cut is not None:
        single.tape.header["forked_from"] = [tape.header.get("run_id"), cut]

    return single


async def _run(plan: ReplayPlan, target: Any, value: Any, timeout: float | None, header: dict[str, Any]) -> Single:
    evidence = await Place().run(target, value, plan, timeout=timeout)
    tape = tape_of_lines(plan.recorder.lines, **header)
    output = plain(evidence.output)
    if not loss_in(output):
        tape.header["output"] = output

    return Single(evidence, list(plan.finish(evidence)), tape)
