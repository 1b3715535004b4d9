"""A function used twice in one chain is one step: the chain leads back into it, and whoever wrote it is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from flowdeck.errors import CycleWarning
from flowdeck.triggerflow import TriggerFlow


def work(data: Any) -> Any:
    return data.input


def check(data: Any) -> Any:
    return data.input


def told(declare: Callable[[TriggerFlow], Any], times: int = 1) -> list[warnings.WarningMessage]:
    flow = TriggerFlow(name="f")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            declare(flow)

    return [each for each in caught if each.category is CycleWarning]


def test_the_warning_names_both_places_and_the_mend() -> None:
    """Both uses are named by file and line; the warning points at the second, and two names mend it."""
    flow = TriggerFlow(name="f")
    first = flow.to(work)
    then = first.to(check)
    with pytest.warns(CycleWarning) as caught:
        then.to(work)

    (warning,) = caught
    here = warning.lineno
    assert warning.filename == __file__
    text = str(warning.message)
    assert f"chunk 'work', first used at test_cycle_warning.py:{here - 3}, is used again at" in text
    assert f"test_cycle_warning.py:{here}" in text
    assert '.to(("work 1", fn)) and .to(("work 2", fn))' in text


@pytest.mark.parametrize(
    "declare",
    [
        lambda f: f.to(work).to(work),
        lambda f: f.to(("w", work)).to(check).to(("w", work)),
        lambda f: f.to(work).for_each(name="e").to(check).end_for_each().to(work),
        lambda f: f.to(work).match(name="m").case(1).to(check).case_else().to(work).end_match(),
        lambda f: f.to(work).batch(("a", check), ("b", check)).to(work),
    ],
)
def test_a_cycle_is_told_once(declare: Any) -> None:
    """Through any block; declaring the same chain again says it no second time."""
    assert len(told(declare)) == 1
    assert len(told(declare, times=3)) == 1


@pytest.mark.parametrize(
    "declare",
    [
        lambda f: (f.to(work).to(check), f.to(check)),
        lambda f: (f.to(work), f.when("Again").to(work)),
        lambda f: f.to(("one", work)).to(("two", work)),
        lambda f: f.to(f.chunk(work)).to(check).to(f.chunk(work)),
        lambda f: f.to(work).to(check).to("work"),
        lambda f: f.to(work).side_branch(check).to(check),
    ],
)
def test_what_is_no_cycle_or_one_on_purpose(declare: Any) -> None:
    """Two ways into one step, two names, and a chunk or a name passed on purpose: nobody is told anything."""
    assert told(declare, times=2) == []
