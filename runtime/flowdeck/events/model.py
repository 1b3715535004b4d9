"""The event users see: a pydantic model with the fields of seed 004.

Importing this module imports pydantic; the runtime itself builds :class:`~flowdeck.events.record.EventRecord` and
makes a model only for a hook or an API edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

from flowdeck.events.encoding import sanitise
from flowdeck.events.errorinfo import ErrorInfo
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import RunContext
from flowdeck.events.record import EventRecord

__all__ = ["Level", "ObservationEvent", "RuntimeEvent", "event_from_record"]

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _to_run(value: Any) -> RunContext | None:
    if value is None or isinstance(value, RunContext):
        return value

    if isinstance(value, Mapping):
        return RunContext.from_mapping(value)

    raise ValueError("run must be a RunContext or a mapping")


def _to_error(value: Any) -> ErrorInfo | None:
    if value is None or isinstance(value, ErrorInfo | BaseException | Mapping | str):
        return ErrorInfo.of(value)

    raise ValueError("error must be an exception, a text, a mapping or an ErrorInfo")


def _dump(value: Any) -> Any:
    return None if value is None else value.to_dict()


def _text_of_enum(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


_OBJECT_OR_NULL = {"anyOf": [{"type": "object"}, {"type": "null"}]}
_Run = Annotated[Any, PlainValidator(_to_run), PlainSerializer(_dump), WithJsonSchema(_OBJECT_OR_NULL)]
_Error = Annotated[Any, PlainValidator(_to_error), PlainSerializer(_dump), WithJsonSchema(_OBJECT_OR_NULL)]


class ObservationEvent(BaseModel):
    """One observation event. Source: seed 004, table of fields.

    ``payload`` is neither checked nor copied; ``error`` accepts an exception and normalises it; ``timestamp`` is in
    milliseconds. Raises :class:`pydantic.ValidationError` for a missing ``event_type`` or an unknown ``level``.
    """

    model_config = ConfigDict(validate_assignment=False, arbitrary_types_allowed=True)

    event_id: str = Field(default_factory=new_id)
    """Unique; made when not given."""
    event_type: Annotated[str, Field(min_length=1)]
    """A dotted path such as ``triggerflow.execution_started``."""
    source: str = "Flowdeck"
    """Who emitted it."""
    level: Annotated[Level, BeforeValidator(_text_of_enum)] = "INFO"
    message: str | None = None
    """For people; consumers must not parse it."""
    payload: Any = None
    """The event's own structured data."""
    error: _Error = None
    """An :class:`~flowdeck.events.errorinfo.ErrorInfo` or ``None``."""
    run: _Run = None
    """A :class:`~flowdeck.events.lineage.RunContext` or ``None``."""
    meta: dict[str, Any] = Field(default_factory=dict)
    timestamp: int = Field(default_factory=lambda: time_ns() // 1_000_000)
    """Milliseconds since the Unix epoch."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return the event as JSON-ready data: redacted, bounded in depth, whatever the payload is."""
        out: dict[str, Any] = sanitise(
            {
                "event_id": self.event_id,
                "event_type": self.event_type,
                "source": self.source,
                "level": self.level,
                "message": self.message,
                "payload": None,
                "error": _dump(self.error),
                "run": _dump(self.run),
                "meta": self.meta,
                "timestamp": self.timestamp,
            }
        )
        out["payload"] = sanitise(self.payload)
        return out


RuntimeEvent = ObservationEvent
"""The historical name; new code says :class:`ObservationEvent`."""


def event_from_record(record: EventRecord) -> ObservationEvent:
    """Return the model of a record. Built without validation: the record was checked on its way in."""
    return ObservationEvent.model_construct(
        event_id=record.event_id,
        event_type=record.event_type,
        source=record.source,
        level=record.level,
        message=record.message,
        payload=record.payload,
        error=record.error,
        run=record.run,
        meta=record.meta,
        timestamp=record.timestamp,
    )
