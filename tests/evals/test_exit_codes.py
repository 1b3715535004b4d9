"""The exit code says what happened: every way a session can end, by hand of a user at the shell."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.evals.targets_for_tests import worldly

from flowdeck_evals.cli.app import run_command
from flowdeck_evals.single import record_live

TARGETS = "tests.evals.targets_for_tests"
ROOT = Path(__file__).parents[2]


def suite(target: str = "echo", *cases: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"suite": "shop", "target": f"{TARGETS}:{target}", "cases": list(cases), **more}


def case(name: str = "one", **more: Any) -> dict[str, Any]:
    return {"case": name, "input": 1, "expect": {"output": {"equals": 1}}, **more}


def control(**more: Any) -> dict[str, Any]:
    return case("control", expect={"output": {"equals": 2}}, control="must_fail", **more)


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "flowdeck_evals", *args]


def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FLOWDECK_STORE": str(tmp_path / "store"),
        "FLOWDECK_PUBLISH": "off",
        "EVALS_TEST_LOG": str(tmp_path / "log"),
    }


def evals(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args), cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )


def write(tmp_path: Path, body: Any, name: str = "shop.json") -> Path:
    path = tmp_path / name
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return path


NEVER = {"output": {"equals": "never"}}
GOT = {"output": {"match": {"got": 2}}}
MATRIX: dict[str, tuple[Any, list[str], int, str]] = {
    "all right": (suite("echo", case(), control()), [], 0, "control_failed=1 passed=1"),
    "all wrong": (suite("wrong", case(), case("two")), [], 1, "failed=2"),
    "all raise": (suite("boom", case(), case("two")), [], 1, "errored=2"),
    "the target exits": (suite("leaves", case()), [], 1, "errored=1"),
    "no cases": (suite("echo"), [], 3, "verdict=incomplete"),
    "nothing selected": (suite("echo", case()), ["--tag", "nope"], 3, "verdict=incomplete"),
    "nothing expected": (suite("echo", {"case": "one", "input": 1}), [], 3, "unscored=1"),
    "a check raises": (suite("echo", case(expect={"checks": f"{TARGETS}:sick_check"})), [], 3, "unscored=1"),
    "a check says no": (suite("echo", case(expect={"checks": f"{TARGETS}:false_check"})), [], 1, "failed=1"),
    "a control passes": (suite("echo", case(), case("c", control="must_fail")), [], 1, "control_passed=1 passed=1"),
    "a missing tape": (suite("echo", case(level="recorded", tape="no.tape")), [], 3, "harness_error=1"),
    "a hang": (suite("hang", case(timeout="50ms")), [], 1, "timed_out=1"),
    "a deaf hang": (suite("deaf", case(timeout="50ms")), [], 1, "timed_out=1"),
    "a blocking hang": (suite("blocking", case(input=30, timeout="50ms")), [], 1, "timed_out=1"),
    "nobody answers": (suite("asking", case()), [], 1, "failed=1"),
    "all skipped": (suite("echo", case(skip="not now")), [], 3, "skipped=1"),
    "one skipped": (suite("echo", case(), case("two", skip="not now")), [], 0, "skipped=1"),
    "duplicate ids": (suite("echo", case(), case()), [], 2, "verdict=usage"),
    "an unknown key": (suite("echo", case(expcet={})), [], 2, "verdict=usage"),
    "no JSON": ("{", [], 2, "verdict=usage"),
    "no such target": (suite("nope", case()), [], 2, "verdict=usage"),
    "no such check": (suite("echo", case(expect={"checks": "nowhere:no"})), [], 2, "verdict=usage"),
    "an unknown option": (suite("echo", case()), ["--nope"], 2, ""),
    "a missing baseline": (suite("echo", case()), ["--baseline", "main"], 3, "verdict=incomplete"),
    "a gate that compares with nothing": (
        suite("echo", case(), gate={"sampled": {"regression": {"alpha": 0.05}}}),
        [],
        3,
        "verdict=incomplete",
    ),
    "no time": (suite("hang", case(timeout="30s")), ["--time-limit", "0.05"], 3, "verdict=incomplete"),
    "a report that fails": (suite("echo", case()), ["--report", "md=/dev/null/x"], 0, "verdict=pass"),
    "a required report that fails": (
        suite("echo", case()),
        ["--report", "md=/dev/null/x", "--require", "md"],
        3,
        "verdict=incomplete",
    ),
    "fewer rounds than needed": (suite("echo", case(need="4/5")), ["--rounds", "2"], 3, "missing=1"),
    "a divergence only": (
        suite("worldly", case(level="recorded", tape="one.tape", input=2, expect=GOT)),
        [],
        4,
        "diverged=1",
    ),
    "failed outranks diverged": (
        suite("worldly", case(level="recorded", tape="one.tape", input=2, expect=GOT), case("no", expect=NEVER)),
        [],
        1,
        "failed=1",
    ),
    "a bad intervention": (suite("flow", case(intervene=[{"at": "run.start", "do": {"explode": 1}}])), [], 2, "usage"),
    "an intervention of no call": (
        suite("flow", case(intervene=[{"at": "run.start", "do": {"fail_call": "E"}}])),
        [],
        2,
        "usage",
    ),
    "untrustworthy outranks failed": (
        suite("wrong", case(), case("two", expect={"checks": f"{TARGETS}:sick_check"})),
        [],
        3,
        "failed=1",
    ),
}


@pytest.mark.parametrize("name", MATRIX)
def test_exit_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way to end has its exit code, and the last line of stdout says the same."""
    body, options, code, words = MATRIX[name]
    write(tmp_path, body)
    if "one.tape" in json.dumps(body):
        asyncio.run(record_live(worldly, 1)).tape.save(tmp_path / "one.tape")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("EVALS_TEST_LOG", str(tmp_path / "log"))
    found = run_command(["run", "shop.json", *options])
    stdout, stderr = capsys.readouterr()
    assert found == code, stdout + stderr
    if words:
        last = stdout.splitlines()[-1]
        assert last.startswith("verdict=")
        assert f"code={code}" in last
        assert words in last

    assert "Traceback" not in stderr


def test_a_fault_of_the_harness_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What breaks in evals itself exits 3 with a traceback, never 1, which would say that the gate failed."""
    write(tmp_path, suite("echo", case()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("flowdeck_evals.runner.gather", lambda *args: 1 / 0)
    assert run_command(["run", "shop.json"]) == 3
    stdout, stderr = capsys.readouterr()
    assert stdout.splitlines()[-1] == "verdict=incomplete code=3"
    assert "ZeroDivisionError" in stderr and "a fault of evals itself" in stderr


@pytest.mark.parametrize("name", ["all right", "all wrong", "a deaf hang", "a blocking hang", "duplicate ids"])
def test_exit_code_of_the_process(name: str, tmp_path: Path) -> None:
    """The process itself exits so, also when a target is left behind."""
    body, options, code, _ = MATRIX[name]
    write(tmp_path, body)
    assert evals(tmp_path, "run", "shop.json", *options).returncode == code


def test_no_suite_at_all(tmp_path: Path) -> None:
    """Nothing to evaluate is a wrong request, never a pass."""
    assert evals(tmp_path, "run").returncode == 2
    assert evals(tmp_path, "run", "nowhere.yaml").returncode == 2


def test_the_verdict_is_in_the_store(tmp_path: Path) -> None:
    """What the exit code says is what SQL says, with rounds and checks."""
    from flowdeck_sinks.store import query

    write(
        tmp_path, suite("flow", case("good", input={"n": 2}, expect={"output": {"match": {"total": 4}}}), case("bad"))
    )
    done = evals(tmp_path, "run", "shop.json")
    assert done.returncode == 1
    store = tmp_path / "store"
    assert list(query(store, "SELECT suite, verdict, code, passed, failed FROM eval_sessions")) == [
        ("shop", "fail", 1, 1, 1)
    ]
    rows = list(query(store, "SELECT case_id, state, wall_ms > 0, error_type FROM eval_rounds ORDER BY 1"))
    assert rows == [("bad", "errored", True, "TypeError"), ("good", "passed", True, None)]
    assert list(query(store, "SELECT check_name, ok FROM eval_checks WHERE case_id = 'good'")) == [
        ("output match", True)
    ]
    joined = "SELECT r.status FROM eval_rounds e JOIN runs r USING (run_id) WHERE e.case_id = 'good'"
    assert list(query(store, joined)) == [("completed",)]


def test_a_full_disk_makes_it_incomplete(tmp_path: Path) -> None:
    """Results that cannot be written are never a pass."""
    write(tmp_path, suite("echo", case(input="x" * 150_000, expect={"output": {"contains": "x"}})))
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from flowdeck_evals.cli import main; main(['run', 'shop.json'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "results" in done.stdout


def test_ctrl_c_keeps_what_is_done_and_exits_130(tmp_path: Path) -> None:
    """Interrupted, it says so in its code and in the store, and can go on."""
    write(tmp_path, suite("slow", *(case(f"c{n}", input=n, expect={"output": {"equals": n}}) for n in range(400))))
    process = subprocess.Popen(
        command("run", "shop.json", "-j", "1"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "log"
    while not log.exists() or log.read_text().count("\n") < 5:
        time.sleep(0.01)
        assert process.poll() is None

    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 130, stdout
    assert stdout.splitlines()[-1].startswith("verdict=interrupted code=130")
    done = evals(tmp_path, "run", "--resume", "last")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = log.read_text().split()
    assert len(set(ran)) == 400
    assert len(ran) <= 402, "what was done is not done again"


def kill_after(tmp_path: Path, rounds: int, args: list[str]) -> None:
    """Kill a session as soon as that many further rounds have begun."""
    log = tmp_path / "log"
    before = log.read_text().count("\n") if log.exists() else 0
    process = subprocess.Popen(
        command(*args), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not log.exists() or log.read_text().count("\n") - before < rounds:
        time.sleep(0.005)
        assert process.poll() is None
        assert time.monotonic() < deadline

    process.kill()
    process.wait()


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_every_tenth_round_it_comes_to_the_same_verdict(kills: int, tmp_path: Path) -> None:
    """kill -9 every ten rounds, then --resume: verdict, totals and cases are those of a session nobody touched."""
    cases = [case(f"c{n}", input=n, expect={"output": {"equals": n if n % 7 else -1}}) for n in range(10 * (kills + 1))]
    write(tmp_path, suite("slow", *cases))
    kill_after(tmp_path, 10, ["run", "shop.json", "-j", "2"])
    for _ in range(kills - 1):
        kill_after(tmp_path, 10, ["run", "--resume", "last", "-j", "2"])

    resumed = evals(tmp_path, "run", "--resume", "last", "--json")
    ran = len((tmp_path / "log").read_text().split())
    untouched = evals(tmp_path, "run", "shop.json", "--json")
    assert resumed.returncode == untouched.returncode == 1
    one, two = json.loads(resumed.stdout), json.loads(untouched.stdout)
    for body in (one, two):
        body.pop("session"), body.pop("seconds")
        for row in body["cases"]:
            for r in row["rounds"]:
                r.pop("wall_us")

    assert one == two
    assert ran < len(cases) * 2, "rounds that were stored are not run again"


def test_failed_last_runs_only_what_was_red(tmp_path: Path) -> None:
    """--failed-last selects the cases that did not pass."""
    write(tmp_path, suite("slow", case("good"), case("bad", expect={"output": {"equals": 2}})))
    assert evals(tmp_path, "run", "shop.json").returncode == 1
    done = evals(tmp_path, "run", "shop.json", "--failed-last", "--json")
    assert [row["case"] for row in json.loads(done.stdout)["cases"]] == ["bad"]
    kill_after(tmp_path, 1, ["run", "shop.json", "--failed-last"])
    done = evals(tmp_path, "run", "--resume", "last", "--json")
    assert [row["case"] for row in json.loads(done.stdout)["cases"]] == ["bad"], "the choice is part of the session"


def test_a_baseline_is_set_shown_and_excuses_what_was_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Set from a session, a known failure accepted until a day: the gate passes, and every step is a version in git."""
    write(tmp_path, suite("worldly", case("bad", level="recorded", tape="one.tape", expect=NEVER)))
    asyncio.run(record_live(worldly, 1)).tape.save(tmp_path / "one.tape")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    assert run_command(["run", "--baseline", "main"]) == 3
    assert run_command(["baseline", "set", "main"]) == 2, "that session is incomplete"
    assert run_command(["run"]) == 1
    assert run_command(["baseline", "set", "main", "--why", "as it is"]) == 0
    assert run_command(["run", "--baseline", "main"]) == 1
    accept = ["baseline", "accept", "main", "--case", "bad", "--why", "issue 12"]
    assert run_command(accept) == 2
    assert run_command([*accept, "--expires", "2020-01-01"]) == 2
    assert run_command([*accept, "--expires", "2999-12-31"]) == 0
    assert run_command(["run"]) == 0
    assert run_command(["baseline", "set", "main"]) == 0
    assert run_command(["run", "--baseline", "main"]) == 0
    assert run_command(["run", "--baseline", "none"]) == 1
    capsys.readouterr()
    assert run_command(["baseline", "list"]) == 0
    assert "version 3" in capsys.readouterr().out
    assert run_command(["baseline", "show", "main"]) == 0
    said = capsys.readouterr().out
    assert "as it is" in said and "known failure  bad  until 2999-12-31: issue 12" in said
    assert run_command(["baseline", "show", "nope"]) == 2
    assert list((tmp_path / "baselines").iterdir()) == [tmp_path / "baselines" / "main.json"]
