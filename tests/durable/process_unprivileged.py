"""Without root's rights: uses a store that this user may not write to, and one whose disk is full.

Arguments: a store folder. Prints one JSON object with what happened.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

from flowdeck.durable import ControlClient, open_control
from flowdeck.layout import Layout, StoreError

NOBODY = 65534


class Execution:
    def __init__(self, execution_id: str) -> None:
        self.id = execution_id

    def deliver(self, row: object) -> None: ...


def read_only(store: Path) -> dict[str, object]:
    seen: dict[str, object] = {}
    try:
        open_control(store, "w2")
    except StoreError as error:
        seen["open"] = [type(error).__name__, str(error)]

    with ControlClient(store) as client:
        seen["interrupts"] = [interrupt.id for interrupt in client.list_interrupts()]
        try:
            client.answer("i1", True, "ana")
        except StoreError as error:
            seen["answer"] = [type(error).__name__, str(error)]

    return seen


def full_disk(store: Path) -> dict[str, object]:
    problems: list[str] = []
    control = open_control(Layout.create(store).root, "w3", on_problem=lambda kind, message: problems.append(message))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for number in range(200):
        control.opened(Execution(f"e{number}"), {"flow_name": "f" * 100})

    flushed = control.flush(0.3)
    failing = control.statistics()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    recovered = control.flush(10.0)
    with ControlClient(store) as client:
        count = len(client.list_executions(limit=1000))

    control.close(1.0)
    return {
        "flushed": flushed,
        "state": failing["state"],
        "retries": failing["retries"],
        "problems": problems,
        "recovered": recovered,
        "executions": count,
    }


store = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)

print(json.dumps({"read_only": read_only(store / "locked"), "full_disk": full_disk(store / "own" / "store")}))
