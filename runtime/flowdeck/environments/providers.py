"""The kinds of environments there are without anybody registering one."""

from __future__ import annotations

from flowdeck.environments.provider import ExecutionEnvironmentProvider
from flowdeck.environments.python import PythonProvider
from flowdeck.environments.shell import ShellProvider
from flowdeck.environments.sqlite import SqliteProvider

__all__ = ["built_in"]


def built_in() -> dict[str, ExecutionEnvironmentProvider]:
    """Return ``python``, ``shell`` (also called ``bash``) and ``sqlite``."""
    return {
        "python": PythonProvider(),
        "shell": ShellProvider(),
        "bash": ShellProvider("bash"),
        "sqlite": SqliteProvider(),
    }
