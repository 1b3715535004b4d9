from __future__ import annotations

import pytest

from flowdeck.events.aliases import (
    get_triggerflow_event_aliases,
    matcher,
    matches_observation_event_type,
    normalize_triggerflow_event_type,
)

FAMILIES = ("triggerflow", "workflow", "trigger_flow")


@pytest.mark.parametrize("emitted", FAMILIES)
@pytest.mark.parametrize("wanted", FAMILIES)
@pytest.mark.parametrize("suffix", ["execution_started", "execution_closed", "signal", "anything.new"])
def test_every_family_name_matches_every_other(emitted: str, wanted: str, suffix: str) -> None:
    """All three names of a flow event match in all directions, whatever the suffix."""
    assert matches_observation_event_type(f"{emitted}.{suffix}", [f"{wanted}.{suffix}"])
    assert not matches_observation_event_type(f"{emitted}.{suffix}", [f"{wanted}.other"])


@pytest.mark.parametrize("emitted", FAMILIES)
@pytest.mark.parametrize(
    "pattern", ["workflow.*", "trigger_flow.execution_*", "triggerflow.*_started", "*.execution_?tarted"]
)
def test_patterns_know_the_aliases(emitted: str, pattern: str) -> None:
    """A pattern under one name matches events under the others."""
    assert matches_observation_event_type(f"{emitted}.execution_started", [pattern])


@pytest.mark.parametrize(
    ("pattern", "event_type"),
    [
        ("action.*", "tool.loop_started"),
        ("tool.*", "action.loop_started"),
        ("action.loop_started", "tool.loop_started"),
        ("workflow", "triggerflow.signal"),
        ("runtime", "runtime.info"),
        ("runtime.inf", "runtime.info"),
        ("workflows.*", "triggerflow.signal"),
        ("workflow.*", "workflowx.signal"),
    ],
)
def test_what_is_no_alias_does_not_match(pattern: str, event_type: str) -> None:
    """action and tool are separate events; prefixes are not patterns."""
    assert not matches_observation_event_type(event_type, [pattern])


def test_names_and_patterns_mix() -> None:
    """One list may hold both; None wants everything, an empty list nothing."""
    wants = matcher(["runtime.info", "action.*", "model.[cm]*"])

    assert [name for name in ("runtime.info", "runtime.error", "action.started", "model.meta") if wants(name)] == [
        "runtime.info",
        "action.started",
        "model.meta",
    ]
    assert matcher(None)("anything")
    assert not matcher([])("anything")


def test_something_else_than_text_is_refused() -> None:
    """The error names what was given."""
    with pytest.raises(TypeError, match="int: 3"):
        matcher(["a", 3])  # type: ignore[list-item]


def test_the_helpers_of_the_reference() -> None:
    """Normalising and listing aliases work on names and leave others alone."""
    assert normalize_triggerflow_event_type("workflow.signal") == "triggerflow.signal"
    assert normalize_triggerflow_event_type("runtime.info") == "runtime.info"
    assert get_triggerflow_event_aliases("trigger_flow.x") == {"triggerflow.x", "workflow.x", "trigger_flow.x"}
    assert get_triggerflow_event_aliases("tool.x") == {"tool.x"}
