"""The demo with a person: DevTools in this process, the audit in another, so neither can freeze the other."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._audit import Order, Outcome
from flowdeck_devtools.cli._errors import CliError, Stopped, one_line
from flowdeck_devtools.cli._hints import this_command
from flowdeck_devtools.cli._options import command_store
from flowdeck_devtools.cli.devtools import open_devtools

__all__ = ["with_people"]

_STARTS_WITHIN_S = 30.0
_STOPS_WITHIN_S = 10.0


def with_people(order: Order) -> Outcome:
    """Run the audit and show it in DevTools; return when it is done.

    Raises:
        CliError: the audit failed.
        Stopped: the person gave up; the run is recorded as cancelled.
    """
    import flowdeck_devtools.tui  # noqa: F401 - a missing extra is better told before the audit begins

    worker = _Worker(order)
    try:
        worker.wait_started()
        if worker.failed:
            return worker.outcome()

        while True:
            open_devtools(order.store, worker.execution_id)
            if worker.ended or not _wait_for_answers(worker, order):
                return worker.outcome()
    except KeyboardInterrupt:
        worker.stop()
        raise Stopped(f"stopped; the run is recorded as cancelled in {order.store}") from None
    finally:
        worker.stop()


def _wait_for_answers(worker: _Worker, order: Order) -> bool:
    """Wait in the plain terminal. True when DevTools is wanted again, False when the audit has ended."""
    store = command_store(order.store)
    _output.note(
        f"The audit goes on{worker.waiting_words()}. Answer in another terminal:\n"
        f"  {this_command()} interrupts list{store}\n"
        "Enter opens DevTools again, Ctrl-C stops the audit."
    )
    ready, _, _ = select.select([sys.stdin, worker.end_signal], [], [])
    if worker.ended or worker.end_signal in ready:
        worker.join()
        return False

    if not sys.stdin.readline():  # the terminal is gone
        raise KeyboardInterrupt

    return True


class _Worker:
    """The audit's process: its reports are read by a thread, and closing its stdin ends it."""

    def __init__(self, order: Order) -> None:
        self.ended = False
        self.execution_id: str | None = None
        self.end_signal, self._end_writer = os.pipe()
        self._started = threading.Event()
        self._last: dict[str, Any] = {}
        self._waiting = 0
        self._errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        fields = {"paths": order.paths, "out": order.out, "store": str(order.store)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flowdeck_devtools.cli._demo_worker", json.dumps(fields)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C in the terminal is ours to pass on
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                report = json.loads(line)
            except ValueError:
                continue

            if report["kind"] == "event":
                kind = report["event"]["event_type"]
                self.execution_id = report["event"]["execution_id"]
                self._waiting += (kind == "review_requested") - (kind == "review_decided")
            else:
                self._last = report

            self._started.set()

        self._process.wait()
        self.ended = True
        self._started.set()
        os.write(self._end_writer, b".")

    def wait_started(self) -> None:
        """Return once the run exists, so that DevTools has something to show."""
        if not self._started.wait(_STARTS_WITHIN_S):
            raise CliError(f"the audit did not start within {_STARTS_WITHIN_S:g} s; try --headless")

    @property
    def failed(self) -> bool:
        """Whether it ended without a result, so that there is nothing to look at."""
        return self.ended and self._last.get("kind") != "done"

    def waiting_words(self) -> str:
        """Say how many decisions it waits for."""
        plural = "" if self._waiting == 1 else "s"
        return f" and waits for {self._waiting} decision{plural}" if self._waiting else ""

    def join(self) -> None:
        """Wait until the process has ended and all it said is read."""
        self._reader.join()

    def outcome(self) -> Outcome:
        """Return what came of the audit.

        Raises:
            CliError: it failed, or its process died.
            Stopped: it was stopped from outside.
        """
        self.join()
        kind = self._last.get("kind")
        if kind == "done":
            return Outcome(self._last["summary"], self._last["execution_id"], self._last["remarks"])

        if kind == "failed":
            raise CliError(self._last["message"], self._last["code"])

        if kind == "stopped":
            raise Stopped("the audit was stopped; its run is recorded as cancelled")

        raise CliError(f"the audit's process ended unexpectedly ({self._process.returncode}){self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f": {one_line(lines[-1])}" if lines else ""

    def stop(self) -> None:
        """End the process: politely, then for certain. Harmless when it has ended."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            try:
                self._process.stdin.close()
                self._process.wait(_STOPS_WITHIN_S)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
