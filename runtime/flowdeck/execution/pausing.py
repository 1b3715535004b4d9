"""What a pause is made of: its arguments, the signal a chunk returns, and the answer it runs with later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.errors import InterruptError, UnencodableValue
from flowdeck.execution.schema import check_value, schema_of
from flowdeck.execution.values import copy_value, is_clean

if TYPE_CHECKING:
    from flowdeck.execution.state import Interrupt

__all__ = ["PauseSignal", "Resume", "checked_options"]

_EXPIRY_WORDS = ("cancel", "fail")


class PauseSignal(Mapping[str, Any]):
    """What ``pause_for`` returns; the chunk must return it. A mapping: the interrupt's record, built when asked for."""

    __slots__ = ("_record", "_source", "interrupt_id")

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt_id = interrupt.id
        self._source = interrupt
        self._record: dict[str, Any] | None = None

    @property
    def interrupt(self) -> dict[str, Any]:
        """The record, as it stood when it was first looked at."""
        if self._record is None:
            self._record = self._source.record()

        return self._record

    def __getitem__(self, key: str) -> Any:
        return self.interrupt[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.interrupt)

    def __len__(self) -> int:
        return len(self.interrupt)

    def __repr__(self) -> str:
        return f"<PauseSignal {self.interrupt_id}>"


class Resume:
    """The answer a handler runs with; every field is ``None`` when it was not resumed."""

    __slots__ = ("interrupt", "interrupt_id", "origin_signal", "value")

    def __init__(self, interrupt: dict[str, Any] | None) -> None:
        self.interrupt = interrupt
        self.interrupt_id = interrupt["id"] if interrupt else None
        self.value = interrupt["resume_value"] if interrupt else None
        self.origin_signal = interrupt["source_signal"] if interrupt else None

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("interrupt_id", "value", "interrupt", "origin_signal")}


def checked_options(options: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    """Return the arguments of :meth:`Core.pause` for a user's ``pause_for``.

    Raises:
        InterruptError: one is not valid; the text names it.
    """
    kind, expires_in, interrupt_id = options["type"], options["expires_in"], options["interrupt_id"]
    if not isinstance(kind, str) or not kind:
        raise InterruptError(f"pause_for(type={kind!r}): expected a text")

    if interrupt_id is not None and not (isinstance(interrupt_id, str) and interrupt_id and is_clean(interrupt_id)):
        raise InterruptError(f"pause_for({kind!r}): interrupt_id={interrupt_id!r}: expected a text")

    if expires_in is not None and (
        isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not 0 < expires_in < 1e10
    ):
        raise InterruptError(f"pause_for({kind!r}): expires_in={expires_in!r}: expected seconds, more than 0")

    assignees = options["assignees"]
    if assignees is not None and (
        not isinstance(assignees, list | tuple) or not all(isinstance(each, str) for each in assignees)
    ):
        raise InterruptError(f"pause_for({kind!r}): assignees={assignees!r}: expected a list of names")

    try:
        schema = None if options["schema"] is None else schema_of(options["schema"])
        payload = copy_value(options["payload"], "payload")
        on_expire = options["on_expire"]
        if on_expire.__class__ is not str or on_expire not in _EXPIRY_WORDS:
            on_expire = _checked_expiry(f"pause_for({kind!r})", on_expire, schema)
    except (UnencodableValue, TypeError) as exc:
        raise InterruptError(f"pause_for({kind!r}): {exc}") from exc

    checked = {
        "type": kind,
        "payload": payload,
        "resume_to": options["resume_to"],
        "resume_event": options["resume_event"],
        "interrupt_id": interrupt_id,
    }
    if schema is not None:
        checked["schema"] = schema

    if expires_in is not None:
        checked["expires_us"] = now_us + round(expires_in * 1e6)
        checked["on_expire"] = on_expire

    if assignees is not None:
        checked["assignees"] = list(assignees)

    return checked


def _checked_expiry(where: str, how: Any, schema: Any) -> Any:
    if isinstance(how, str) and how in _EXPIRY_WORDS:
        return how

    if isinstance(how, dict) and set(how) == {"event"} and isinstance(how["event"], str) and how["event"]:
        return dict(how)

    if isinstance(how, dict) and set(how) == {"value"}:
        problem = check_value(schema, how["value"]) if schema is not None else None
        if problem:
            raise InterruptError(f"{where}: the value of on_expire does not fit the schema: {problem}")

        return {"value": copy_value(how["value"], "on_expire.value")}

    raise InterruptError(
        f'{where}: on_expire={how!r}: expected "cancel", "fail", {{"value": ...}} or {{"event": "Name"}}'
    )
