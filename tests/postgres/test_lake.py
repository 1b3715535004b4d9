"""Three machines hand their events over to one DuckLake: every event is there once, under the names a store has.

Needs a DuckDB with the extensions: this Python's, or the one ``FLOWDECK_TEST_OTHER_DUCKDB`` names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.postgres.server import Server

from flowdeck_sinks.store import connect

PROCESS = Path(__file__).parent / "process_lake.py"
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "runtime"), str(ROOT / "sinks")])}
ROUNDS, EVENTS = 4, 600

LOAD = """
from flowdeck_sinks.lake import _load
from flowdeck_sinks.store._duckdb import require_duckdb
_load(require_duckdb().connect(), require_duckdb())
"""
ASK = """
import json, sys
from flowdeck_sinks.lake import connect
print(json.dumps([connect(*sys.argv[1:3]).execute(q).fetchall() for q in sys.argv[3:]], default=str))
"""


def _run(python: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)


@cache
def _python() -> tuple[str, str]:
    """Return a Python whose DuckDB has the extensions, or why there is none."""
    said = ""
    for python in (sys.executable, os.environ.get("FLOWDECK_TEST_OTHER_DUCKDB")):
        if python:
            done = _run(python, LOAD)
            if done.returncode == 0:
                return python, ""

            said = said or done.stderr.strip().splitlines()[-1]

    return "", said


@pytest.fixture
def lake(server: Server, tmp_path: Path) -> tuple[str, str]:
    """A catalogue and a directory of its own."""
    if not _python()[0]:
        pytest.skip(_python()[1])

    name = f"lake_{os.getpid()}_{tmp_path.name[-20:]}"
    with server.admin() as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())

    return f"dbname={name} host={server.root} user=postgres", str(tmp_path / "data")


def host(store: Path, lake: tuple[str, str], rounds: int = ROUNDS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [_python()[0], str(PROCESS), str(store), *lake, str(rounds), str(EVENTS)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def ask(lake: tuple[str, str], *questions: str) -> list[Any]:
    done = _run(_python()[0], ASK, *lake, *questions)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_three_machines_are_counted_exactly(lake: tuple[str, str], tmp_path: Path) -> None:
    """Written, published, merged and handed over in turn by three processes at once: nothing lost, nothing twice."""
    hosts = [host(tmp_path / f"store{name}", lake) for name in "abc"]
    for each in hosts:
        out, _ = each.communicate(timeout=120)
        assert each.returncode == 0
        _, _, mixed, _, again = out.splitlines()[-1].split()
        assert int(mixed) > 0, "no file held old and new events"
        assert again == "0", "handing over again brought something"

    counts, views = ask(
        lake,
        "SELECT left(event_id, 1) AS host, count(*), count(DISTINCT event_id), "
        "sum((payload->>'n')::INT)::INT FROM events WHERE event_type = 'test.plain' GROUP BY host ORDER BY host",
        "SELECT count(*) FROM runs",
    )
    each_host = ROUNDS * EVENTS
    assert counts == [[name, each_host, each_host, sum(range(each_host + 1))] for name in "abc"]
    assert views == [[0]]


def test_a_machine_that_is_killed_goes_on_where_it_was(lake: tuple[str, str], tmp_path: Path) -> None:
    """Killed while it hands over, again and again: what is in the lake is there once, and the rest comes."""
    store = tmp_path / "storea"
    for nth in range(4):
        machine = host(store, lake, 50)
        assert machine.stdout is not None
        for _ in range(nth + 1):
            machine.stdout.readline()

        machine.send_signal(signal.SIGKILL)
        machine.communicate()

    machine = host(store, lake, 0)
    out, _ = machine.communicate(timeout=60)
    assert out.startswith("done")
    found, distinct = ask(lake, "SELECT count(*), count(DISTINCT (writer, wseq)) FROM events")[0][0]
    with connect(store) as connection:
        there = connection.execute("SELECT count(*) FROM events").fetchone()

    assert found == distinct == there[0] > 0


def test_a_duckdb_without_the_extensions_says_what_it_needs() -> None:
    """One error names the extension and the packages."""
    code = (
        "import sys; sys.modules['duckdb_extension_ducklake'] = sys.modules['duckdb_extension_postgres_scanner'] = None"
    )
    done = _run(sys.executable, f"{code}\nimport os; os.environ['HOME'] = '/nonexistent'\n{LOAD}")
    assert done.returncode == 1
    assert "has no extension postgres_scanner here: pip install 'flowdeck[lake]'" in done.stderr


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    """A catalogue that cannot be reached is an error without the secret in its address."""
    if not _python()[0]:
        pytest.skip(_python()[1])

    done = _run(_python()[0], ASK, "dbname=x host=/nonexistent password=hunter2", str(tmp_path), "SELECT 1")
    assert "LakeUnavailable: the lake's catalogue cannot be used" in done.stderr
    assert "hunter2" not in done.stderr.splitlines()[-1] and "DuckLake" in done.stderr
