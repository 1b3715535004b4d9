"""Owns one execution with N open interrupts and prints what it is handed: ``interrupt id, value, nanoseconds``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from flowdeck.durable import StateControl, open_control
from flowdeck.execution.control import InboxRow
from flowdeck.layout import Layout, WriterLock


class Owner:
    id = "e1"

    def __init__(self, control: StateControl) -> None:
        self._control = control

    def deliver(self, row: InboxRow) -> None:
        now = time.time_ns()
        self._control.ack(row.id, "applied", None)
        self._control.interrupt_closed(self.id, row.target or "", "resumed", row.payload, row.actor)
        print(json.dumps([row.target, row.payload, now]), flush=True)


def main(store: Path, count: int) -> None:
    lock = WriterLock(Layout.create(store))
    control = open_control(store, lock.writer)
    owner = Owner(control)
    control.opened(owner, {"flow_name": "owned"})
    for number in range(count):
        control.interrupt_opened(owner.id, {"id": f"e1-i{number}", "type": "approval", "payload": number})
    control.status(owner.id, "waiting")
    assert control.flush(10.0)
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu = time.process_time()
        print(json.dumps([cpu, time.monotonic()]), flush=True)


main(Path(sys.argv[1]), int(sys.argv[2]))
