"""What a workspace costs: small records per second, and a context over many of them.

    python -m benchmarks.workspace [--records 100000]

``bare`` is the limit: the same content written to a file of its own and renamed, without a row or an index.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from flowdeck.workspace import Workspace, WorkspaceManager

WORDS = [
    "risk", "report", "approval", "contract", "clause", "payment", "invoice", "budget",
    "vendor", "decision", "evidence", "review", "draft", "data", "test", "error",
]  # fmt: skip
GOALS = {
    "common words": "risk report",
    "a rare word": "number77 of the risk report",
    "Chinese": "根据最新审批意见修订审查报告。",
    "sixteen words": " ".join(WORDS),
    "no match": "zzz",
}


def text(number: int, chance: random.Random) -> str:
    """Return about 130 characters in two scripts."""
    return f"record {number} number{number} {' '.join(chance.choices(WORDS, k=12))} 审批意见"


async def fill(workspace: Workspace, count: int) -> None:
    """Ingest one after another, as a flow does."""
    chance = random.Random(1)
    for number in range(count):
        await workspace.ingest(
            content=text(number, chance),
            collection="observations",
            kind="note",
            summary=f"note {number}",
            scope={"task_id": f"t{number % 2}"},
            source={"name": "benchmark"},
        )


def bare(folder: Path, count: int) -> float:
    """Return the seconds of CPU the same files take without a workspace."""
    chance = random.Random(1)
    began = time.process_time()
    for number in range(count):
        with (folder / "incoming").open("w") as file:
            file.write(text(number, chance))

        (folder / "incoming").rename(folder / str(number))

    return time.process_time() - began


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as folder:
        workspace: Workspace = WorkspaceManager().create(Path(folder) / "ws")
        cpu, wall = time.process_time(), time.perf_counter()
        await fill(workspace, count)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        limit = bare(Path(folder), min(count, 5000)) / min(count, 5000)
        print(f"load average {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
        print(f"ingest: {count / wall:,.0f} records/s; CPU {cpu / count * 1e6:.0f} us each, bare {limit * 1e6:.0f} us")
        for name, goal in GOALS.items():
            times: list[float] = []
            for _ in range(7):
                began = time.perf_counter()
                context = await workspace.build_context(goal=goal, scope={"task_id": "t0"}, budget={"tokens": 12_000})
                times.append(time.perf_counter() - began)

            told = f"{len(context['items'])} items of {context['diagnostics']['candidate_count']}"
            print(f"build_context, {name}: {sorted(times)[3] * 1e3:.1f} ms ({told})")

        began = time.perf_counter()
        await workspace.search("risk report")
        print(f"search, two common words: {(time.perf_counter() - began) * 1e3:.1f} ms")

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak >> (20 if sys.platform == 'darwin' else 10)} MB")


if __name__ == "__main__":
    asyncio.run(main())
