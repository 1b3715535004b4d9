"""DevTools in a real pseudo-terminal, in a process of its own, with its CPU time read from outside."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

_START = "import sys; from flowdeck_devtools.tui import run_devtools; sys.exit(run_devtools(sys.argv[1]))"


_TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "TEXTUAL_ANIMATIONS": "none"}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}


class Terminal:
    """One ``run_devtools`` in a pseudo-terminal whose output is always drained."""

    def __init__(self, store: Path, *, columns: int = 120, rows: int = 36, code: str = _START) -> None:
        self.output = bytearray()
        self.written = 0
        """Bytes it has written so far."""
        self._lock = threading.Lock()
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            # Not execv: readline puts LINES and COLUMNS into the C environment, where they would outweigh the terminal.
            os.execve(sys.executable, [sys.executable, "-c", code, str(store)], {**_environment(), **_TERMINAL})
        self.resize(columns, rows)
        self.exit_code: int | None = None
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def _drain(self) -> None:
        while True:
            try:
                ready, _, _ = select.select([self._master], [], [], 1.0)
                data = os.read(self._master, 65_536) if ready else b""
            except OSError:
                return
            if ready and not data:
                return
            with self._lock:
                self.output += data
                self.written += len(data)
                if len(self.output) > 4_000_000:
                    del self.output[:2_000_000]

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def forget(self) -> None:
        """Begin to look anew: what was written so far no longer counts."""
        with self._lock:
            self.output.clear()

    def saw(self, text: str) -> bool:
        with self._lock:
            return text.encode() in self.output

    def wait_for(self, text: str, timeout: float = 10.0) -> None:
        """Until the text was written to the terminal."""
        wait_until(lambda: self.saw(text), timeout, f"{text!r} on the terminal")

    def cpu_seconds(self) -> float:
        """CPU time the process has used, Linux only."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        line = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmRSS" in line)
        return int(line.split()[1]) / 1024

    def wait_exit(self, timeout: float = 10.0) -> int:
        """The exit code once the process has ended."""

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
            return pid != 0

        wait_until(ended, timeout, "the process to end")
        assert self.exit_code is not None
        return self.exit_code

    def close(self) -> None:
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.exit_code = -9
        os.close(self._master)


def wait_until(holds: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll a condition; the failure names it."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(0.02)
