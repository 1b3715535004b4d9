from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from tests.events.support import collecting, cycle_payload

from flowdeck.events import ErrorInfo, ObservationEvent, RunContext, RuntimeEvent

FIELDS = {"event_id", "event_type", "source", "level", "message", "payload", "error", "run", "meta", "timestamp"}


def test_the_fields_are_those_of_the_seed() -> None:
    """Every field of seed 004 exists, with its default."""
    event = ObservationEvent(event_type="a.b")

    assert set(ObservationEvent.model_fields) == FIELDS
    assert (event.level, event.message, event.payload, event.error, event.run, event.meta) == (
        "INFO", None, None, None, None, {},
    )  # fmt: skip
    assert len(event.event_id) == 32
    assert event.timestamp > 1_700_000_000_000
    assert RuntimeEvent is ObservationEvent


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"event_type": ""},
        {"event_type": "a", "level": "LOUD"},
        {"event_type": "a", "run": 3},
        {"event_type": "a", "error": 3},
    ],
)
def test_bad_events_raise_validation_errors(bad: dict[str, Any]) -> None:
    """The model itself is strict."""
    with pytest.raises(pydantic.ValidationError):
        ObservationEvent(**bad)


def test_errors_and_runs_are_normalised() -> None:
    """Exceptions become ErrorInfo, mappings become runs, and both dump to plain data."""
    event = ObservationEvent(event_type="a.b", error=ValueError("bad"), run={"run_id": "r", "run_kind": "k"})

    assert isinstance(event.error, ErrorInfo) and event.error.message == "bad"
    assert isinstance(event.run, RunContext) and event.run.run_id == "r"
    dumped = json.loads(event.model_dump_json())
    assert dumped["error"]["type"] == "ValueError"
    assert dumped["run"]["root_run_id"] == "r"
    assert set(event.model_json_schema()["properties"]) == FIELDS


def test_a_record_and_its_model_agree() -> None:
    """The model of an emitted event shows the same values as the wire."""
    center, sink = collecting()
    run = RunContext.create(run_kind="job")
    center.type("chunk.completed").emit({"a": 1}, run=run, epoch=1, seq=2, scope="s", error="bad", meta={"k": "v"})
    event = sink.records[0].to_event()

    assert event.to_json_dict() == sink.events()[0]
    assert ObservationEvent.model_validate(event.model_dump()).event_id == event.event_id


def test_to_json_dict_survives_anything() -> None:
    """A hostile payload is described, cut and redacted."""
    event = ObservationEvent(event_type="a.b", payload={"o": object(), "token": "T", "loop": cycle_payload()})
    text = json.dumps(event.to_json_dict())

    assert '"T"' not in text
    assert "$cut" in text
