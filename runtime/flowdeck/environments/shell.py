"""The ``shell`` environment: single commands from an allow-list, without a shell that could be talked into more.

``config``: ``cwd`` (by default a private directory), ``env``. ``policy``: ``allowed_cmd_prefixes`` (``["git status",
"ls"]``; nothing else runs), ``workspace_roots`` and the other path rules for ``cwd``, ``network_mode``,
``timeout_seconds``, ``max_output_bytes``. What it cannot enforce (``read_only``, say) it refuses.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowdeck.environments.paths import allowed_path
from flowdeck.environments.process import (
    MAX_OUTPUT_BYTES,
    TIMEOUT_SECONDS,
    CommandResult,
    check_network,
    clean_environment,
    run_command,
)
from flowdeck.environments.requirement import Handle, Requirement
from flowdeck.errors import ExecutionEnvironmentRefused

__all__ = ["COMMAND_POLICY", "Shell", "ShellProvider", "limits_of"]

COMMAND_POLICY: Final = frozenset(
    {"workspace_roots", "path_allowlist", "path_denylist", "network_mode", "timeout_seconds", "max_output_bytes"}
)
"""Policy keys that every environment of commands obeys; the path rules count for its working directory."""
_OPERATORS: Final = frozenset("();<>|&")


def limits_of(policy: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
    """Return the limits of one command; a call may ask for less time than the policy gives, never for more."""
    allowed = float(policy.get("timeout_seconds") or TIMEOUT_SECONDS)
    return {
        "timeout": allowed if timeout is None else min(allowed, timeout),
        "max_output_bytes": int(policy.get("max_output_bytes") or MAX_OUTPUT_BYTES),
        "network": policy.get("network_mode", "inherit"),
    }


class Shell:
    """The resource of a ``shell`` environment."""

    def __init__(self, cwd: Path, env: Mapping[str, str], policy: Mapping[str, Any]) -> None:
        self.cwd = cwd
        self._env = clean_environment(env)
        self._policy = policy
        self._allowed = [shlex.split(each) for each in policy.get("allowed_cmd_prefixes") or ()]

    async def run(
        self, command: str | Sequence[str], *, cwd: str | None = None, stdin: str = "", timeout: float | None = None
    ) -> CommandResult:
        """Run a command: words, or a text that is split into words as a shell would, without expanding anything.

        Raises:
            ExecutionEnvironmentRefused: it is not on the allow-list, uses shell operators, or ``cwd`` lies outside.
            ExecutionEnvironmentTimeout: it took too long and was killed with all its children.
        """
        words = _words(command)
        if not any(allowed and words[: len(allowed)] == allowed for allowed in self._allowed):
            there = ", ".join(repr(shlex.join(each)) for each in self._allowed) or "none"
            raise ExecutionEnvironmentRefused(
                f"command {shlex.join(words)[:200]!r} is not allowed; allowed are those that begin with: {there} "
                "(policy allowed_cmd_prefixes)",
                payload={"command": words},
            )

        where = (
            self.cwd
            if cwd is None
            else allowed_path(self.cwd / cwd, {"workspace_roots": [self.cwd], **self._paths}, "cwd")
        )
        return await run_command(
            words, cwd=where, env=self._env, stdin=stdin.encode(), **limits_of(self._policy, timeout)
        )

    @property
    def _paths(self) -> dict[str, Any]:
        """The policy's own path rules; without any, commands stay below the environment's directory."""
        names = ("workspace_roots", "path_allowlist", "path_denylist")
        return {name: self._policy[name] for name in names if self._policy.get(name)}


def _words(command: str | Sequence[str]) -> list[str]:
    if not isinstance(command, str):
        words = [str(each) for each in command]
    else:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            words = list(lexer)
        except ValueError as problem:
            raise ExecutionEnvironmentRefused(f"command {command[:200]!r} cannot be split: {problem}") from problem

        operator = next((word for word in words if word and _OPERATORS.issuperset(word)), None)
        if operator is not None or "\n" in command.strip():
            raise ExecutionEnvironmentRefused(
                f"command {command[:200]!r} uses {operator or 'a line break'!r}; it is one command at a time, without "
                "a shell: quote it, or give the command as a list of words"
            )

    if not words or any("\0" in word for word in words):
        raise ExecutionEnvironmentRefused("the command is empty" if not words else "the command has a NUL in it")

    return words


class ShellProvider:
    """Makes :class:`Shell` resources."""

    policy_keys = frozenset({*COMMAND_POLICY, "allowed_cmd_prefixes"})

    def __init__(self, kind: str = "shell") -> None:
        self.kind = kind

    async def async_ensure(
        self, *, requirement: Requirement, policy: Mapping[str, Any], existing_handle: Handle | None = None
    ) -> Mapping[str, Any]:
        await check_network(policy, f"execution environment {requirement['requirement_id']!r}")
        cwd, owned = working_directory(requirement, policy)
        shell = Shell(cwd, requirement["config"].get("env") or {}, policy)
        return {"resource": shell, "meta": {"cwd": str(cwd), "owned": owned}}

    async def async_health_check(self, handle: Handle) -> str:
        return "ready" if handle["resource"].cwd.is_dir() else "gone"

    async def async_release(self, handle: Handle) -> None:
        await remove_directory(handle)


def working_directory(requirement: Requirement, policy: Mapping[str, Any]) -> tuple[Path, bool]:
    """Return the directory an environment works in, and whether it was made for it and goes with it."""
    given = requirement["config"].get("cwd") or next(iter(policy.get("workspace_roots") or ()), None)
    if given is None:
        return Path(tempfile.mkdtemp(prefix=f"flowdeck-{requirement['kind']}-")).resolve(), True

    cwd = allowed_path(given, policy, "cwd")
    if not cwd.is_dir():
        raise FileNotFoundError(f"execution environment {requirement['requirement_id']!r}: cwd {cwd} is no directory")

    return cwd, False


async def remove_directory(handle: Handle) -> None:
    """Remove the directory that was made for an environment."""
    if not handle["meta"].get("owned"):
        return

    try:
        await asyncio.to_thread(shutil.rmtree, handle["meta"]["cwd"], ignore_errors=True)
    except RuntimeError:  # at the interpreter's exit there are no threads to be had
        shutil.rmtree(handle["meta"]["cwd"], ignore_errors=True)
