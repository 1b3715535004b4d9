"""Why a figure may miss its target, and which figures the budgets of the design ask for.

``RESULTS.md`` shows the reason beside the verdict; a missed target without one is shown as such. The long story of each
is in ``benchmarks/README.md``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BUDGETS", "CPU_BOUND", "WHY"]

WHY: Final = {
    "W1 journaled": "two events of 0.9 kB a step: 2 x 3.9 us in the emitting thread, 2 x 2 us in the writer, "
    "and how the two threads share the interpreter",
    "W3 journaled": "20,000 events are 0.2 s of it",
    "W3 journaled RSS growth": "8.8 MB are Python objects; the rest is the allocator's: lines made in one thread and "
    "let go in another. Smaller writes, shorter switch interval, one arena were tried",
    "W4 in memory": "spread over some 230 calls (342 before) of which none leads; the last three ideas gave less "
    "than a hundredth each",
    "W5 journaled (all threads)": "873 bytes, redacted, encoded, written and followed by two threads that share one "
    "interpreter; the writer alone takes 470-590 k/s",
    "W5 app thread per journaled event": "redaction looks at every key of the payload: 0.4-1.1 us of it",
    "save 10,000 parked branches": "7 ms are one msgspec call over 6.2 MB",
    "durable pause, fresh load, resume, FULL": "five commits and a claim, each of which a promise needs; the same run "
    "without a pause takes 380 us of it",
    "start + result, durable, over FastAPI's own and the run's": "a difference of two figures that both wait for the "
    "disk, 0.4-2.7 ms from run to run",
    "  Flowdeck over langgraph, PostgreSQL": "wall time of three rounds on one server: 9.4-26.6 over a day's runs",
    "journal: CPU beside the emitting thread, 2,000 events/s": "on a quiet machine the writer wakes for fewer events "
    "at a time; 4.9-6.05 on a busy one",
    "OTLP CPU per span, durable, traces, logs and metrics": "the budget is for spans; logs and metrics add 15 us",
    "OTLP app thread grows by, journal + otlp memory": "a ratio of two minima of three rounds: 8.1-10.3 over the runs",
    "DevTools: idle, of a core": "21 wake-ups a second, half of them of Textual's input thread, at 0.15-0.2 ms each",
    "W2 journaled 100": "21.2-25.7 over the runs of a day, in the mean 22",
    "recent 50 runs and all open, of 10 M events, wall": "42.7-64 over the runs: two threads need both cores",
    "all events of one run, of 10 M events, wall": "54.5-62.4 ms over the runs, likewise",
}
"""Figure -> why it misses its target where it does."""

BUDGETS: Final[dict[str, tuple[str, ...]]] = {
    "W1 a step, nobody observes": ("W1 off",),
    "W1 a step, every INFO event in the journal": ("W1 journaled",),
    "W2 a branch, nobody observes": ("W2 off 100", "W2 off 10,000"),
    "W2 a branch, journaled": ("W2 journaled 100", "W2 journaled 10,000"),
    "W3 1,000 executions x 10 x 1 ms": ("W3 off", "W3 off RSS growth"),
    "W3 journaled": ("W3 journaled", "W3 journaled RSS growth"),
    "W4 pause and resume in memory": ("W4 in memory",),
    "W4 pause and resume, SQLite FULL": ("durable pause, fresh load, resume, FULL",),
    "durable steps, SQLite FULL, 32 at once": ("durable steps, FULL, 32 concurrent",),
    "W5 one no-op sink": ("W5 one no-op sink",),
    "W5 journaled": ("W5 journaled (all threads)",),
    "W7 a parked execution on disk": ("state.db per parked execution",),
    "W7 a parked execution in memory": ("W7 live parked execution",),
    "emit to visible in another process, p50": ("emit -> SQL in another process, 1,000 events/s, p50",),
    "emit to visible in another process, p99": ("emit -> SQL in another process, 1,000 events/s, p99",),
    "recent runs at ten million events": ("recent 50 runs and all open, of 10 M events, wall",),
    "DevTools, live tail at 10,000 events/s": ("DevTools: tail at 10,000 events/s, of a core",),
    "OTLP, 100,000 spans and an outage of 10 s": ("OTLP arrived, 100 k spans at 5 k/s, 10 s outage, durable",),
    "OTLP, CPU a span": ("OTLP CPU per span, durable, traces alone",),
    "eval harness, a case with its results": ("evals: a trivial case, results stored",),
}
"""Budget of the design -> the figures that judge it."""

CPU_BOUND: Final = frozenset(
    {
        "W1 journaled",
        "W3 journaled",
        "W4 in memory",
        "W5 journaled (all threads)",
        "W5 app thread per journaled event",
        "save 10,000 parked branches",
        "journal: CPU beside the emitting thread, 2,000 events/s",
        "OTLP CPU per span, durable, traces alone",
    }
)
"""Figures that are the interpreter's time alone: what they would be on a faster machine can be reckoned."""
