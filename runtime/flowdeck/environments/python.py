"""The ``python`` environment: code runs in a fresh interpreter of its own, in its own directory, under limits.

``config``: ``cwd``, ``env``, ``executable``. ``policy``: ``timeout_seconds``, ``max_output_bytes``,
``max_memory_bytes``, ``network_mode``, ``workspace_roots`` and the other path rules for ``cwd``; what it cannot enforce
(``read_only``, say) it refuses. It keeps a mistake away from this process; it is no jail against code that means harm:
that needs a container.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flowdeck.environments.process import check_network, clean_environment, run_command
from flowdeck.environments.requirement import Handle, Requirement
from flowdeck.environments.shell import COMMAND_POLICY, limits_of, remove_directory, working_directory

__all__ = ["Python", "PythonProvider"]

_RUNNER: Final = """
import ast, json, os, sys, traceback
limit = int(sys.argv[1])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sent = json.load(sys.stdin)
sys.stdin = open(os.devnull)
names = {"__name__": "__main__", **sent["inputs"]}
answer = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
sys.stdout = sys.stderr = None
import io
out, err = io.StringIO(), io.StringIO()
sys.stdout, sys.stderr = out, err
said = {"ok": True, "result": None, "error": ""}
try:
    tree = ast.parse(sent["code"], "<action>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<action>", "exec"), names)
    if last is not None:
        names["result"] = eval(compile(ast.Expression(last.value), "<action>", "eval"), names)
    result = names.get("result")
    try:
        json.dumps(result)
    except (TypeError, ValueError):
        result = repr(result)
    said["result"] = result
except BaseException as problem:
    said.update(ok=isinstance(problem, SystemExit) and not problem.code,
                error=f"{type(problem).__name__}: {problem}", traceback=traceback.format_exc(limit=-8))
cap = sent["limit"]
said.update(stdout=out.getvalue()[:cap], stderr=err.getvalue()[:cap])
answer.write(json.dumps(said))
answer.flush()
"""


class Python:
    """The resource of a ``python`` environment."""

    def __init__(self, executable: str, cwd: Path, env: Mapping[str, str], policy: Mapping[str, Any]) -> None:
        self.executable = executable
        self.cwd = cwd
        self._env = clean_environment({"HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", **env})
        self._policy = policy

    async def run(
        self, code: str, inputs: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Run ``code`` with the names of ``inputs`` (JSON) and return ``{ok, result, stdout, stderr, error}``.

        ``result`` is the variable of that name, or the last expression.

        Raises:
            ExecutionEnvironmentTimeout: it took too long and was killed with all its children.
            TypeError: ``inputs`` is no JSON.
        """
        limits = limits_of(self._policy, timeout)
        cap = limits["max_output_bytes"]
        sent = json.dumps({"code": code, "inputs": dict(inputs or {}), "limit": cap})
        memory = int(self._policy.get("max_memory_bytes") or 0)
        ended = await run_command(
            [self.executable, "-I", "-c", _RUNNER, str(memory)],
            cwd=self.cwd,
            env=self._env,
            stdin=sent.encode(),
            timeout=limits["timeout"],
            network=limits["network"],
            max_output_bytes=4 * cap + 65_536,  # the answer quotes both outputs
        )
        try:
            answer: dict[str, Any] = json.loads(ended.stdout)
        except ValueError:  # killed, out of memory, or an answer over the limit
            how = "its answer is too large" if ended.truncated else f"it ended with status {ended.returncode}"
            answer = {
                "ok": False,
                "result": None,
                "stdout": "",
                "stderr": ended.stderr[-cap:],
                "error": f"no result: {how}",
            }
        else:
            answer["stderr"] = (answer["stderr"] + ended.stderr)[:cap]

        return answer


class PythonProvider:
    """Makes :class:`Python` resources."""

    kind = "python"
    policy_keys = frozenset({*COMMAND_POLICY, "max_memory_bytes"})

    async def async_ensure(
        self, *, requirement: Requirement, policy: Mapping[str, Any], existing_handle: Handle | None = None
    ) -> Mapping[str, Any]:
        config = requirement["config"]
        await check_network(policy, f"execution environment {requirement['requirement_id']!r}")
        cwd, owned = working_directory(requirement, policy)
        python = Python(config.get("executable") or sys.executable, cwd, config.get("env") or {}, policy)
        return {"resource": python, "meta": {"cwd": str(cwd), "owned": owned}}

    async def async_health_check(self, handle: Handle) -> str:
        return "ready" if handle["resource"].cwd.is_dir() else "gone"

    async def async_release(self, handle: Handle) -> None:
        await remove_directory(handle)
