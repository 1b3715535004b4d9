"""Parks executions without keeping their handles, prints their ids, and says what being idle costs."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

from flowdeck import Runtime
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

flow = TriggerFlow(name="asking")
flow.to(("ask", lambda data: data.pause_for(type="ok", payload=data.input))).to(
    ("keep", lambda data: data.set_state("out", data.input))
)


async def main(store: str, count: int) -> None:
    runtime = Runtime(services=Services(center=EventCenter()))
    runtime.use_store(store, durability="process")
    names = []
    for number in range(count + 200):
        execution = flow.create_execution(services=runtime.services, auto_close=False)
        await execution.async_start(number)
        names.append(execution.id)
        del execution

    gc.collect()
    print(json.dumps(names[:count]), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(1.0)
    print((time.process_time() - cpu) / (time.monotonic() - wall), flush=True)
    await asyncio.sleep(60)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
