"""The six scenarios as OTLP JSON, from real runs of real flows, reviewed by eye and drawn in docs/traces.md."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.otlp.golden import FOLDER, render
from tests.otlp.scenarios import PROCESSES, Line, check_invariants, map_all, play, tree

TREES = {
    "success": ["invoke_workflow support", "  step classify", "  step answer"],
    "fan-out": [
        "invoke_workflow pages",
        "  step split",
        "  step read",
        "  step read",
        "  step read",
        "  step join",
    ],
    "retry": [
        "invoke_workflow flaky",
        "  step fetch",
        "  step fetch",
        "  step fetch",
        "  step keep",
    ],
    "failure": [
        "invoke_workflow order",
        "  step check",
        "  step payment",
        "    invoke_workflow payment",
        "      step charge",
    ],
    "pause": [
        "invoke_workflow refund",
        "  refund segment 1",
        "  step ask",
        "  wait approval",
        "  refund segment 2",
        "  step pay",
    ],
    "killed": ["invoke_workflow crawl", "  step plan", "  step fetch"],
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Line]]:
    """Each scenario, played once."""
    folder = tmp_path_factory.mktemp("scenarios")
    known: dict[str, list[Line]] = {}

    def get(scenario: str) -> list[Line]:
        if scenario not in known:
            known[scenario] = play(scenario, folder)

        return known[scenario]

    return get


@pytest.mark.parametrize("scenario", PROCESSES)
def test_a_run_gives_its_golden_trace(scenario: str, played: Callable[[str], list[Line]]) -> None:
    """What a run exports is what was reviewed; ``python -m tests.otlp.golden`` writes it anew."""
    lines = played(scenario)
    spans = map_all(lines)
    check_invariants(spans)
    assert tree(spans) == TREES[scenario]
    assert render(lines) == (FOLDER / f"{scenario}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("scenario", PROCESSES)
def test_writers_in_any_order_give_the_same_trace(scenario: str, played: Callable[[str], list[Line]]) -> None:
    """A store is read writer by writer, so a restarted run's second half may come first."""
    lines = played(scenario)
    mixed = [*lines]
    random.Random(7).shuffle(mixed)
    assert render(mixed) == render(lines)
    assert render([*lines, *lines]) == render(lines)


@pytest.mark.parametrize("scenario", PROCESSES)
def test_the_documentation_draws_every_tree(scenario: str) -> None:
    """The trees in docs/traces.md are those of the golden traces."""
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text(encoding="utf-8")
    assert "\n".join(TREES[scenario]) in page
