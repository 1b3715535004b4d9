"""The trajectory grammar, clause by clause, on one small run."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flowdeck_evals.happenings import Happening
from flowdeck_evals.steps import Track
from flowdeck_evals.trajectory import compile_path


def happening(text: str, n: int, **payload: Any) -> Happening:
    kind, _, rest = text.partition(" ")
    subject, _, scope = rest.partition(" ")
    return Happening(kind, f"framework.{kind}", subject, scope, n * 1_000_000, {"n": n, **payload})


RUN = [
    happening("run.start", 0),
    happening("call.start tool.lookup plan[0]", 1, order="A"),
    happening("call.done tool.lookup plan[0]", 2, order="A"),
    happening("interrupt.open approval", 3),
    happening("run.paused", 4),
    happening("run.resumed", 8),
    happening("call.start tool.reverse plan[1]", 9, order="A"),
    happening("call.done tool.reverse plan[1]", 10, order="A"),
    happening("run.end", 11),
]


def verdicts(*clauses: dict[str, Any], events: list[Happening] | None = None) -> list[str | None]:
    track = Track(RUN if events is None else events)
    return [clause(track) for _, clause in compile_path(clauses)]


HOLDS: list[dict[str, Any]] = [
    {"in_order": ["run.start", "call.done tool.lookup", "interrupt.open approval", "run.end"]},
    {"in_order": ["framework.run.start", "*.done plan*"]},
    {"in_order": [{"event": "call.start *", "times": 2}, "run.end"]},
    {"in_order": ["run.start", {"event": "call.start", "times": "0..1"}, {"event": "call.done"}, "run.end"]},
    {"in_order": ["call.start * as first", {"event": "call.done", "where": {"order": "${first.order}"}}]},
    {"in_order": [{"event": "call.done", "where": {"n": {"ge": 9}}}]},
    {"exactly": ["call.start", "call.done", {"event": "call.* tool.reverse", "times": 2}]},
    {"exactly": ["call.start plan[0]", "call.start plan[1]"], "over": "call.start"},
    {"any_order": ["run.end", "call.done tool.reverse", "run.start", "call.done tool.lookup"]},
    {"never": "call.* tool.email.*"},
    {"after": {"event": "run.end", "never": "*"}},
    {"after": {"event": "interrupt.open", "must": "call.done tool.reverse"}},
    {"between": {"from": "run.paused", "to": "run.resumed", "never": "call.*"}},
    {"between": {"from": "run.start", "to": "run.end", "count": {"of": "call.start", "eq": 2}}},
    {"count": {"of": "call.*", "at_least": 4, "at_most": 4}},
    {"within": {"from": "run.start", "to": "run.end", "at_most": 11.0}},
    {"within": {"from": "run.start", "to": "run.end", "at_most": 7.0, "clock": "work"}},
    {"each": {"of": "call.start", "followed_by": "call.done", "same": ["subject"]}},
    {"either": [[{"never": "run.*"}], [{"never": "node.*"}]]},
    {"not": [{"never": "run.end"}]},
]

BREAKS: list[tuple[dict[str, Any], str]] = [
    (
        {"in_order": ["run.end", "run.start"]},
        "step 2, run.start, was not found after run.end; it came earlier, as event 1",
    ),
    ({"in_order": ["call.done tool.lokup"]}, "nearest: call.done tool.lookup at plan[0]"),
    ({"in_order": [{"event": "call.done", "where": {"order": "B"}}]}, "order 'A'"),
    ({"in_order": [{"event": "call.start *", "times": 3}]}, "2 of 3 times"),
    ({"in_order": ["call.start * as x", {"event": "call.done", "where": {"n": "${x.n}"}}]}, "step 2"),
    ({"exactly": ["call.start", "call.done"]}, "2 more than expected, the first: call.start tool.reverse"),
    (
        {"exactly": ["call.start", "call.start"]},
        "step 2 of call.*: call.done tool.lookup at plan[0] instead of call.start",
    ),
    ({"any_order": ["call.done", "call.done", "call.done"]}, "once more"),
    ({"never": "call.* tool.reverse"}, "event 7 is call.start tool.reverse at plan[1], and 1 more"),
    ({"after": {"event": "interrupt.open", "never": "call.*"}}, "event 7 is"),
    ({"after": {"event": "node.start", "must": "run.end"}}, "node.start did not happen"),
    ({"between": {"from": "run.paused", "to": "run.end", "never": "call.*"}}, "between run.paused and run.end"),
    ({"between": {"from": "run.end", "to": "run.start", "never": "x"}}, "there is no run.end followed by run.start"),
    ({"count": {"of": "call.start", "at_most": 1}}, "call.start came 2 times, at most 1 wanted"),
    ({"within": {"from": "run.paused", "to": "run.resumed", "at_most": 3.9}}, "4 s from run.paused to run.resumed"),
    (
        {"each": {"of": "call.start", "followed_by": "call.done", "same": ["n"]}},
        "has no call.done of the same n after it",
    ),
    ({"either": [[{"never": "run.*"}], [{"never": "call.*"}]]}, "none holds: (1) never run.*"),
    ({"not": [{"never": "node.*"}]}, "all its clauses hold"),
]


@pytest.mark.parametrize("clause", HOLDS, ids=str)
def test_it_holds(clause: dict[str, Any]) -> None:
    """A clause that describes the run says nothing."""
    assert verdicts(clause) == [None]


@pytest.mark.parametrize(("clause", "words"), BREAKS, ids=[str(clause) for clause, _ in BREAKS])
def test_it_names_what_is_wrong(clause: dict[str, Any], words: str) -> None:
    """A clause that does not hold names the step, the offender or the number."""
    (reason,) = verdicts(clause)
    assert reason is not None
    assert words in reason


def test_brackets_in_a_scope_are_indexes() -> None:
    """``plan[1]`` is the second item, not a set of characters."""
    assert (
        verdicts({"count": {"of": "call.* plan[1]", "eq": 2}}, {"count": {"of": "call.* plan1", "eq": 0}}) == [None] * 2
    )


def test_any_order_finds_a_matching_when_one_exists() -> None:
    """A greedy choice for a wide pattern never takes the only event of a narrow one."""
    dice = random.Random(7)
    for _ in range(50):
        events = [happening(f"call.done tool.{name}", n) for n, name in enumerate("abcdef")]
        steps = ["call.done tool.a", "call.done tool.b", "call.done *", "call.done *", "*", "call.*"]
        dice.shuffle(events)
        dice.shuffle(steps)
        assert verdicts({"any_order": steps}, events=events) == [None]
        assert verdicts({"any_order": [*steps, "*"]}, events=events) != [None]


def test_no_event_at_all() -> None:
    """On an empty run, what must happen did not, and what must not did not either."""
    first, second = verdicts({"in_order": ["run.start"]}, {"never": "*"}, events=[])
    assert first is not None
    assert "no event at all" in first
    assert second is None
