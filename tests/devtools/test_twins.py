"""The commands that say without a terminal what the screens show: show, waterfall, why, diff, errors, tail, inbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.devtools.scene import TIMEOUT, Scene

from flowdeck_devtools.cli._app import run as flowdeck


@pytest.fixture
def say(scene: Scene, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command on the scene's store: its output, which must end well unless another code is given."""

    def run(*argv: str, code: int = 0) -> str:
        assert flowdeck([*argv, "--store", str(scene.store)]) == code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def refund(scene: Scene, *, at: float = 0.0, amount: int = 40, fails: bool = True) -> str:
    """One run whose second step fails on its last attempt, and what it lay in passes that on."""
    run = scene.execution("refund-agent", at=at, value={"order": "A-19"})
    run.step("plan", "plan", at=at + 0.05, lasts=0.9, output={"amount": amount})
    act = run.start("act", "act", at=at + 1.0)
    pay = run.start("act/pay", "pay", at=at + 1.1)
    if fails:
        run.fail(pay, at=at + 1.2, error=TIMEOUT, will_retry=True)
        pay = run.start("act/pay", "pay", at=at + 1.3, attempt=2)
        run.fail(pay, at=at + 2.0, error=TIMEOUT)
        payload = {"chunk_name": "act", "status": "failed", "propagated_from": pay["run"]["run_id"]}
        scene.emit(
            "chunk.failed", at=at + 2.1, run=act["run"], payload=payload, error=TIMEOUT, level="ERROR", scope="act",
            attempt=1, duration_us=1_100_000,
        )  # fmt: skip
        scene.emit(
            "triggerflow.execution_failed", at=at + 2.2, run=run.run, error=TIMEOUT, level="ERROR",
            payload={"origin_run_id": pay["run"]["run_id"]}, duration_us=2_200_000,
        )  # fmt: skip
    else:
        run.end(pay, at=at + 1.6, output={"paid": amount})
        run.end(act, at=at + 1.7)
        scene.emit(
            "triggerflow.execution_completed", at=at + 2.0, run=run.run, payload={"result": {"paid": amount}},
            duration_us=2_000_000,
        )  # fmt: skip
    return run.execution_id


def test_why_names_the_first_failure_and_its_causes(scene: Scene, say: Any) -> None:
    """Without a name it is the newest failed run; the exception that began it comes first, what passed it on after."""
    failed = refund(scene)
    refund(scene, at=10.0, fails=False)
    found = json.loads(say("why", "--json"))
    assert (found["execution_id"], found["failure"]["step"], found["failure"]["error"]["type"]) == (
        failed, "pay", "ToolTimeout",
    )  # fmt: skip
    assert found["failure"]["propagated_to"] == ["act"]
    chain = [(link["because"], link["event_type"], link["step"]) for link in found["chain"]]
    assert chain[0] == ("this", "chunk.failed", "pay")
    assert chain[1] == ("in the run begun by", "chunk.started", "pay")
    assert chain[-1][1] == "triggerflow.definition_declared"
    text = say("why", failed)
    assert "ToolTimeout: upstream 504" in text
    assert "refunds.py" in text
    assert "passed on by act" in text


def test_why_of_an_error_that_passed_through_leads_to_where_it_was_raised(scene: Scene, say: Any) -> None:
    """The event of a step that only passed an error on is followed to the step that raised it."""
    failed = refund(scene)
    found = json.loads(say("why", failed, "--step", "act", "--json"))
    assert [(link["because"], link["step"]) for link in found["chain"][:2]] == [("this", "act"), ("raised in", "pay")]
    by_event = json.loads(say("why", found["chain"][0]["event_id"], "--json"))
    assert by_event["chain"] == found["chain"]


def test_why_of_what_did_not_fail_says_so(scene: Scene, say: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that went well has no failure to explain; an unknown step or run is named."""
    good = refund(scene, fails=False)
    for argv, code in ((["why", good], 1), (["why", good, "--step", "nope"], 2), (["why", "nope"], 2), (["why"], 1)):
        assert flowdeck([*argv, "--store", str(scene.store)]) == code
        assert capsys.readouterr().err.startswith("flowdeck: ")


def test_waterfall_draws_every_step_and_marks_the_critical_path(scene: Scene, say: Any) -> None:
    """Bars for people; for programs times from the run's start, and a path whose own times add up to the whole."""
    refund(scene)
    text = say("waterfall")
    assert [line.split()[:2] for line in text.splitlines()[1:4]] == [["✗", "refund-agent"], ["✓", "plan"], ["✗", "act"]]
    assert "█" in text
    spans = json.loads(say("waterfall", "--json"))["spans"]
    plan = next(one for one in spans if one["name"] == "plan")
    assert (plan["start_ms"], plan["duration_ms"], plan["critical"]) == (50.0, 900.0, True)
    assert sum(one["critical_own_ms"] for one in spans) == pytest.approx(spans[0]["duration_ms"])
    assert next(one for one in spans if one["name"] == "pay")["attempts"] == 2


def test_show_tells_a_run_on_one_page(scene: Scene, say: Any) -> None:
    """Input, result, first failure and path stand together; a run is found by the end of its id."""
    failed = refund(scene)
    good = refund(scene, at=10.0, fails=False)
    text = say("show", failed)
    assert "first failure: ToolTimeout" in text
    assert '{"order":"A-19"}' in text
    data = json.loads(say("show", good, "--json"))
    assert (data["input"], data["result"], data["first_failure"]) == ({"order": "A-19"}, {"paid": 40}, None)
    assert data["run"]["execution_id"] == good
    assert json.loads(say("show", failed[1:], "--json"))["first_failure"]["name"] == "pay"


def test_diff_shows_path_outcome_output_and_state(scene: Scene, say: Any) -> None:
    """Runs of one flow line up place by place; equal ones end with 0, others with 1."""
    a, same = refund(scene, fails=False), refund(scene, at=10.0, fails=False)
    other, failed = refund(scene, at=20.0, amount=41, fails=False), refund(scene, at=30.0)
    assert json.loads(say("diff", a, same, "--json"))["same"] is True
    assert "same path" in say("diff", a, same)
    found = json.loads(say("diff", a, other, "--json", code=1))
    assert [(one["place"], one["difference"]) for one in found["places"] if one["difference"] != "same"] == [
        ("plan", "output"), ("act/pay", "output"),
    ]  # fmt: skip
    assert found["state"] == [{"path": "paid", "a": 40, "b": 41}]
    assert found["first"] == "plan"
    found = json.loads(say("diff", a, failed, "--json", code=1))
    assert {one["place"]: one["difference"] for one in found["places"]}["act/pay"] == "status"
    assert "act/pay" in say("diff", a, failed, code=1)


def test_errors_are_grouped_over_runs(scene: Scene, say: Any) -> None:
    """Two runs that met the same fault make one line, counted where it began."""
    refund(scene)
    refund(scene, at=10.0)
    (group,) = json.loads(say("errors", "--json"))
    assert (group["error_type"], group["executions"]) == ("ToolTimeout", 2)
    assert "ToolTimeout" in say("errors")


def test_runs_are_filtered_in_sql(scene: Scene, say: Any) -> None:
    """The language of the Runs screen works on stored runs; a mistake is named."""
    failed = refund(scene)
    refund(scene, at=10.0, fails=False)
    listed = json.loads(say("runs", "--filter", "status:failed flow:refund* dur>1s", "--json"))
    assert [row["execution_id"] for row in listed] == [failed]
    assert json.loads(say("runs", "--filter", "task:nobody OR (errors>9)", "--json")) == []
    say("runs", "--filter", "nope:1", code=2)


def test_tail_reads_what_is_piped_in(scene: Scene, say: Any, tmp_path: Path) -> None:
    """A journal or any file of events is filtered line by line; lines that are no events do not stop it."""
    refund(scene)
    file = tmp_path / "events.jsonl"
    file.write_bytes(scene.layout.segment_path(scene.writer, 1).read_bytes() + b"not json\n\n")
    lines = say("tail", str(file), "--filter", "level>=error", "--json").splitlines()
    assert [json.loads(line)["event_type"] for line in lines] == [
        "chunk.failed", "chunk.failed", "chunk.failed", "triggerflow.execution_failed",
    ]  # fmt: skip
    assert "not json" in say("tail", str(file))


def test_inbox_says_what_happens_next(scene: Scene, say: Any) -> None:
    """Each question comes with its consequence and the command that answers it."""
    run = scene.execution("refund-agent", at=0.0)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    scene.ask(run, "i-1", "Refund 40 to A-19?", at=1.0, schema=schema, what_happens="POST /refunds, no undo")
    scene.ask(run, "i-2", "Really?", at=2.0)
    text = say("inbox")
    assert "Refund 40 to A-19?" in text
    assert "then: POST /refunds, no undo" in text
    assert "flowdeck interrupts answer i-1 --value" in text
    first, second = json.loads(say("inbox", "--json"))
    assert (first["id"], first["consequence"]) == ("i-1", "POST /refunds, no undo")
    assert "goes on with the step after" in second["consequence"]
    assert json.loads(say("inbox", "--mine", "ana", "--json")) == []


def test_a_lost_run_lasted_to_its_last_sign_of_life(scene: Scene, say: Any) -> None:
    """A process that is gone does not go on working: its open steps end with its last event."""
    run = scene.execution("killed", at=0.0)
    run.start("work", "work", at=0.5)
    scene.emit("note", at=2.0, run=run.run)
    scene.die()
    spans = json.loads(say("waterfall", "--json"))["spans"]
    assert [one["duration_ms"] for one in spans] == [2000.0, 1500.0]


def test_hostile_names_reach_no_terminal(scene: Scene, say: Any) -> None:
    """Control characters in names, errors and payloads are shown as text in every command."""
    evil = "\x1b[31mred\x07\u202e"
    run = scene.execution(evil, at=0.0, value=evil)
    step = run.start("s", evil, at=0.1)
    run.fail(step, at=0.2, error={"type": evil, "message": evil, "traceback": evil})
    run.finish(at=0.3, status="failed", error={"type": evil, "message": evil})
    other = scene.execution(evil, at=1.0)
    for argv in (["show"], ["waterfall"], ["why"], ["errors"], ["diff", run.execution_id, other.execution_id]):
        text = say(*argv, code=1 if argv[0] == "diff" else 0)
        assert "\x1b" not in text
        assert "\u202e" not in text
