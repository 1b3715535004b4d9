"""How costs grow: ``python -m benchmarks.growth [--events N ...] [--store DIR ...]`` draws docs/images/growth.svg.

Four curves, each a cost of one unit against how many there are: steps in a chain, branches of a fan-out, executions at
a time, and events in a store. A flat line is linear growth of the whole; the last panel is the whole question, so flat
there means that history costs nothing. CPU time, medians of the rounds; the drawing needs matplotlib (extra ``docs``).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.flows import chain_flow, fan_flow, journaled, plain
from benchmarks.harness import measure_async
from benchmarks.store_make import make
from benchmarks.store_query import cost
from flowdeck.execution.services import Services
from flowdeck_sinks.store import connect

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"
ROUNDS = 5
STEPS = (10, 100, 1_000, 5_000)
BRANCHES = (10, 100, 1_000, 10_000, 50_000)
EXECUTIONS = (1, 10, 100, 1_000, 5_000)
EVENTS = (10_000, 100_000, 1_000_000)
WORK = 5_000
"""About how many units one round has, so that short ones are repeated."""

Curve = dict[int, float]


async def per_unit(work: Callable[[], Awaitable[object]], count: int, units: int) -> float:
    """Microseconds of CPU for one of the ``units`` that one call does; ``count`` says how often a call is repeated."""
    return statistics.median(await measure_async(work, max(1, WORK // count), ROUNDS)) / units * 1e6


async def steps(services: Services) -> Curve:
    """One chain, longer and longer."""
    found: Curve = {}
    for count in STEPS:
        flow = chain_flow(count)
        found[count] = await per_unit(lambda flow=flow: flow.async_start(1, services=services), count, count)
    return found


async def branches(services: Services) -> Curve:
    """One fan-out, wider and wider."""
    flow, found = fan_flow(), {}
    for count in BRANCHES:
        items = list(range(count))
        found[count] = await per_unit(lambda items=items: flow.async_start(items, services=services), count, count)
    return found


async def executions(services: Services) -> Curve:
    """Ten steps each, more and more at a time."""
    flow, found = chain_flow(10), {}
    for count in EXECUTIONS:

        async def crowd(count: int = count) -> None:
            await asyncio.gather(*[flow.async_start(number, services=services) for number in range(count)])

        found[count] = await per_unit(crowd, count * 10, count * 10)
    return found


async def core(curve: Callable[[Services], Awaitable[Curve]]) -> dict[str, Curve]:
    """A curve without listeners, and with every event in the journal."""
    quiet = await curve(plain())
    with tempfile.TemporaryDirectory() as folder:
        services, sink = journaled(folder)
        kept = await curve(services)
        sink.close(30)
    return {"events off": quiet, "journaled": kept}


def history(sizes: Sequence[int], stores: Sequence[Path]) -> dict[str, Curve]:
    """Milliseconds of CPU of two questions everybody asks, over longer and longer histories."""
    found: dict[str, Curve] = {"newest 50 runs": {}, "events of one run": {}}
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for size in sizes:
            store = Path(folder) / str(size)
            make(store, size)
            made.append(store)
        for store in (*made, *stores):
            with connect(store, threads=2) as connection:

                def ask(query: str, connection: Any = connection) -> Callable[[], list[Any]]:
                    return lambda: connection.execute(query).fetchall()

                newest = "SELECT count(*), date_diff('millisecond', max(ts), utc_now()) / 3.6e6 FROM events"
                ((count, age),) = ask(newest)()
                ((run,),) = ask(f"SELECT execution_id FROM events WHERE ts > hours_ago({age + 200:.4f}) LIMIT 1")()
                recent = f"SELECT execution_id, status FROM recent_runs({age + 1:.4f}) LIMIT 50"
                found["newest 50 runs"][count] = cost(ask(recent)).cpu
                found["events of one run"][count] = cost(ask(f"FROM run_events('{run}')")).cpu
    return found


def draw(panels: Sequence[tuple[str, str, str, dict[str, Curve]]], target: Path) -> None:
    """Draw one panel for each (title, x, y, curves), logarithmic in x, from zero in y."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("drawing needs matplotlib: pip install 'flowdeck[docs]'")

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "flowdeck", "font.size": 9, "axes.spines.top": False}
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 2, figsize=(9, 6))
    for place, (title, x, y, curves) in zip(places.flat, panels, strict=True):
        for name, curve in curves.items():
            place.plot(list(curve), list(curve.values()), marker="o", label=name)
        place.set(title=title, xlabel=x, ylabel=y, xscale="log")
        place.set_ylim(bottom=0)
        place.spines["right"].set_visible(False)
        place.grid(axis="y", alpha=0.3)
        place.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="*", default=EVENTS, help="sizes of stores to make")
    parser.add_argument("--store", type=Path, nargs="*", default=(), help="stores there are already")
    parser.add_argument("--to", type=Path, default=PICTURE, help="where the picture goes")
    options = parser.parse_args()
    begun = time.monotonic()
    panels = [
        ("One chain", "steps", "µs CPU a step", asyncio.run(core(steps))),
        ("One fan-out and join", "branches", "µs CPU a branch", asyncio.run(core(branches))),
        ("Executions at a time, ten steps each", "executions", "µs CPU a step", asyncio.run(core(executions))),
        ("Questions to the event history", "events", "ms CPU a question", history(options.events, options.store)),
    ]
    for title, x, y, curves in panels:
        print(f"{title} ({y})")
        for name, curve in curves.items():
            print(f"  {name:<20}", "  ".join(f"{count:,} {x}: {value:.3g}" for count, value in curve.items()))
    print(f"load {os.getloadavg()[0]:.1f}, {time.monotonic() - begun:.0f} s")
    draw(panels, options.to)


if __name__ == "__main__":
    main()
