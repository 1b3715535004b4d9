"""W4, W7 and ten thousand parked branches: what waiting for people costs. Run by :mod:`benchmarks.core_workloads`."""

from __future__ import annotations

import asyncio
import gc
import json

from benchmarks.flows import pause_flow, plain
from benchmarks.harness import Figure, figure, measure, measure_async, peak_rss_mb, reset_peak

__all__ = ["parked_branches", "w4", "w7"]


def w4() -> list[Figure]:
    """One pause and its answer, in memory; and the size of the snapshot of a parked execution."""
    flow = pause_flow()

    async def main() -> list[Figure]:
        async def future() -> None:
            waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            async def wait() -> int:
                return await waiter

            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiter.set_result(1)
            await task

        limit = figure("bare future", await measure_async(future, 1000), 1)
        off = plain()

        async def once() -> None:
            execution = flow.create_execution(auto_close=False, services=off)
            await execution.async_start("T-1")
            interrupt_id = next(iter(execution.get_pending_interrupts()))
            await execution.async_continue_with(interrupt_id, {"approved": True})
            await execution.async_close()
            flow.remove_execution(execution)

        out = [limit, figure("W4 in memory", await measure_async(once, 300), 1, target=30, limit=limit.median)]
        parked = flow.create_execution(auto_close=False, services=off)
        await parked.async_start("T-1")
        size = float(len(json.dumps(parked.save(), separators=(",", ":"))))
        out.append(Figure("W4 snapshot", size, size, size, "B", 1_000))
        return out

    return asyncio.run(main())


def w7() -> list[Figure]:
    """Resident bytes of a live parked execution, 10,000 of them."""
    flow = pause_flow()
    off = plain()
    out = []

    async def main() -> None:
        gc.collect()
        reset_peak()
        before = peak_rss_mb()
        held = []
        for i in range(10_000):
            execution = flow.create_execution(auto_close=False, services=off)
            await execution.async_start(i)
            held.append(execution)

        size = (peak_rss_mb() - before) * 1024 * 1024 / len(held)
        out.append(Figure("W7 live parked execution", size, size, size, "B", 4_000))

    asyncio.run(main())
    return out


def parked_branches(count: int = 10_000) -> list[Figure]:
    """One execution whose ``for_each`` has 10,000 members that wait for a person: what save() and load() take."""
    flow = pause_flow(members=True)
    off = plain()

    async def main() -> list[Figure]:
        parked = flow.create_execution(auto_close=False, services=off)
        await parked.async_start(list(range(count)))
        state = parked.save()
        size = len(json.dumps(state, separators=(",", ":"))) / count

        def load() -> None:
            flow.remove_execution(flow.create_execution(auto_close=False, services=off).load(state))

        return [
            figure("save 10,000 parked branches", measure(parked.save, 1), 1, "ms", target=10),
            figure("load 10,000 parked branches", measure(load, 1), 1, "ms", target=50),
            Figure("snapshot bytes per parked branch", size, size, size, "B"),
        ]

    return asyncio.run(main())
