"""kill -9 with open interventions: what a caller was told is there where the run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.interventions.process_intervener import flow

from flowdeck.durable import ControlClient
from flowdeck.durable.worker import Worker
from flowdeck.events.center import EventCenter
from flowdeck.execution.services import Services

pytestmark = pytest.mark.anyio
SCRIPT = Path(__file__).parent / "process_intervener.py"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The folder a killed process left, and the ids it was told."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    return folder, json.loads(done.stdout)


def fates(ledger: dict[str, dict[str, Any]]) -> list[tuple[str, Any, str, list[str]]]:
    return [(i["id"], i["payload"], i["status"], sorted(i["consumers"])) for i in ledger.values()]


async def test_a_worker_goes_on_with_everything_that_was_acknowledged(killed: Any) -> None:
    """The ids keep their meaning, rows that came while nobody ran it are next, and each is delivered once."""
    folder, told = killed
    early, wrong, lost, late = told["stored"]
    (execution_id,) = {name.rpartition("-v")[0] for name in told["stored"]}
    with ControlClient(folder / "store") as client:
        for _ in range(2):  # sent again, for the first acknowledgement did not come through
            client.put_inbox("intervene", execution_id, "t", {"payload": "meanwhile"}, "eve", "once")

        client.put_inbox("intervene", execution_id, late, {"action": "reject"}, "eve")
        client.put_inbox("intervene", execution_id, None, {"payload": "also lost"}, "eve")
        assert client.answer(f"{execution_id}-i1", "go", "eve").accepted
        worker = Worker(folder / "store", [flow], Services(center=EventCenter()), durability="process", lease=30.0)
        await worker.run(once=True)
        state = client.stored_state(execution_id)

    assert state is not None and state["runtime_data"]["seen"] == ["early", "meanwhile"]
    items = [(item[0], item[2], item[9]) for item in state["core"]["interventions"][3]]
    assert [(name, status) for name, _, status in items] == [
        (early, "inserted"),
        (wrong, "rejected"),
        (lost, "pending"),
        (late, "rejected"),
        (f"{execution_id}-v5", "inserted"),
        (f"{execution_id}-v6", "pending"),
    ]


async def test_a_saved_file_goes_on_in_another_process(killed: Any) -> None:
    """Mode, items, versions, rejections and consumers are as they were saved."""
    folder, told = killed
    early, wrong, lost, late = told["saved"]
    execution = flow.create_execution(auto_close=False).load(folder / "saved.json")
    assert [item["id"] for item in execution.get_pending_interventions()] == [early, lost, late]
    (interrupt,) = execution.get_pending_interrupts()
    await execution.async_continue_with(interrupt, "go")
    snapshot = await execution.async_close()
    assert snapshot["seen"] == ["early", {"late": (1, 2)}]
    assert fates(snapshot["$interventions"]) == [
        (early, "early", "inserted", ["auditor", "look"]),
        (wrong, "wrong", "rejected", []),
        (lost, "lost", "expired", []),
        (late, {"late": (1, 2)}, "inserted", ["look"]),
    ]
