"""Everything, ours beside other engines: ``python -m benchmarks [--quick] [--fresh] [--install]``, or ``make bench``.

Sections run one after the other, each in a process of its own; what is done is kept in ``benchmarks/.envs/bench``, so
an interrupted run goes on where it stopped (``--fresh`` begins again). ``ONLY=core,otlp`` chooses sections, and
``ONLY=W1,W4`` workloads of the core; ``PEERS=burr,langgraph`` chooses whom to compare with. The result is
``benchmarks/RESULTS.md``: versions, load, every target met or missed, and what each section printed.

``--quick`` (a minute or two) measures the hot path and compares it, as multiples of a bare ``await`` of the same
moment, with ``benchmarks/reference.json``; a quarter more is a warning. ``--quick --keep`` writes that file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.core_workloads import WORKLOADS
from benchmarks.harness import Figure, measure_async
from benchmarks.store_query import PLACE
from benchmarks.targets import BUDGETS, CPU_BOUND, WHY

HERE = Path(__file__).parent
KEPT = HERE / ".envs" / "bench"
RESULTS = HERE / "RESULTS.md"
REFERENCE = HERE / "reference.json"
WARN_AT = 1.25
BARE_AWAIT_US = 0.069
"""What a bare ``await`` took on the machine the targets were set on."""
QUICK = ("W1", "W2", "W4", "W5")
PACKAGES = ("duckdb", "textual", "opentelemetry-sdk", "pydantic", "msgspec", "anyio", "fastapi", "pydantic-ai-slim")


class Section(NamedTuple):
    """A benchmark module with its arguments."""

    name: str
    title: str
    arguments: tuple[str, ...]


SECTIONS = (
    Section("core", "Core: W1-W5, W7, parked branches", ("benchmarks.core_workloads",)),
    Section("peers", "Core, beside other engines", ("benchmarks.peers",)),
    Section("control", "Answers across processes", ("benchmarks.control_plane",)),
    Section("durable", "Durable executions, beside LangGraph and DBOS", ("benchmarks.durable",)),
    Section("postgres", "Executions in PostgreSQL, beside LangGraph and DBOS", ("benchmarks.postgres",)),
    Section("ingest", "Event history: writing, and the peer's server", ("benchmarks.store_ingest", "--seconds", "20")),
    Section("query", "Event history: ten million events", ("benchmarks.store_query",)),
    Section("otlp", "Traces, beside the SDK and logfire", ("benchmarks.otlp", "--full")),
    Section("collect", "Receiving OTLP", ("benchmarks.collect",)),
    Section("tui", "DevTools in a pseudo-terminal", ("benchmarks.tui", "--store", str(PLACE))),
    Section("evals", "Evals, beside other harnesses", ("benchmarks.evals",)),
    Section("actions", "Actions", ("benchmarks.actions",)),
    Section("workspace", "Workspace", ("benchmarks.workspace",)),
    Section("agents", "Agents and models, beside the reference", ("benchmarks.agents",)),
    Section("web", "Flows behind HTTP", ("benchmarks.web",)),
)
INSTALLING = frozenset({"peers", "evals", "otlp"})
"""Sections that make environments for peers."""


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the hot path only, compared with benchmarks/reference.json"
    )
    parser.add_argument("--keep", action="store_true", help="with --quick: write benchmarks/reference.json")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has measured")
    parser.add_argument("--install", action="store_true", help="make missing environments of peers (needs the network)")
    options = parser.parse_args()
    if options.quick:
        return quick(options.keep)

    KEPT.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for old in KEPT.glob("*.json"):
            old.unlink()

    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    workloads = [name for name in only if name in WORKLOADS]
    failed = 0
    for place, section in enumerate(SECTIONS, 1):
        wanted = not only or section.name in only or (section.name == "core" and workloads)
        kept = KEPT / f"{section.name}.json"
        if not wanted or (kept.exists() and not only):
            continue

        print(f"[{place}/{len(SECTIONS)}] {section.title} …", file=sys.stderr, flush=True)
        further = workloads if section.name == "core" else []
        if section.name in INSTALLING and options.install:
            further = [*further, "--install"]

        failed += not run(section, further, kept)

    RESULTS.write_text(report(), encoding="utf-8")
    print(f"written: {RESULTS.relative_to(HERE.parent)}", file=sys.stderr)
    return 1 if failed else 0


def run(section: Section, further: Sequence[str], kept: Path) -> bool:
    """Run a section and keep what it printed and measured. Returns whether it succeeded."""
    figures = kept.with_suffix(".figures")
    figures.unlink(missing_ok=True)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *section.arguments, *further],
        capture_output=True,
        text=True,
        env={**os.environ, "FLOWDECK_BENCH_FIGURES": str(figures)},
    )
    rows = [json.loads(line) for line in figures.read_text().splitlines()] if figures.exists() else []
    figures.unlink(missing_ok=True)
    found = {
        "code": done.returncode,
        "output": done.stdout.rstrip(),
        "problem": done.stderr[-2_000:] if done.returncode else "",
        "figures": rows,
        "seconds": round(time.monotonic() - begun),
        "load": round(os.getloadavg()[0], 1),
        "bare_await_us": round(bare_await_us(), 4),
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }
    kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return done.returncode == 0


def report() -> str:
    """Return RESULTS.md from what is kept."""
    sections = [
        (section, json.loads(kept.read_text(encoding="utf-8")))
        for section in SECTIONS
        if (kept := KEPT / f"{section.name}.json").exists()
    ]
    return "\n".join([*_head(), *_targets(sections), *_outputs(sections)]) + "\n"


def _head() -> list[str]:
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return [
        "# Results",
        "",
        "Made by `make bench`. CPU time, medians; `bare await` is what one `await` of an empty coroutine costs in the",
        f"same minute: the targets were set on a machine where it took {BARE_AWAIT_US} us.",
        "",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores;",
        f"{packages}.",
        "",
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _targets(sections: list[tuple[Section, dict[str, Any]]]) -> list[str]:
    figures = [(section, found, Figure(**row)) for section, found in sections for row in found["figures"]]
    judged = {figure.name: figure for _, _, figure in figures if figure.target is not None}
    lines = ["## Budgets", "", "What the design asks for, and the figures below that judge it.", ""]
    lines += ["| budget | verdict |", "|---|---|"]
    for budget, names in BUDGETS.items():
        verdicts = {judged[name].verdict if name in judged else "not measured" for name in names}
        lines.append(f"| {budget} | {', '.join(sorted(verdicts))} |")

    lines += [
        "",
        "## Targets",
        "",
        "Where a figure of the interpreter's time alone misses, the sixth column reckons it for the targets' machine.",
        "",
    ]
    lines += [
        f"| section | figure | measured | target | verdict | at {BARE_AWAIT_US} | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for section, found, figure in figures:
        if figure.target is None:
            continue

        bound = f"{'>=' if figure.at_least else '<='} {figure.target:,.4g}"
        missed = figure.verdict != "met"
        scaled = _scaled(figure, found["bare_await_us"]) if missed else ""
        why = WHY.get(figure.name, "not known") if missed else ""
        cells = (section.name, figure.name.strip(), _amount(figure), bound, figure.verdict, scaled, why)
        lines.append(f"| {' | '.join(cells)} |")

    return [*lines, ""]


def _amount(figure: Figure) -> str:
    return f"{figure.median:,.4g} {figure.unit}"


def _scaled(figure: Figure, bare: float) -> str:
    """Return what a figure of CPU time would be where a bare ``await`` takes as long as where the targets were set."""
    if figure.name not in CPU_BOUND:
        return ""

    factor = bare / BARE_AWAIT_US if figure.at_least else BARE_AWAIT_US / bare
    there = replace(figure, median=figure.median * factor)
    return f"{_amount(there)}: {there.verdict}"


def _outputs(sections: list[tuple[Section, dict[str, Any]]]) -> list[str]:
    lines: list[str] = []
    for section, found in sections:
        lines += [
            f"## {section.title}",
            "",
            f"`python -m {' '.join(section.arguments)}`, {found['at']} UTC, {found['seconds']} s, "
            f"load {found['load']}, bare await {found['bare_await_us']:.3f} us",
            "",
        ]
        if found["code"]:
            lines += [f"It failed with exit code {found['code']}:", "", "```text", found["problem"].rstrip(), "```", ""]

        output = found["output"]
        lines += [output, ""] if output.startswith("| ") else ["```text", output, "```", ""]

    return lines


# -- quick -------------------------------------------------------------------------------------------------------------


def quick(keep: bool) -> int:
    """Compare the hot path with the reference, as multiples of a bare ``await``."""
    found: dict[str, float] = {}
    for name in QUICK:
        command = [sys.executable, "-m", "benchmarks.core_workloads", "--one", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1

        bare = bare_await_us()
        for row in json.loads(done.stdout.splitlines()[-1]):
            figure = Figure(**row)
            if figure.unit == "us":
                found[figure.name] = round(figure.best / bare, 2)
            elif figure.unit == "/s":
                found[figure.name] = round(1e6 / figure.best / bare, 2)

    if keep:
        REFERENCE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    reference = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.exists() else {}
    slower = 0
    print(f"{'in bare awaits':<44}{'now':>10}{'reference':>11}{'ratio':>7}")
    for name, value in found.items():
        before = reference.get(name)
        ratio = value / before if before else float("nan")
        warned = before is not None and ratio > WARN_AT
        slower += warned
        told = "   slower" if warned else ""
        print(f"{name:<44}{value:>10,.1f}{before if before is not None else float('nan'):>11,.1f}{ratio:>7.2f}{told}")

    if slower:
        print(f"warning: {slower} figure(s) more than {WARN_AT - 1:.0%} above the reference", file=sys.stderr)

    return 0


def bare_await_us() -> float:
    """Return what an ``await`` of an empty coroutine costs now, in microseconds of CPU: the best of 25 rounds."""

    async def nothing() -> None: ...

    async def many() -> None:
        for _ in range(10_000):
            await nothing()

    async def measured() -> list[float]:
        return await measure_async(many, 5, 25)

    return min(asyncio.run(measured())) / 10_000 * 1e6


if __name__ == "__main__":
    sys.exit(main())
