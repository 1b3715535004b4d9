"""``evals record`` and ``evals replay`` as a user types them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from flowdeck_evals.cli.app import run_command
from flowdeck_evals.tapes import Tape

FLOW = """
from flowdeck import TriggerFlow

flow = TriggerFlow(name="greeter")


def world(name):
    return {"greeting": f"hello {name}", "password": "hunter2"} if name == "spy" else f"hello {name}"


async def greet(data):
    return await data.call("web", "greet", world, data.input)


async def ask(data):
    return await data.async_pause_for(type="approve", payload={"text": data.input})


async def keep(data):
    await data.async_set_state("said", data.input)


flow.to(greet).to(ask).to(keep)
"""
SUITE = """
suite: greeter
target: {module}:flow
defaults: {{level: recorded}}
cases:
  - case: ann
    input: ann
    tape: tapes/ann.tape
    human: [{{on: approve, answer: "yes", by: eve}}]
    expect: {{output: {{match: {{said: "yes"}}}}}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with a flow and a suite, whose cases have no tapes yet."""
    module = f"greeter_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(FLOW)
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "greeter.yaml").write_text(SUITE.format(module=module))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    request.addfinalizer(lambda: sys.modules.pop(module, None))
    return tmp_path


def edit(project: Path, before: str, after: str) -> None:
    """Change the flow's source, as an editor would, and forget what was imported."""
    (file,) = project.glob("greeter_*.py")
    file.write_text(file.read_text().replace(before, after))
    shutil.rmtree(project / "__pycache__", ignore_errors=True)
    sys.modules.pop(file.stem, None)


def test_a_case_is_recorded_and_then_passes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its tape the session is incomplete; after ``record`` it passes, and a tape is not rewritten unasked."""
    assert run_command(["run", "evals", "--quiet"]) == 3
    assert run_command(["record", "evals"]) == 0
    tape = project / "evals" / "tapes" / "ann.tape"
    first = tape.read_bytes()
    assert run_command(["run", "evals", "--quiet"]) == 0
    assert run_command(["record", "evals"]) == 0
    assert tape.read_bytes() == first
    assert run_command(["record", "evals", "--rewrite"]) == 0
    assert tape.read_bytes() != first
    assert "verdict=pass code=0" in capsys.readouterr().out


def test_a_stored_run_is_replayed_and_an_edit_diverges(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any stored run becomes a tape by SQL; replaying an edited flow exits 4 with place, difference and line."""
    assert run_command(["run", "evals", "--level", "live", "--quiet"]) == 0
    assert run_command(["record", "--from-store", "flow_name = 'greeter'", "--out", "mined"]) == 0
    (tape,) = (project / "mined").glob("*.tape")
    (module,) = (file.stem for file in project.glob("greeter_*.py"))
    target = ["--target", f"{module}:flow"]
    assert run_command(["replay", str(tape), *target]) == 0
    edit(project, "world, data.input)", "world, data.input.upper())")
    line = next(n for n, text in enumerate(FLOW.splitlines(), 1) if "data.call" in text)
    capsys.readouterr()
    assert run_command(["replay", str(tape), *target]) == 4
    said = capsys.readouterr().out
    assert "divergence: changed: web.greet at greet: it is called with other arguments: 0: 'ann' -> 'ANN'" in said
    assert f"code: {module}.py:{line}" in said
    assert run_command(["replay", str(tape), *target, "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["findings"][0]["scope"]) == ("diverged", "greet")


def test_a_fork_goes_live_and_is_kept(project: Path) -> None:
    """From the place on the world answers; before it the tape does. The new tape knows its origin."""
    assert run_command(["record", "evals"]) == 0
    edit(project, "hello {name}", "goodbye {name}")
    tape = "evals/tapes/ann.tape"
    assert run_command(["replay", tape]) == 0
    assert run_command(["replay", tape, "--stub", "nothing"]) == 4
    assert run_command(["replay", tape, "--from", "keep", "--save", "fork.tape"]) == 0
    header = json.loads((project / "fork.tape").read_text().splitlines()[0])
    assert header["forked_from"][1] > 0
    assert run_command(["replay", tape, "--from", "nowhere"]) == 3


def test_a_fork_asks_people_anew(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A question after the place needs somebody who answers: nobody is a failure by name, --people mends it."""
    assert run_command(["record", "evals"]) == 0
    fork = ["replay", "evals/tapes/ann.tape", "--from", "ask"]
    capsys.readouterr()
    assert run_command(fork) == 1
    said = capsys.readouterr().out
    assert "no human rule answers interrupt 'approve' at ask" in said and "--people FILE" in said
    (project / "people.yaml").write_text("- {on: approve, answer: later, by: bob, delay: 2h}\n")
    assert run_command([*fork, "--people", "people.yaml", "--save", "fork.tape"]) == 0
    (answer,) = Tape.load("fork.tape").answers
    assert (answer.value, answer.actor) == ("later", "bob")
    (project / "people.yaml").write_text("- {on: approve}\n- {onn: approve, answer: 1}\n")
    assert run_command([*fork, "--people", "people.yaml"]) == 2
    assert "people.yaml:2: unknown key 'onn'" in capsys.readouterr().err


def test_a_replay_ends_even_when_its_flow_does_not(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A handler that ignores its cancellation is left behind, and the time limit is said."""
    assert run_command(["record", "evals"]) == 0
    deaf = ["--target", "tests.evals.targets_for_tests:deaf_flow", "--timeout", "0.05"]
    assert run_command(["replay", "evals/tapes/ann.tape", *deaf]) == 3
    assert "timed out: not done after 0.05 s" in capsys.readouterr().out


def test_a_lossy_tape_says_so_and_does_not_replay(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A redacted result exits 3 at recording and at replay, by name."""
    suite = project / "evals" / "greeter.yaml"
    suite.write_text(suite.read_text().replace("input: ann", "input: spy"))
    assert run_command(["record", "evals"]) == 3
    assert "lossy: web.greet at greet: redacted" in capsys.readouterr().err
    assert run_command(["replay", "evals/tapes/ann.tape"]) == 3
    assert "its result is lossy (redacted)" in capsys.readouterr().out
    assert "hunter2" not in (project / "evals" / "tapes" / "ann.tape").read_text()


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["replay", "missing.tape"], 2, "there is no tape missing.tape"),
        (["record"], 2, "name a suite"),
        (["record", "--run", "unknown"], 2, "store"),
        (["record", "evals", "--case", "nobody"], 2, "no case with a tape is meant"),
    ],
)
def test_usage_errors_are_one_line(
    project: Path, argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each names the thing and exits 2."""
    assert run_command(argv) == code
    assert said in capsys.readouterr().err
