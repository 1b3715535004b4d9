"""What every peer's script shares. Standard library only: it runs in each peer's environment.

A script defines ``async def w1(t)`` and so on, and calls :func:`main`. ``python peer_x.py W1`` runs one workload and
prints one JSON line: ``{"figures": {name: {"unit": ..., "values": [...]}}, "versions": {...}, "load": ...}``.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

REPS = 3
"""Measured batches of one process; the runner starts several processes."""


class Timing:
    """Collects the figures of one workload."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, Any]] = {}

    async def cpu(
        self, name: str, fn: Callable[[], Awaitable[Any]], inner: int, per: float = 1, unit: str = "us"
    ) -> None:
        """Measure process CPU time of ``await fn()``, ``inner`` calls a batch, divided by ``per``."""
        scale = {"us": 1e6, "s": 1.0}[unit] / per / inner
        await fn()
        values = []
        for _ in range(REPS):
            gc.collect()
            begun = time.process_time()
            for _ in range(inner):
                await fn()

            values.append((time.process_time() - begun) * scale)

        self.put(name, unit, *values)

    def put(self, name: str, unit: str, *values: float) -> None:
        """Keep values measured otherwise."""
        self.figures[name] = {"unit": unit, "values": list(values)}


class Growth:
    """Growth of the resident size since its creation, and its peak."""

    def __init__(self) -> None:
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass

        self.before = _kb("VmRSS")

    def bytes(self) -> float:
        gc.collect()
        return (_kb("VmRSS") - self.before) * 1024

    def peak_mb(self) -> float:
        return (_kb("VmHWM") - self.before) / 1024


def _kb(field: str) -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return float(line.split()[1])
    except OSError:
        pass

    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def main(workloads: dict[str, Callable[[Timing], Awaitable[None]]], *packages: str) -> None:
    """Run the workload named on the command line; without a name, list them."""
    if len(sys.argv) < 2:
        print(json.dumps(sorted(workloads)))
        return

    timing = Timing()
    load = os.getloadavg()[0]
    asyncio.run(_run(workloads[sys.argv[1]], timing))
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"figures": timing.figures, "versions": versions, "load": round(load, 2)}), flush=True)
    os._exit(0)  # some peers leave threads


async def _run(workload: Callable[[Timing], Awaitable[None]], timing: Timing) -> None:
    await workload(timing)
