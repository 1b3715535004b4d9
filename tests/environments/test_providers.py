"""The environments there are by themselves: python, shell and sqlite."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from flowdeck.environments import (
    ExecutionEnvironmentManager,
    ExecutionEnvironmentRefused,
    ExecutionEnvironmentTimeout,
    process,
)

pytestmark = pytest.mark.anyio


async def resource(manager: ExecutionEnvironmentManager, kind: str, config: Any = None, **policy: Any) -> Any:
    handle = await manager.async_ensure({"kind": kind, "config": config or {}, "policy": policy})
    return handle["resource"]


async def test_python_runs_code(manager: ExecutionEnvironmentManager) -> None:
    """The last expression is the result; prints, names and failures come back."""
    python = await resource(manager, "python")
    answer = await python.run("print('hi')\nx * 2", {"x": 21})
    assert (answer["ok"], answer["result"], answer["stdout"]) == (True, 42, "hi\n")
    answer = await python.run("1 / 0")
    assert (answer["ok"], answer["error"]) == (False, "ZeroDivisionError: division by zero")
    assert "line 1" in answer["traceback"]
    assert (await python.run("result = {object}; result"))["result"].startswith("{<class")
    assert not (await python.run("this is no python"))["ok"]


async def test_python_that_goes_wrong(manager: ExecutionEnvironmentManager) -> None:
    """Killed, silent, too long and too large are answers or named errors, never a hang."""
    python = await resource(manager, "python", timeout_seconds=1.5, max_output_bytes=1000, max_memory_bytes=1 << 30)
    assert (await python.run("import os; os._exit(7)"))["error"] == "no result: it ended with status 7"
    assert len((await python.run("print('x' * 100_000)"))["stdout"]) == 1000
    assert "too large" in (await python.run("'x' * 1_000_000"))["error"]
    assert "MemoryError" in (await python.run("x = b'0' * (1 << 31)"))["error"]
    with pytest.raises(ExecutionEnvironmentTimeout):
        await python.run("while True: pass")


async def test_python_has_a_directory_of_its_own(manager: ExecutionEnvironmentManager) -> None:
    """Files stay between runs of one environment and go with it."""
    handle = await manager.async_ensure({"kind": "python"})
    python = handle["resource"]
    await python.run("open('note', 'w').write('x')")
    assert (await python.run("open('note').read()"))["result"] == "x"
    await manager.async_release(handle)
    assert not python.cwd.exists()


async def test_the_shell_runs_what_is_allowed(manager: ExecutionEnvironmentManager) -> None:
    """A command on the list runs, with nothing expanded."""
    shell = await resource(manager, "shell", allowed_cmd_prefixes=["echo", "cat"])
    assert (await shell.run("echo 'a; b' $HOME *")).stdout == "a; b $HOME *\n"
    assert (await shell.run(["cat"], stdin="in")).stdout == "in"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("rm -rf /", "allowed are those that begin with: 'ls -l', 'echo'"),
        ("ls -la", "is not allowed"),
        ("/tmp/echo hi", "is not allowed"),
        ("echo a; rm x", "uses ';'"),
        ("echo a && rm x", "uses '&&'"),
        ("echo a | sh", r"uses '\|'"),
        ("echo a > b", "uses '>'"),
        ("echo $(id)", r"uses '\('"),
        ("echo a\nrm b", "uses 'a line break'"),
        ("'", "cannot be split"),
        ("", "is empty"),
        (["echo", "a\0b"], "NUL"),
    ],
)
async def test_the_shell_refuses_the_rest(manager: ExecutionEnvironmentManager, command: Any, problem: str) -> None:
    """What is not on the list, and every way to smuggle a second command in, is refused by name."""
    shell = await resource(manager, "shell", allowed_cmd_prefixes=["ls -l", "echo"])
    with pytest.raises(ExecutionEnvironmentRefused, match=problem):
        await shell.run(command)


async def test_nothing_is_allowed_by_default(manager: ExecutionEnvironmentManager) -> None:
    """Without an allow-list the shell runs nothing."""
    with pytest.raises(ExecutionEnvironmentRefused, match="begin with: none"):
        await (await resource(manager, "shell")).run("ls")


async def test_the_shell_stays_in_its_roots(manager: ExecutionEnvironmentManager, tmp_path: Path) -> None:
    """A working directory outside is refused, also through a link."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out").symlink_to(tmp_path)
    shell = await resource(manager, "shell", allowed_cmd_prefixes=["pwd"], workspace_roots=[str(inside)])
    assert (await shell.run("pwd")).stdout.strip() == str(inside.resolve())
    for cwd in ("..", "out", "/"):
        with pytest.raises(ExecutionEnvironmentRefused, match="is not allowed; allowed are"):
            await shell.run("pwd", cwd=cwd)

    with pytest.raises(ExecutionEnvironmentRefused):
        await resource(manager, "shell", {"cwd": str(tmp_path)}, workspace_roots=[str(inside)])

    with pytest.raises(FileNotFoundError, match="is no directory"):
        await resource(manager, "shell", {"cwd": str(inside / "nowhere")})


async def test_sqlite_answers_queries(manager: ExecutionEnvironmentManager, tmp_path: Path) -> None:
    """Rows are dicts, bounded in number; what is written is there."""
    path = tmp_path / "shop.db"
    database = await resource(manager, "sqlite", {"path": str(path)}, max_rows=2)
    await database.query("CREATE TABLE orders (id INTEGER, name TEXT)")
    for at in range(3):
        changed = await database.query("INSERT INTO orders VALUES (?, ?)", [at, f"o-{at}"])
        assert changed["row_count"] == 1

    found = await database.query("SELECT * FROM orders WHERE id >= :least", {"least": 0})
    assert found["rows"] == [{"id": 0, "name": "o-0"}, {"id": 1, "name": "o-1"}] and found["truncated"]
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM orders").fetchone() == (3,)


async def test_sqlite_refuses_and_interrupts(manager: ExecutionEnvironmentManager, tmp_path: Path) -> None:
    """No ATTACH, no settings, no writes when read-only, no path outside, no endless query."""
    sqlite3.connect(tmp_path / "shop.db").execute("CREATE TABLE t (a)").connection.close()
    policy = {"read_only": True, "workspace_roots": [str(tmp_path)], "timeout_seconds": 0.3}
    database = await resource(manager, "sqlite", {"path": str(tmp_path / "shop.db")}, **policy)
    for sql in ("ATTACH '/tmp/x' AS y", "PRAGMA journal_mode = WAL", "SELECT load_extension('x')", "DELETE FROM t"):
        with pytest.raises(ExecutionEnvironmentRefused, match="no ATTACH, no extensions"):
            await database.query(sql)

    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    with pytest.raises(ExecutionEnvironmentTimeout, match="was interrupted"):
        await database.query(endless)

    assert (await database.query("SELECT 1 AS one"))["rows"] == [{"one": 1}]
    with pytest.raises(sqlite3.OperationalError, match="syntax error"):
        await database.query("SELEC")

    with pytest.raises(ExecutionEnvironmentRefused, match="database '/etc/passwd'"):
        await resource(manager, "sqlite", {"path": "/etc/passwd"}, **policy)


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        ("allow_create", ["INSERT INTO t VALUES (2)", "CREATE TABLE u (a)", "CREATE INDEX i ON t (a)"]),
        ("allow_update", ["UPDATE t SET a = 2", "ALTER TABLE t RENAME TO u"]),
        ("allow_delete", ["DELETE FROM t", "DROP TABLE t"]),
    ],
)
async def test_sqlite_allows_what_its_policy_allows(
    manager: ExecutionEnvironmentManager, tmp_path: Path, key: str, refused: list[str]
) -> None:
    """Each of allow_create, allow_update and allow_delete stops its own statements only; VACUUM leads nowhere."""
    free = await resource(manager, "sqlite", {"path": str(tmp_path / "shop.db")})
    await free.query("CREATE TABLE t (a)")
    await free.query("INSERT INTO t VALUES (1)")
    database = await resource(manager, "sqlite", {"path": str(tmp_path / "shop.db")}, **{key: False})
    for sql in refused:
        with pytest.raises(ExecutionEnvironmentRefused, match=f"its policy says {key} is False"):
            await database.query(sql)

    with pytest.raises(ExecutionEnvironmentRefused):
        await database.query(f"VACUUM INTO '{tmp_path / 'copy.db'}'")

    every = ["CREATE TABLE v (a)", "INSERT INTO t VALUES (3)", "UPDATE t SET a = 3", "DELETE FROM t", "DROP TABLE t"]
    for sql in every:
        if not any(sql.split()[:2] == each.split()[:2] for each in refused):
            await database.query(sql)


async def test_a_cancelled_query_stops_nobody_elses(manager: ExecutionEnvironmentManager) -> None:
    """A query given up while it waits for its turn leaves the running one alone; a large result is cut."""
    database = await resource(manager, "sqlite", max_output_bytes=1000)
    count = (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 400000) SELECT count(*) AS c FROM r"
    )
    running = asyncio.create_task(database.query(count))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(database.query("SELECT 1"))
    await asyncio.sleep(0.001)
    waiting.cancel()
    assert (await running)["rows"] == [{"c": 400000}]
    large = await database.query(
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT 'x' || n FROM r"
    )
    assert large["truncated"] and large["row_count"] < 400


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can take a command's network away")
async def test_network_mode_disabled(manager: ExecutionEnvironmentManager) -> None:
    """Code and commands reach nothing, this machine included; where that cannot be had the environment is refused."""
    connect = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 2).close()
    result = "reached"
except OSError as problem:
    result = str(problem)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = connect.format(port=server.getsockname()[1])
        assert (await (await resource(manager, "python")).run(code))["result"] == "reached"
        try:
            python = await resource(manager, "python", network_mode="disabled")
        except ExecutionEnvironmentRefused as problem:
            assert "cannot be enforced on this machine" in str(problem)
            return

        assert "unreachable" in (await python.run(code))["result"]
        shell = await resource(manager, "shell", network_mode="disabled", allowed_cmd_prefixes=[sys.executable])
        ended = await shell.run([sys.executable, "-c", code + "print(result)"])
        assert "unreachable" in ended.stdout


def test_a_machine_that_cannot_take_the_network_away(
    manager: ExecutionEnvironmentManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment does not start, and says what is missing."""
    guard = tmp_path / "guard.py"
    source = Path(process._GUARD).read_text(encoding="utf-8")
    guard.write_text(source.replace('sys.platform == "linux"', "False"), encoding="utf-8")
    monkeypatch.setattr(process, "_GUARD", str(guard))
    with pytest.raises(ExecutionEnvironmentRefused, match=r"cannot be enforced on this machine \(cannot take the net"):
        manager.ensure({"kind": "python", "policy": {"network_mode": "disabled"}})
