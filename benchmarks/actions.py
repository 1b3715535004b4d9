"""What a round of the action loop costs: ``python benchmarks/actions.py [rounds]``.

CPU time of this process (``process_time``), one call a round, an async action that returns at once; a new loop every
five rounds, as the default limit has it. Prints the median of five runs.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flowdeck import Runtime

ROUNDS_A_LOOP = 5


def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
    return [{"action_id": "add", "action_input": {"x": context["round_index"]}}]


async def add(x: int) -> int:
    return x + 1


async def loops(runtime: Runtime, count: int) -> None:
    loop = runtime.actions.create_loop(plan, max_rounds=ROUNDS_A_LOOP)
    for _ in range(count):
        await loop.async_run()


def measure(runtime: Runtime, rounds: int) -> float:
    """Return milliseconds of CPU a round."""
    runtime.actions.action_func(add)
    count = max(1, rounds // ROUNDS_A_LOOP)
    asyncio.run(loops(runtime, 5))
    took = []
    for _ in range(5):
        began = time.process_time()
        asyncio.run(loops(runtime, count))
        runtime.flush()
        took.append((time.process_time() - began) / (count * ROUNDS_A_LOOP) * 1e3)

    return statistics.median(took)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"action loop, events off:  {measure(Runtime(), rounds):.3f} ms CPU a round")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the publisher may still be at it
        runtime = Runtime()
        runtime.observe(store=Path(folder) / "store")
        print(f"action loop, journaled:   {measure(runtime, rounds):.3f} ms CPU a round")
        runtime.close()


if __name__ == "__main__":
    main()
