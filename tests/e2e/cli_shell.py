"""Driving the `flowdeck` command as a user does: processes, pipes, pseudo-terminals, and waits for conditions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pexpect

from flowdeck.durable import ControlClient
from flowdeck.layout import StoreNotFound
from flowdeck_sinks.store import query as sql_query

__all__ = ["FLOWDECK", "Shell", "eventually", "install"]

T = TypeVar("T")

FLOWDECK = [sys.executable, "-m", "flowdeck_devtools.cli"]
MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy. "
MIT += "The above copyright notice and this permission notice shall be included in all copies."


def eventually(condition: Callable[[], T], what: str, timeout: float = 20.0) -> T:
    """Return the first truthy result of ``condition``; fail with ``what`` when there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result

        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def install(site: Path, name: str, metadata: str = "License-Expression: MIT\n", version: str = "1.0") -> None:
    """Put a distribution with a licence file into ``site``."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}")
    (info / "LICENSE").write_text(MIT)


@dataclass
class Running:
    """A command that was started and not waited for."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)

    def wait_for(self, text: str, timeout: float = 20.0) -> str:
        """Return the first output line that contains ``text``."""
        return eventually(
            lambda: next((line for line in self.output if text in line), ""), f"{text!r} in {self}", timeout
        )

    def end(self, number: int | None = None, timeout: float = 20.0) -> int:
        """Send a signal, if any, and return the exit code."""
        if number is not None:
            self.process.send_signal(number)

        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    @property
    def text(self) -> str:
        return "".join(self.output)

    def __str__(self) -> str:
        return f"output {self.text!r}"


class Shell:
    """A working directory, an environment and a store to run commands in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        drop = ("FLOWDECK_STORE", "FLOWDECK_SINKS", "NO_COLOR", "COLUMNS", "LINES")
        self.env = {name: value for name, value in os.environ.items() if name not in drop}
        self.env |= {"FLOWDECK_STORE": str(self.store), "PYTHONPATH": "", "TERM": "xterm-256color"}
        self.env["PYTHONFAULTHANDLER"] = "1"
        self._running: list[Running] = []
        self._terminals: list[pexpect.spawn[str]] = []

    def run(self, *args: str, timeout: float = 40.0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. No command may ever show a traceback."""
        given = options.pop("input", None)
        process = subprocess.Popen(
            [*FLOWDECK, *args],
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"cwd": self.folder, "env": self.env, **options},
        )
        try:
            out, err = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler then shows where it hangs
            out, err = process.communicate(timeout=10)
            raise AssertionError(f"{args} took longer than {timeout} s:\n{out}\n{err}") from None

        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def ok(self, *args: str, **options: Any) -> str:
        """Run a command that must succeed and return its stdout."""
        done = self.run(*args, **options)
        assert done.returncode == 0, (args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def fails(self, *args: str, code: int = 2, **options: Any) -> str:
        """Run a command that must fail with ``code`` and one line on stderr; return that line."""
        done = self.run(*args, **options)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        (line,) = done.stderr.splitlines()
        return line

    def json(self, *args: str) -> Any:
        """Run a command that writes JSON."""
        return json.loads(self.ok(*args))

    def start(self, *args: str, program: list[str] | None = None) -> Running:
        """Start a command in the background; stdout and stderr are read together."""
        process = subprocess.Popen(
            [*(program or FLOWDECK), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.env,
        )
        running = Running(process)
        self._running.append(running)
        return running

    def terminal(
        self, *args: str, columns: int = 100, lines: int = 30, program: list[str] | None = None
    ) -> pexpect.spawn[str]:
        """Start a command in a pseudo-terminal."""
        command = [*(program or FLOWDECK), *args]
        spawned = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(self.folder),
            env={**self.env, "COLUMNS": str(columns), "LINES": str(lines)},
            dimensions=(lines, columns),
            encoding="utf-8",
            codec_errors="replace",
            timeout=30,
        )
        self._terminals.append(spawned)
        return spawned

    def sql(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query, asked in this process; none while there is no store yet."""
        try:
            result = sql_query(self.store, query)
        except StoreNotFound:
            return []

        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]

    def statuses(self) -> list[str]:
        """The status of every run, newest first."""
        return [row["status"] for row in self.sql("select status from runs order by started_at desc")]

    def open_interrupts(self) -> list[dict[str, Any]]:
        """What waits for an answer now, asked in this process; nothing while there is no store yet."""
        try:
            with ControlClient(self.store) as client:
                return [msgspec.to_builtins(row) for row in client.list_interrupts()]
        except StoreNotFound:
            return []

    def close(self) -> None:
        """End everything that still runs."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()

        for spawned in self._terminals:
            spawned.close(force=True)
