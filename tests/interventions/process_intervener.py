"""Two runs with open interventions, one committed to a store and one saved to a file; then SIGKILL, in mid-air."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from flowdeck import Runtime
from flowdeck.errors import InterventionTargetWarning
from flowdeck.triggerflow import TriggerFlow, TriggerFlowExecution, TriggerFlowRuntimeData

flow = TriggerFlow(name="steered")


async def ask(data: TriggerFlowRuntimeData) -> Any:
    return await data.async_pause_for(resume_to="next")


async def look(data: TriggerFlowRuntimeData) -> None:
    for item in data.interventions:
        await data.async_mark_intervention_consumed(item["id"], note="seen")

    await data.async_set_state("seen", [item["payload"] for item in data.interventions])


flow.to(ask).intervention_point(name="p", target="t").to(look)


async def steer(execution: TriggerFlowExecution) -> list[str]:
    """One of each fate; the last one comes when the run waits already. Returns their ids."""
    items = [await execution.async_intervene("early", target="t")]
    items.append(await execution.async_intervene("wrong", target="t"))
    await execution.async_reject_intervention(items[-1]["id"], reason="no", author="ann")
    items.append(await execution.async_intervene("lost", target="nowhere"))
    await execution.async_start()
    items.append(await execution.async_intervene({"late": (1, 2)}, target="t", author="bob"))
    await execution.async_mark_intervention_consumed(items[0]["id"], consumer="auditor")
    return [item["id"] for item in items]


async def main(folder: Path) -> None:
    warnings.simplefilter("ignore", InterventionTargetWarning)
    plain = flow.create_execution(auto_close=False)
    saved = await steer(plain)
    plain.save(folder / "saved.json")
    host = Runtime()
    host.use_store(folder / "store")
    with host.use():
        stored = flow.create_execution(auto_close=False)

    print(json.dumps({"stored": await steer(stored), "saved": saved}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
