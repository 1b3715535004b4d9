"""Packages of actions that come with the runtime: code, commands and queries, each in its execution environment.

actions.use_actions([PythonSandbox(), Cmd(["git status"]), SqliteQuery("shop.db", read_only=True)])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from flowdeck.actions.context import ActionContext
from flowdeck.environments.process import CommandResult

__all__ = ["Cmd", "PythonSandbox", "SqliteQuery"]


class _InEnvironment:
    """Calls one method of an environment's resource."""

    sandboxed = True

    def __init__(self, key: str, method: str) -> None:
        self.executor_type = key
        self._method = method

    async def execute(self, context: ActionContext, kwargs: dict[str, Any]) -> Any:
        result = await getattr(context.environments[self.executor_type], self._method)(**kwargs)
        return result.to_dict() if isinstance(result, CommandResult) else result


class _Package:
    """One action in one environment."""

    action_id: ClassVar[str]
    desc: ClassVar[str]
    kind: ClassVar[str]
    method: ClassVar[str]
    kwargs: ClassVar[dict[str, Any]]
    side_effect_level = "exec"

    def __init__(self, *, scope: str = "action_call", config: Mapping[str, Any] | None = None, **policy: Any) -> None:
        self._requirement = {"kind": self.kind, "scope": scope, "config": dict(config or {}), "policy": policy}

    def register_actions(self, action: Any, tags: str | Iterable[str] | None = None) -> None:
        """Register the action, under ``tags``."""
        action.register_action(
            action_id=self.action_id,
            desc=self.desc,
            kwargs=self.kwargs,
            executor=_InEnvironment(self.kind, self.method),
            tags=tags,
            side_effect_level=self.side_effect_level,
            sandbox_required=True,
            replay_safe=self.side_effect_level == "read",
            execution_environments=[self._requirement],
        )


class PythonSandbox(_Package):
    """``run_python``: code in an interpreter of its own. Keywords are the environment's policy."""

    action_id = "run_python"
    desc = "Run Python code and return its prints and the value of the last expression."
    kind = "python"
    method = "run"
    kwargs: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "Python source; the last expression is the result."},
            "inputs": {"type": "object", "description": "Names the code finds."},
        },
        "required": ["code"],
        "additionalProperties": False,
    }


class Cmd(_Package):
    """``run_command``: one command from ``allowed_cmd_prefixes``, without a shell."""

    action_id = "run_command"
    desc = "Run one allowed command and return its output."
    kind = "shell"
    method = "run"
    kwargs: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "command": {"description": "The command as one text, or as a list of words."},
            "stdin": {"type": "string"},
        },
        "required": ["command"],
        "additionalProperties": False,
    }

    def __init__(self, allowed_cmd_prefixes: Iterable[str] = (), **policy: Any) -> None:
        super().__init__(allowed_cmd_prefixes=list(allowed_cmd_prefixes), **policy)


class SqliteQuery(_Package):
    """``query_sqlite``: statements on one database; only reading ones with ``read_only=True``."""

    action_id = "query_sqlite"
    desc = "Run one SQL statement on the SQLite database."
    kind = "sqlite"
    method = "query"
    kwargs: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "sql": {"type": "string"},
            "parameters": {"description": "A list, or an object for :named parameters."},
        },
        "required": ["sql"],
        "additionalProperties": False,
    }

    def __init__(self, path: str = ":memory:", *, read_only: bool = False, **policy: Any) -> None:
        super().__init__(config={"path": path}, read_only=read_only, **policy)
        self.side_effect_level = "read" if read_only else "write"
