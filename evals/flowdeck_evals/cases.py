"""What an evaluation asks: suites hold cases, a case is run in rounds, a round is looked at by checks.

Everything here is data that never changes. Who makes it: :mod:`flowdeck_evals.loading` from files,
:class:`flowdeck_evals.suite.Suite` in Python. Who uses it: the runner (rounds, timeout), the planner
(:mod:`flowdeck_evals.plans`: level, tape, stub, human, intervene, mutate), the checks (expect), the gate (need,
control). Source: the evals reference, §3.1-3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

__all__ = ["ALL", "LEVELS", "Case", "Gate", "Level", "Need", "Place"]

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

Level = Literal["live", "recorded", "history"]
LEVELS: Final[tuple[Level, ...]] = ("live", "recorded", "history")


class Place(NamedTuple):
    """Where in a file something was written."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Need(NamedTuple):
    """How many of a case's rounds must pass.

    ``kind`` is ``"all"``, ``"count"`` (at least ``amount`` of ``of`` rounds; fewer rounds than ``of`` are too few),
    ``"pass^k"`` (the unbiased estimate that all of ``of`` rounds pass is at least ``amount``: reliability) or
    ``"pass@k"`` (that at least one of them does: capability).
    """

    kind: Literal["all", "count", "pass^k", "pass@k"]
    amount: float = 1.0
    of: int = 1

    def __str__(self) -> str:
        if self.kind == "all":
            return "all"

        return f"{self.amount:g}/{self.of}" if self.kind == "count" else f"{self.kind[:-1]}{self.of} >= {self.amount:g}"


ALL: Final = Need("all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[I, O]):
    """One scenario.

    ``human``, ``intervene``, ``stub``, ``mutate`` and ``expect`` are the file's own mappings, their keys checked
    against the format but not yet compiled: the room that plays them compiles them, once per case.
    """

    id: str
    """``case:`` of the file, unique in its suite."""
    input: I
    """What the target is started with."""
    why: str = ""
    tags: tuple[str, ...] = ()
    level: Level = "live"
    rounds: int = 1
    timeout: float | None = 60.0
    """Seconds on the wall after which a round is cancelled."""
    tape: Path | None = None
    """The recording it replays, absolute; needed by the levels ``recorded`` and ``history``."""
    stub: Mapping[str, Any] = field(default_factory=dict)
    """Per port ``tape``, ``live`` or a value; ``clock: virtual``; ``random: seed``."""
    human: tuple[Mapping[str, Any], ...] = ()
    """Rules of the scripted person, in file order (§3.7)."""
    intervene: tuple[Mapping[str, Any], ...] = ()
    """What is done to the run, and where (§3.7)."""
    mutate: tuple[Mapping[str, Any], ...] = ()
    """Faults put into a tape's answers."""
    expect: Mapping[str, Any] = field(default_factory=dict)
    """What must hold: ``output schema path budget checks error``."""
    checks: tuple[Callable[..., Any], ...] = ()
    """Checks of the Python API, run after those of ``expect``."""
    need: Need = ALL
    control: bool = False
    """A negative control (``control: must_fail``): the suite is wrong when it passes."""
    skip: str = ""
    """Why it is not run; empty: it is."""
    quarantine: tuple[str, str, str] | None = None
    """Who looks after it, why, and the last day (YYYY-MM-DD): until then it runs, is shown and does not block."""
    place: Place | None = None
    hash: str = field(default="", compare=False)
    """BLAKE2b over its canonical JSON and its tape. Only rounds of equal hash are compared."""

    @property
    def deterministic(self) -> bool:
        """Whether the same code must give the same result: it plays a recording. Else it is *sampled*."""
        return self.level != "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a session must reach (``gate:`` of the file); the defaults are the strictest."""

    new_failures: int = 0
    """Deterministic cases that may fail without being listed as known failures of the baseline."""
    divergences: int = 0
    pass_rate: float | None = None
    """Share of sampled cases that must pass; ``None``: every one."""
    pass_rate_lower: float | None = None
    """What the lower end of the 95 % interval of that share must reach."""
    unscored: int = 0
    harness_error: int = 0
    skipped: float = 1.0
    """Share of cases that may be skipped."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Rules that compare with a baseline (``regression``, ``latency_p50``, ``latency_p95``), as written."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """What all rounds may use together: ``wall`` (seconds), ``tokens``, ``cost_usd``."""
