"""The filter language."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdeck_devtools.filter import FilterError, compile_fields, compile_line, parse
from flowdeck_devtools.filter.grammar import All, Compare, Match, Not, Word, describe


def line(**fields: Any) -> bytes:
    event = {
        "event_type": "chunk.failed",
        "source": "TriggerFlowExecution",
        "level": "ERROR",
        "message": "upstream 504",
        "payload": {"chunk_name": "refund", "args": {"amount": 40}, "note": "Grüße"},
        "error": {"type": "ToolTimeout", "message": "upstream 504"},
        "run": {"run_id": "c0042", "root_run_id": "r0007", "execution_id": "x1", "meta": {"task_id": "T-1"}},
        "meta": {"scope": "for_each[3]/refund", "attempt": 2, "duration_us": 250_000, "seq": 12},
        **fields,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("refund", True),
        ("REFUND upstream", True),
        ("refund nonsense", False),
        ('"upstream 504"', True),
        ("grüße", True),
        ("-refund", False),
        ("-nonsense", True),
        ("kind:chunk.*", True),
        ("kind:chunk.completed,chunk.failed", True),
        ("type:chunk.completed", False),
        ("-kind:chunk.*", False),
        ("level>=warn", True),
        ("lvl<error", False),
        ("level:error", True),
        ("level=err", True),
        ("level>error", False),
        ("run:c0042", True),
        ("run:0007", True),
        ("run:…0007", True),
        ("run:9", False),
        ("node:refund", True),
        ("node:for_each[3]*", True),
        ("scope:other", False),
        ("attempt>1", True),
        ("attempt:2", True),
        ("attempt>2", False),
        ("dur>200ms dur<1s", True),
        ("dur>0.3", False),
        ("seq:12", True),
        ("task:t-1", True),
        ("tenant:acme", False),
        ("error:tooltimeout", True),
        ("data.args.amount>25", True),
        ("data.args.amount>25 -data.chunk_name:refund", False),
        ("payload.chunk_name:ref*", True),
        ("data.missing:x", False),
        ("-data.missing:x", True),
        ("source:triggerflowexecution", True),
    ],
)
def test_a_line_passes_or_not(text: str, passes: bool) -> None:
    """Words, fields, lists, stars, comparisons, negation; whatever the case."""
    assert compile_line(text)(line()) is passes


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("foo:bar", 0, "no field 'foo'"),
        ("refund nope>3", 7, "no field 'nope'"),
        ("kind:", 5, "value is missing"),
        ("level>=loud", 7, "no level 'loud'"),
        ("attempt>many", 8, "wants a number"),
        ('"open', 0, "closing"),
        ('a ""', 2, "nothing between"),
    ],
)
def test_what_is_no_filter_says_where(text: str, column: int, words: str) -> None:
    """The message names the mistake and its column."""
    with pytest.raises(FilterError, match=words) as caught:
        parse(text)
    assert caught.value.column == column


def test_a_filter_is_a_tree() -> None:
    """Other back ends (SQL) are compiled from the same tree."""
    assert parse('level>=warn -kind:a,b "x y"') == All(
        (Compare("level", ">=", "warn"), Not(Match("kind", ("a", "b"))), Word("x y"))
    )


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_says_why_not(text: str) -> None:
    """Typing never fails otherwise, and what parses can be applied and written again."""
    try:
        tree = parse(text)
    except FilterError:
        return
    assert compile_line(text)(line()) in (True, False)
    assert isinstance(describe(tree.nodes), str)


@given(
    st.sampled_from(["chunk.failed", "chunk.started", "other"]),
    st.sampled_from(["INFO", "ERROR", "WARNING"]),
    st.sampled_from(["kind:chunk.failed", "level>=warn", "-kind:other", "refund", "attempt>1", "error:tool*"]),
    st.sampled_from(["", "-run:c0042", "data.args.amount:40", "dur>1ms"]),
)
def test_a_conjunction_holds_where_both_parts_hold(kind: str, level: str, left: str, right: str) -> None:
    """Short cuts over bytes and heads never change what a filter means."""
    one = line(event_type=kind, level=level)
    both = compile_line(f"{left} {right}")(one)
    assert both == (compile_line(left)(one) and compile_line(right)(one))


def test_hostile_lines_never_fail_a_filter() -> None:
    """Fields of the wrong type do not pass, and do not raise."""
    broken = b'{"event_type":5,"meta":[],"run":"x","payload":null,"error":"e"}'
    for text in ("attempt>1", "data.a.b:1", "task:x", "error:e", "node:x", "status:x", "-level:info"):
        assert compile_line(text)(broken) in (True, False)
    assert compile_line("kind:a")(b"not json") is False


def test_runs_are_filtered_by_the_same_language() -> None:
    """A bare word must occur in some field of the run."""
    run = {"run": "r0007", "flow": "refund-agent", "status": "failed", "errors": 2, "error": "ToolTimeout: 504"}
    assert compile_fields("status:failed,running flow:refund* errors>1 timeout")(run)
    assert not compile_fields("status:completed")(run)
    assert not compile_fields("-refund")(run)
    assert not compile_fields("task:x")(run)
