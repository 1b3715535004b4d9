from __future__ import annotations

import itertools
from typing import Any

import pytest
from tests.events.support import collecting, strict

from flowdeck.events import ErrorInfo, EventRecord, Fragment, RunContext
from flowdeck.events.record import MESSAGE_LIMIT, PAYLOAD_LIMIT

WIRE_ORDER = [
    "event_id", "event_type", "source", "level", "message", "payload", "error", "run", "meta", "timestamp",
]  # fmt: skip
STATIC = Fragment({"chunk_id": "op-1", "chunk_name": "classify"})


def emitted(*args: Any, type_name: str = "chunk.completed", **options: Any) -> EventRecord:
    center, sink = collecting()
    center.type(type_name).emit(*args, **options)
    return sink.records[0]


def test_the_wire_has_every_field_in_order() -> None:
    """The line holds the ten fields of seed 004, in the documented order."""
    run = RunContext.create(run_kind="workflow_execution", execution_id="e1")
    record = emitted(
        {"status": "completed"}, STATIC, RunContext.attempt(run, "chunk_execution", STATIC), 1, 5, 0, "a/b[2]", 4, 2, 12
    )
    event = strict(record.encoded)

    assert list(event) == WIRE_ORDER
    assert event["payload"] == {"chunk_id": "op-1", "chunk_name": "classify", "status": "completed"}
    assert event["run"]["parent_run_id"] == run.run_id
    assert event["meta"] == {
        "v": 1, "us": record.time_us % 1000, "epoch": 1, "seq": 5, "scope": "a/b[2]", "cause": 4, "attempt": 2,
        "duration_us": 12,
    }  # fmt: skip
    assert event["timestamp"] * 1000 + event["meta"]["us"] == record.time_us
    assert event["event_id"] == record.event_id


PARTS: dict[str, list[Any]] = {
    "message": [None, 'hello "you"'],
    "error": [None, ValueError("bad")],
    "meta": [None, {}, {"tenant": "demo"}],
    "place": [{}, {"epoch": 2, "seq": 9, "sub": 3, "scope": 'q"\n', "duration_us": 0}],
    "payload": [None, {}, {"a": 1}, [1], {"chunk_id": "other"}, "text"],
    "static": [None, Fragment({}), STATIC],
    "source": [None, 'My "source"'],
    "run": [None, RunContext.create(run_kind="x")],
}


def test_the_wire_says_what_the_properties_say() -> None:
    """Every combination of parts encodes to exactly what the properties show."""
    for values in itertools.product(*PARTS.values()):
        parts = dict(zip(PARTS, values, strict=True))
        record = emitted(**parts.pop("place"), **parts)

        assert strict(record.encoded) == {
            "event_id": record.event_id,
            "event_type": "chunk.completed",
            "source": record.source,
            "level": "INFO",
            "message": record.message,
            "payload": record.payload,
            "error": None if record.error is None else record.error.to_dict(),
            "run": None if record.run is None else record.run.to_dict(),
            "meta": record.meta,
            "timestamp": record.timestamp,
        }, parts


def test_the_wire_form_is_made_once() -> None:
    """All sinks share one bytes object, which later changes of the payload do not reach."""
    payload = {"items": [1]}
    record = emitted(payload)
    line = record.encoded
    payload["items"].append(2)

    assert record.encoded is line
    assert strict(line)["payload"] == {"items": [1]}
    assert record.payload == {"items": [1, 2]}


def test_a_sink_can_put_another_payload_in() -> None:
    """encode_with replaces the payload and nothing else; a journal moves large ones out this way."""
    record = emitted({"big": "x"}, STATIC, message="m")
    other = strict(record.encode_with(b'{"$blob":"abc"}'))

    assert other["payload"] == {"$blob": "abc"}
    assert {**other, "payload": None} == {**strict(record.encoded), "payload": None}
    assert strict(record.encoded_payload) == {"chunk_id": "op-1", "chunk_name": "classify", "big": "x"}


def test_static_and_new_parts_that_overlap_have_no_duplicate_keys() -> None:
    """What is new wins over the static part."""
    record = emitted({"chunk_id": "new"}, STATIC)

    assert strict(record.encoded)["payload"] == {"chunk_id": "new", "chunk_name": "classify"}


def test_users_cannot_overwrite_the_envelope() -> None:
    """A user's value under a reserved meta key is kept under another name."""
    record = emitted({"a": 1}, meta={"seq": "mine", "tenant": "demo"}, epoch=1, seq=3)

    assert strict(record.encoded)["meta"] == {
        "v": 1, "us": record.time_us % 1000, "epoch": 1, "seq": 3, "user_seq": "mine", "tenant": "demo",
    }  # fmt: skip


def test_secrets_are_masked_in_every_part() -> None:
    """Payload, static payload, meta, run meta and error details are redacted."""
    run = RunContext.create(run_kind="x", meta={"password": "S3CRET"})
    error = ErrorInfo(type="E", details={"token": "S3CRET"})
    record = emitted({"api_key": "S3CRET"}, Fragment({"secret": "S3CRET"}), run, meta={"cookie": "S3CRET"}, error=error)

    assert b"S3CRET" not in record.encoded
    assert record.encoded.count(b"[redacted]") == 5


def test_a_long_message_is_cut_with_its_length() -> None:
    """A message is bounded on the wire and says how much is missing."""
    message = strict(emitted(message="x" * (MESSAGE_LIMIT + 7)).encoded)["message"]

    assert message.endswith("[7 more characters]")
    assert len(message) < MESSAGE_LIMIT + 40


@pytest.mark.parametrize("static", [None, STATIC])
def test_a_monstrous_payload_is_replaced(monkeypatch: pytest.MonkeyPatch, static: Fragment | None) -> None:
    """Beyond the hard limit only size and preview are written."""
    monkeypatch.setattr("flowdeck.events.record.PAYLOAD_LIMIT", 10_000)
    run = RunContext.create(run_kind="x")
    payload = strict(emitted({"a": "x" * 20_000}, static, run).encoded)["payload"]

    assert payload["$cut"] == "size"
    assert payload["size"] > 20_000
    assert len(payload["preview"]) == 1024
    assert PAYLOAD_LIMIT > 1_000_000


def test_an_exception_becomes_an_error_info() -> None:
    """Class, text, module and traceback are kept."""
    try:
        raise KeyError("missing")
    except KeyError as problem:
        record = emitted(error=problem)

    error = strict(record.encoded)["error"]

    assert (error["type"], error["message"], error["module"]) == ("KeyError", "'missing'", "builtins")
    assert "test_an_exception_becomes_an_error_info" in error["traceback"]
    assert error["details"] == {}


class Raising(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("text", ("RuntimeError", "text")),
        ({"type": "E", "message": "m", "code": "c", "unknown": 1}, ("E", "m")),
        ({"type": 3}, ("InvalidErrorInfo", None)),
        (Raising(), ("Raising", "<Raising: its text raised RuntimeError>")),
        (17, ("RuntimeError", "17")),
    ],
)
def test_anything_becomes_an_error_info(error: object, expected: tuple[str, str | None]) -> None:
    """Texts, mappings and hostile exceptions are normalised without raising."""
    info = ErrorInfo.of(error)

    assert info is not None
    assert info.type == expected[0]
    if expected[1] is not None:
        assert info.message == expected[1]

    strict(emitted(error=error).encoded)


def test_a_long_traceback_keeps_its_end() -> None:
    """The cause is at the end; what is cut is said."""

    def deep(level: int) -> None:
        if level == 0:
            raise ValueError("x" * 50_000 + "the end")

        deep(level - 1)

    with pytest.raises(ValueError, match="the end") as caught:
        deep(50)

    text = ErrorInfo.from_exception(caught.value).traceback or ""

    assert text.rstrip().endswith("the end")
    assert "earlier characters cut" in text
    assert len(text) < 40_000


@pytest.mark.parametrize(
    "fields", [{"run": "no run"}, {"scope": 1j}, {"message": 3}, {"meta": [1]}, {"seq": "five"}, {"duration_us": 1j}]
)
def test_a_record_with_wrong_fields_is_still_written(fields: dict[str, Any]) -> None:
    """Framework code that passes nonsense loses no event and breaks no line."""
    event = strict(emitted({"a": 1}, STATIC, **fields).encoded)

    assert event["event_type"] == "chunk.completed"


def test_the_model_is_made_once() -> None:
    """All hooks of one event share one model."""
    record = emitted({"a": 1})

    assert record.to_event() is record.to_event()
    assert record.to_event().payload is record.payload or record.payload == {"a": 1}
