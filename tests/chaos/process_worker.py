"""A worker to be killed: takes up and starts what is in the store, and ends when nothing is left."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from chaos_flow import flow

from flowdeck.durable.worker import Worker
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services


def main(store: str, durability: str, lease: str) -> None:
    worker = Worker(
        store, [flow], Services(center=EventCenter()), durability=durability, lease=float(lease), concurrency=32
    )
    print("ready", flush=True)
    report = asyncio.run(worker.run(once=True))
    print(f"done {report.refused}", flush=True)


main(*sys.argv[1:])
