"""A process that serves the chaos flow on DBOS, to be killed; it ends when nothing is left."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

from chaos_flow import flow

from flowdeck.durable.on_dbos.worker import DbosWorker
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services


def main(store: str, durability: str, lease: str) -> None:
    worker = DbosWorker(
        store, [flow], Services(center=EventCenter()), durability=durability, lease=float(lease), concurrency=32
    )
    print("ready", flush=True)
    report = asyncio.run(worker.run(once=True))
    print(f"done {report.refused}", flush=True)


main(*sys.argv[1:])
