"""kill -9 in the middle of an approved action, with the durable store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.flaky(reruns=1)
PAYER = str(Path(__file__).with_name("process_payer.py"))


def life(tmp_path: Path, what: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PAYER, str(tmp_path / "store"), str(tmp_path / "book"), what, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def entries(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "book").read_text().splitlines()]


def ended(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_approved_action_runs_again_with_the_same_idempotency_key(tmp_path: Path) -> None:
    """Replay safe: it is called again without another approval, and the receiver can tell it is the same payment."""
    killed = life(tmp_path, "start")
    assert killed.returncode == -9, killed.stderr
    result = ended(life(tmp_path, "go-on"))
    first, second = entries(tmp_path)
    assert first[0] == second[0] and first[0].startswith("order-1:t")
    [record] = result["records"]
    assert (record["status"], record["data"], result["status"]) == ("success", {"paid": 5}, "completed")
    assert record["approval"]["approved"] and record["approval"]["actor"] == "ann"


def test_an_action_that_must_not_be_repeated_runs_once(tmp_path: Path) -> None:
    """replay_safe=False: nobody calls it again; a person says what became of it, and the loop goes on."""
    assert life(tmp_path, "start", "--once").returncode == -9
    done = life(tmp_path, "go-on", "--once")
    result = ended(done)
    assert "asked" in done.stdout and len(entries(tmp_path)) == 1
    [record] = result["records"]
    assert (record["action_id"], record["status"], record["data"]["seen"]) == ("pay", "success", "by hand")


def test_the_lineage_survives(tmp_path: Path) -> None:
    """After the kill, the loop is still one run: started in one process, completed in the other."""
    life(tmp_path, "start")
    ended(life(tmp_path, "go-on"))
    lines = [
        json.loads(line)
        for segment in sorted((tmp_path / "store" / "journal").glob("*.jsonl"))
        for line in segment.read_text().splitlines()
    ]
    loops = [each for each in lines if str(each.get("event_type", "")).startswith("action.loop_")]
    assert sorted(each["event_type"] for each in loops) == ["action.loop_completed", "action.loop_started"]
    assert len({each["run"]["run_id"] for each in loops}) == 1
    calls = [each for each in lines if each.get("event_type") == "action.started"]
    assert {each["run"]["parent_run_id"] for each in calls} == {loops[0]["run"]["run_id"]} and len(calls) == 2
