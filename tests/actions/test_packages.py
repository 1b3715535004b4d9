"""The packages that come with the runtime run in environments of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.execution.support import World

from flowdeck.actions import ActionRuntime
from flowdeck.actions.packages import Cmd, PythonSandbox, SqliteQuery
from flowdeck.execution.services import Services

pytestmark = pytest.mark.anyio


@pytest.fixture
def actions(world: World, tmp_path: Path) -> ActionRuntime:
    """Actions in real time, with all packages."""
    made = ActionRuntime(Services(center=world.center))
    packages = [PythonSandbox(timeout_seconds=1.5), Cmd(["echo"]), SqliteQuery(str(tmp_path / "shop.db"))]
    return made.use_actions(packages, tags="sandbox")


async def test_what_they_do(actions: ActionRuntime) -> None:
    """Code, commands and queries answer with data."""
    assert set(actions.get_action_info("sandbox")) == {"run_python", "run_command", "query_sqlite"}
    assert (await actions.async_call_action("run_python", {"code": "6 * x", "inputs": {"x": 7}}))["result"] == 42
    assert (await actions.async_call_action("run_command", {"command": "echo hi"}))["stdout"] == "hi\n"
    await actions.async_call_action("query_sqlite", {"sql": "CREATE TABLE t (a)"})
    await actions.async_call_action("query_sqlite", {"sql": "INSERT INTO t VALUES (?)", "parameters": [1]})
    assert (await actions.async_call_action("query_sqlite", {"sql": "SELECT * FROM t"}))["rows"] == [{"a": 1}]


async def test_what_goes_wrong_in_them(actions: ActionRuntime) -> None:
    """A failing, endless or forbidden thing is a record that says so."""
    cases = {
        "run_python": ({"code": "1 / 0"}, "ZeroDivisionError"),
        "run_command": ({"command": "rm -rf /"}, "is not allowed; allowed are"),
        "query_sqlite": ({"sql": "ATTACH 'x' AS y"}, "no ATTACH"),
    }
    for name, (kwargs, problem) in cases.items():
        record = await actions.async_execute_action(name, kwargs)
        assert record["status"] == "error" and problem in record["error"], record

    endless = await actions.async_execute_action("run_python", {"code": "while True: pass"})
    assert endless["status"] == "error" and "was killed" in endless["error"]
    assert endless["diagnostics"][0]["code"] == "execution_environment.timeout"
    assert actions.environments.list() == []


async def test_their_environments_are_seen(actions: ActionRuntime, world: World) -> None:
    """Each call's environment begins and ends below its action."""
    await actions.async_call_action("run_command", {"command": "echo hi"})
    types = [each for each in world.types() if each.startswith(("action.", "execution_environment."))]
    family = "execution_environment."
    assert types == [
        "action.started", family + "ensuring", family + "ready", family + "releasing", family + "released",
        "action.completed",
    ]  # fmt: skip
