"""T3: a process that ends with ``os._exit`` at each named point of the way loses nothing and repeats only what ran."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.chaos_flow import EXPECTED, ITEMS, STEPS

from flowdeck.durable import ControlClient
from flowdeck.layout import Layout

HERE = Path(__file__).parent
EVERYWHERE = {
    "the beginning is not committed": (1,),
    "submitted, not committed": (1, 2, 3),
    "inside the transaction": (2, 3),
    "committed, nobody told": (1, 2, 3),
    "inside a handler": (1,),
    "after the effect": (1,),
    "the snapshot is not written": (1,),
    "the snapshot is not committed": (1,),
    "a stream item is held back": (1,),
    "a stream item has left": (1,),
    "the end is not merged": (1,),
    "the end is not committed": (1,),
    "claimed, not made anew": (1,),
    "made anew, not bound": (1,),
}
"""Points every flow comes by, and at which time the process ends there."""
ANSWERED = (
    "the answer is written, nobody told",
    "the answer is applied, not committed",
    "the answer's outcome is not committed",
    "it expires while nobody lives",
)
CASES = [
    *((flow, point, nth) for flow in ("chaos", "asking") for point, times in EVERYWHERE.items() for nth in times),
    *(("asking", point, 1) for point in ANSWERED),
]
# Without an answer the asking flow does not come to its end in the first life.
CASES = [case for case in CASES if not (case[0] == "asking" and case[1].startswith("the end"))]


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    """One interpreter that forks the lives: starting one for each would take most of the time."""
    child = subprocess.Popen(
        [sys.executable, str(HERE / "process_failpoints.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield child
    child.kill()
    child.communicate()


def effects_of(store: Path) -> list[tuple[str, str, int]]:
    """Return ``(step, idempotency key, attempt)`` of every effect, in order."""
    lines = Path(f"{store}-effects").read_text().splitlines()
    return [(name, key, int(attempt)) for name, key, attempt, _ in map(str.split, lines)]


@pytest.mark.parametrize(("flow", "point", "nth"), CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_a_process_that_ends_at_a_point(
    runner: subprocess.Popen[str], tmp_path: Path, flow: str, point: str, nth: int
) -> None:
    """It is really ended there; the next life completes the run: state, items, keys and log are as if undisturbed."""
    store = Layout.create(tmp_path / "store").root
    assert runner.stdin is not None and runner.stdout is not None
    runner.stdin.write(json.dumps({"flow": flow, "point": point, "nth": nth, "folder": str(store)}) + "\n")
    runner.stdin.flush()
    codes = json.loads(runner.stdout.readline())["codes"]
    assert 137 in codes and codes[-1] == 0 and set(codes) <= {0, 137}, codes

    with ControlClient(store) as client:
        row = client.get_execution("x")
        assert row is not None and row.status == "completed"
        points = client.history("x")
        state: dict[str, Any] = client.stored_state("x")["runtime_data"]
        (start, *others) = reversed(client.list_inbox())
        assert (start.kind, start.outcome, start.actor) == ("start", "applied", "starter")
        assert [(each.outcome, each.actor) for each in others] == [("applied", "ann")] * len(others)

    assert all(a.seq < b.seq for a, b in pairwise(points))
    codes_in_log = "".join(each.codes for each in points)
    assert points[-1].seq == len(codes_in_log), "the log has a gap"
    effects = effects_of(store)
    attempts: dict[str, list[int]] = {}
    for _, key, attempt in effects:
        attempts.setdefault(key, []).append(attempt)

    assert all(a == sorted(set(a)) for a in attempts.values()), "an attempt was made twice under one number"
    assert sum(len(a) - 1 for a in attempts.values()) <= 3, effects
    if flow == "chaos":
        assert len(attempts) == STEPS
        assert codes_in_log.count("u") == ITEMS
        assert sorted(state.pop("seen")) == [1, 2, 3] and state == EXPECTED
    else:
        expired = point == "it expires while nobody lives"
        assert state == {"prepared": 1, "answer": "nobody" if expired else "yes"}
        assert Counter(name for name, key in {(name, key) for name, key, _ in effects}) == {"prepare": 1, "keep": 1}
        assert codes_in_log.count("u") == 2 and len(others) == (0 if expired else 1)
