"""Timing that survives a busy machine: process CPU time, medians, and ratios against bare limits of the same process.

Wall time is not reported: on shared cores it says more about the neighbours than about the code.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Figure", "Target", "judged", "measure", "measure_async", "peak_rss_mb", "reset_peak", "table"]

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: median, best and worst of the rounds, in ``unit``."""

    name: str
    median: float
    best: float
    worst: float
    unit: str
    target: float | None = None
    at_least: bool = False
    """The target is a floor (a rate), not a ceiling (a cost)."""
    limit: float | None = None
    """The bare limit measured in the same process, in the same unit."""

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""

        met = self.median >= self.target if self.at_least else self.median <= self.target
        if met:
            return "met"

        off = self.target / self.median if self.at_least else self.median / self.target
        return f"missed x{off:.2f}"


def measure(fn: Callable[[], object], inner: int, rounds: int = ROUNDS) -> list[float]:
    """Return the CPU seconds of one call of ``fn``, per round of ``inner`` calls."""
    fn()
    out = []
    for _ in range(rounds):
        gc.collect()
        begun = time.process_time()
        for _ in range(inner):
            fn()

        out.append((time.process_time() - begun) / inner)

    return out


async def measure_async(fn: Callable[[], Awaitable[object]], inner: int, rounds: int = ROUNDS) -> list[float]:
    """Return the CPU seconds of one ``await fn()``, per round of ``inner`` calls. Writer threads count, too."""
    await fn()
    out = []
    for _ in range(rounds):
        gc.collect()
        begun = time.process_time()
        for _ in range(inner):
            await fn()

        await asyncio.sleep(0)
        out.append((time.process_time() - begun) / inner)

    return out


def figure(
    name: str,
    seconds: list[float],
    per: float,
    unit: str = "us",
    *,
    target: float | None = None,
    limit: float | None = None,
) -> Figure:
    """Turn seconds per call into a figure per ``per`` things a call does."""
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit] / per
    values = sorted(s * scale for s in seconds)
    return Figure(name, statistics.median(values), values[0], values[-1], unit, target, False, limit)


def rate(name: str, seconds: list[float], per: float, *, target: float | None = None) -> Figure:
    """Turn seconds per call into things per CPU second."""
    values = sorted(per / s for s in seconds)
    return Figure(name, statistics.median(values), values[-1], values[0], "/s", target, True)


class Target(NamedTuple):
    """What a measured number is called in a table, and what it must reach."""

    title: str
    unit: str
    bound: float
    at_least: bool = False


def judged(found: Mapping[str, float], targets: Mapping[str, Target]) -> list[Figure]:
    """Return those of the measured numbers that have a target as figures."""
    return [
        Figure(target.title, found[key], found[key], found[key], target.unit, target.bound, target.at_least)
        for key, target in targets.items()
        if key in found
    ]


def table(figures: list[Figure]) -> str:
    """Return the figures as a Markdown table. ``FLOWDECK_BENCH_FIGURES`` names a file that gets them as JSON, too."""
    kept = os.environ.get("FLOWDECK_BENCH_FIGURES")
    if kept:
        with Path(kept).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(figure)) + "\n" for figure in figures)

    lines = ["| figure | median | best | worst | target | verdict | x bare limit |", "|---|---|---|---|---|---|---|"]
    for f in figures:
        target = "" if f.target is None else f"{'>=' if f.at_least else '<='} {f.target:,.4g}"
        ratio = "" if not f.limit else f"{f.median / f.limit:.1f}"
        cells = (f.name, f"{f.median:,.4g} {f.unit}", f"{f.best:,.4g}", f"{f.worst:,.4g}", target, f.verdict, ratio)
        lines.append(f"| {' | '.join(cells)} |")

    return "\n".join(lines)


def reset_peak() -> None:
    """Forget the peak of the resident size (Linux; elsewhere the peak is the process's)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_rss_mb() -> float:
    """Return the peak resident size in MB since :func:`reset_peak`."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass

    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
