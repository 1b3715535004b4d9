"""What the tests here share: a recording execution, conditions instead of sleeps, second processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowdeck.durable import StateControl
from flowdeck.execution.control import InboxRow

HERE = Path(__file__).parent


class Recorder:
    """An execution that keeps what it is handed, and acks it when a control is given."""

    def __init__(self, execution_id: str, control: StateControl | None = None, outcome: str = "applied") -> None:
        self.id = execution_id
        self.rows: list[InboxRow] = []
        self._control = control
        self._outcome = outcome

    def deliver(self, row: InboxRow) -> None:
        self.rows.append(row)
        if self._control is not None:
            self._control.ack(row.id, self._outcome, None)


class Problems(list[tuple[str, str]]):
    """An ``on_problem`` callback that keeps what it is told."""

    def __call__(self, kind: str, message: str) -> None:
        self.append((kind, message))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self]


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Return the first true value of ``condition``; fail when there is none in time."""
    deadline = time.monotonic() + timeout
    tick = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {condition}"
        tick.wait(0.005)


def open_pause(control: StateControl, execution: Recorder, interrupt_id: str, **record: Any) -> None:
    """Register an execution with one open interrupt, committed."""
    control.opened(execution, {"flow_name": "audit"})
    control.status(execution.id, "running")
    control.interrupt_opened(execution.id, {"id": interrupt_id, "type": "approval", "payload": {"n": 1}, **record})
    control.status(execution.id, "waiting")
    assert control.flush(5.0)


@contextmanager
def process(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script of this folder in another process, with its stdin and stdout as pipes."""
    child = subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def release(child: subprocess.Popen[str]) -> None:
    """Close the child's stdin, on which it waits."""
    assert child.stdin is not None
    child.stdin.close()
    child.stdin = None


def line(child: subprocess.Popen[str]) -> str:
    """Return the child's next line."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def say(child: subprocess.Popen[str], text: str) -> None:
    """Send the child a line."""
    assert child.stdin is not None
    child.stdin.write(text + "\n")
    child.stdin.flush()
