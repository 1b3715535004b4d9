"""Runs one command so that nothing of it outlives its owner.

Between this process and the command stands a small guard (:mod:`flowdeck.environments._guard`) that watches a pipe.
Ending a command, for a timeout or a cancellation, is closing that pipe; the kernel closes it, too, when this process is
killed. Output over the limit is read on and thrown away, so that memory stays bounded and the command never blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flowdeck.errors import ExecutionEnvironmentError, ExecutionEnvironmentRefused, ExecutionEnvironmentTimeout

__all__ = [
    "MAX_OUTPUT_BYTES",
    "TIMEOUT_SECONDS",
    "CommandResult",
    "check_network",
    "clean_environment",
    "guarded",
    "run_command",
]

TIMEOUT_SECONDS: Final = 30.0
MAX_OUTPUT_BYTES: Final = 1024 * 1024
"""What is kept of each of stdout and stderr."""
_GUARD: Final = str(Path(__file__).with_name("_guard.py"))
_KILL_SECONDS: Final = 5.0
"""How long the guard may take to end a family before it is killed itself."""
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. ``ok`` is exit status 0."""

    ok: bool
    returncode: int
    stdout: str
    stderr: str
    stdout_bytes: int
    """Bytes it wrote in all; more than what ``stdout`` holds when that was cut."""
    stderr_bytes: int
    truncated: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables a command gets: path and locale of this process, no secrets, and ``more``."""
    return {**{name: os.environ[name] for name in _PASSED_ON if name in os.environ}, **(more or {})}


def guarded(pipe: str, command: Sequence[str], network: str = "inherit") -> list[str]:
    """Return ``command`` behind a guard that ends it when ``pipe`` (a descriptor, or a FIFO's path) does."""
    return [sys.executable, "-I", "-S", _GUARD, pipe, str(os.getpid()), network, *command]


async def check_network(policy: Mapping[str, Any], where: str) -> None:
    """Make sure that a policy's ``network_mode`` can be kept here.

    Raises:
        ExecutionEnvironmentRefused: it is ``disabled``, and this machine cannot take a command's network away.
    """
    if policy.get("network_mode", "inherit") != "disabled":
        return

    tried = await run_command([], cwd=os.curdir, network="disabled")
    if not tried.ok:
        raise ExecutionEnvironmentRefused(
            f"{where}: policy network_mode='disabled' cannot be enforced on this machine ({tried.stderr.strip()}); it "
            "takes Linux with user namespaces. Leave it out, or use a provider that runs containers",
            code="execution_environment.policy_not_enforced",
            payload={"keys": ["network_mode"]},
        )


async def run_command(
    command: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float | None = TIMEOUT_SECONDS,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    network: str = "inherit",
) -> CommandResult:
    """Run ``command`` (no shell) and return how it ended.

    Args:
        network: ``disabled`` lets it reach nothing at all, its own machine included (see :func:`check_network`).

    Raises:
        ExecutionEnvironmentTimeout: it took longer than ``timeout`` seconds; it and its children are dead.
        ExecutionEnvironmentError: it could not be started.
    """
    watched, held = os.pipe()
    try:
        guard = await asyncio.create_subprocess_exec(
            *guarded(str(watched), command, network),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=cwd, env=clean_environment() if env is None else dict(env), pass_fds=(watched,), start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as problem:
        os.close(held)
        name = command[0] if command else "a guard"
        raise ExecutionEnvironmentError(f"{name!r} could not be started: {problem}") from problem
    finally:
        os.close(watched)

    out, err = _Kept(max_output_bytes), _Kept(max_output_bytes)
    assert guard.stdin is not None and guard.stdout is not None and guard.stderr is not None
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(_feed(guard.stdin, stdin), out.read(guard.stdout), err.read(guard.stderr))
            code = await guard.wait()
    except TimeoutError as problem:
        raise ExecutionEnvironmentTimeout(
            f"{command[0]!r} took longer than {timeout} s and was killed",
            payload={"timeout_seconds": timeout, "stdout": out.text[-2_000:], "stderr": err.text[-2_000:]},
        ) from problem
    finally:
        os.close(held)
        if guard.returncode is None:
            await asyncio.shield(_ended(guard))

    truncated = out.total > max_output_bytes or err.total > max_output_bytes
    return CommandResult(code == 0, code, out.text, err.text, out.total, err.total, truncated)


async def _feed(stream: asyncio.StreamWriter, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it did not want all of it
        if content:
            stream.write(content)
            await stream.drain()

    stream.close()


async def _ended(guard: asyncio.subprocess.Process) -> None:
    """The pipe is closed: wait until the guard has killed the family."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILL_SECONDS):
            await guard.wait()
            return

    with contextlib.suppress(ProcessLookupError):
        guard.kill()

    with contextlib.suppress(TimeoutError):  # who left the family, where orphans cannot be found, may hold its output
        async with asyncio.timeout(1.0):
            await guard.wait()


class _Kept:
    """The beginning of a stream, and how long it was."""

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._kept = bytearray()

    async def read(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(65_536):
            self.total += len(chunk)
            room = self._limit - len(self._kept)
            if room > 0:
                self._kept += chunk[:room]

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")
