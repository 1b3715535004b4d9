"""The law of the span mapper: order and repetition change nothing, and loss never breaks a trace."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from tests.otlp.generated import stories
from tests.otlp.hand import Clock
from tests.otlp.scenarios import Line, check_invariants, make_mapper, map_all

EXAMPLES = int(os.environ.get("FLOWDECK_OTLP_EXAMPLES", "40"))

lawful = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def shown(spans: list[ReadableSpan], *, guesses: bool) -> dict[str, Any]:
    """Return everything a span says, by id, so that two sets can be compared whatever their order.

    ``guesses``: also the times of spans whose start or end was lost, and why it is thought to be.
    """
    out = {}
    for span in spans:
        said = json.loads(span.to_json())
        if not guesses and {"flow.span.incomplete", "flow.span.start_missing"} & set(said["attributes"]):
            del said["start_time"], said["end_time"], said["status"]
            for name in ("flow.span.incomplete_reason", "error.type"):
                said["attributes"].pop(name, None)

        out[said["context"]["span_id"]] = said

    return out


def difference(one: list[ReadableSpan], other: list[ReadableSpan], *, guesses: bool = True) -> list[str]:
    """Return what differs between two sets of spans, a line each."""
    left, right = shown(one, guesses=guesses), shown(other, guesses=guesses)
    out = []
    for key in sorted({*left, *right}):
        a, b = left.get(key, {}), right.get(key, {})
        for field in sorted({*a, *b}):
            if a.get(field) != b.get(field):
                out.append(f"{(a or b)['name']}: {field}: {a.get(field)} != {b.get(field)}")

    return out


def shuffled(lines: list[Line], seed: int, repeats: float = 0.0) -> list[Line]:
    chance = random.Random(seed)
    out = [line for line in lines for _ in range(2 if chance.random() < repeats else 1)]
    chance.shuffle(out)
    return out


@lawful
@given(stories(), st.integers(0, 2**32))
def test_order_and_repetition_change_nothing(lines: list[Line], seed: int) -> None:
    """Any order of a run's events, and any of them twice, gives the same spans to the last attribute."""
    plain = map_all(lines)
    check_invariants(plain)
    again = map_all(shuffled(lines, seed, repeats=0.3))
    check_invariants(again)
    assert difference(again, plain) == []


@lawful
@given(stories(), st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_loss_never_breaks_a_trace(lines: list[Line], seed: int, kept: float) -> None:
    """Whatever is lost: one root a trace, no dangling parent, unique ids, end not before start, a service name."""
    chance = random.Random(seed)
    left = [line for line in lines if chance.random() < kept]
    spans = map_all(shuffled(left, seed, repeats=0.2))
    check_invariants(spans)
    assert difference(map_all(shuffled(left, seed + 1)), spans, guesses=False) == []


@lawful
@given(stories(), st.integers(0, 1000), st.integers(0, 2**32))
def test_a_restart_of_the_exporter_changes_nothing(lines: list[Line], cut: int, seed: int) -> None:
    """A mapper restored from its snapshot goes on as if nothing had happened, in any order of events."""
    mixed = shuffled(lines, seed)
    cut = min(cut, len(mixed))
    first = make_mapper()
    spans = [span for line in mixed[:cut] for span in first.feed(line.event, line.writer)]
    second = make_mapper()
    assert second.restore(first.snapshot())
    spans += map_all(mixed[cut:], second)
    check_invariants(spans)
    assert difference(spans, map_all(mixed)) == []


@pytest.mark.slow
@settings(max_examples=100 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(stories(), st.integers(0, 2**32), st.floats(0.05, 1.0))
def test_the_laws_at_length(lines: list[Line], seed: int, kept: float) -> None:
    """The same laws over many more runs."""
    chance = random.Random(seed)
    left = [line for line in lines if chance.random() < kept]
    spans = map_all(left)
    check_invariants(spans)
    assert difference(map_all(shuffled(left, seed, repeats=0.2)), spans, guesses=False) == []


@lawful
@given(stories(), st.integers(0, 2**32))
def test_spans_that_leave_at_once_are_those_that_leave_at_the_end(lines: list[Line], seed: int) -> None:
    """Live, with seconds between the events, a run gives the spans it gives when it is read back in one go."""
    clock = Clock()
    mapper = make_mapper(clock=clock)
    pace = random.Random(seed)
    live = []
    for line in lines:
        clock.now += pace.choice([0.0, 0.4, 3.0])
        live += mapper.due() + mapper.feed(line.event, line.writer)

    live += mapper.flush_incomplete()
    check_invariants(live)
    assert difference(live, map_all(lines), guesses=False) == []


@lawful
@given(stories(), st.integers(0, 2**32))
def test_a_killed_process_at_any_event(lines: list[Line], seed: int) -> None:
    """Killed after any event, what was open is exported as incomplete, and the trace is whole."""
    cut = random.Random(seed).randrange(1, len(lines) + 1)
    check_invariants(map_all(lines[:cut]))
