"""Emitters: an event source with a name, base meta and level helpers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.events.intake import make_record
from flowdeck.events.lineage import RunContext
from flowdeck.events.record import EventRecord

if TYPE_CHECKING:
    from flowdeck.events.center import EventCenter

__all__ = ["Emitter"]


class Emitter:
    """Emits events under one source. Made by :meth:`EventCenter.create_emitter`; source: seed 004.

    ``meta`` of a call lies over ``base_meta``; ``run`` falls back to ``base_run``, then to the current run. Nothing
    raises: a bad event is quarantined.
    """

    def __init__(
        self,
        center: EventCenter,
        source: str,
        *,
        base_meta: Mapping[str, Any] | None = None,
        base_run: RunContext | None = None,
    ) -> None:
        self._center = center
        self.source = source
        self.base_meta: dict[str, Any] = dict(base_meta or {})
        self.base_run = base_run

    def update_base_meta(self, meta: Mapping[str, Any]) -> None:
        """Merge ``meta`` into the base meta of the events to come."""
        self.base_meta.update(meta)

    async def async_emit(
        self,
        event_type: str,
        *,
        level: str = "INFO",
        message: str | None = None,
        payload: Any = None,
        error: Any = None,
        run: RunContext | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Emit one event and return after the matching hooks ran."""
        record = self._record(event_type, level, message, payload, error, run, meta)
        if record is not None:
            await self._center.async_emit(record)

    def emit(
        self,
        event_type: str,
        *,
        level: str = "INFO",
        message: str | None = None,
        payload: Any = None,
        error: Any = None,
        run: RunContext | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Synchronous twin of :meth:`async_emit`."""
        record = self._record(event_type, level, message, payload, error, run, meta)
        if record is not None:
            self._center.emit(record)

    async def async_debug(self, message: Any, *, event_type: str = "runtime.debug", **more: Any) -> None:
        """Emit ``message`` at DEBUG."""
        await self.async_emit(event_type, level="DEBUG", message=str(message), **more)

    async def async_info(self, message: Any, *, event_type: str = "runtime.info", **more: Any) -> None:
        """Emit ``message`` at INFO."""
        await self.async_emit(event_type, level="INFO", message=str(message), **more)

    async def async_warning(self, message: Any, *, event_type: str = "runtime.warning", **more: Any) -> None:
        """Emit ``message`` at WARNING."""
        await self.async_emit(event_type, level="WARNING", message=str(message), **more)

    async def async_error(
        self, error: Any, *, event_type: str = "runtime.error", message: str | None = None, **more: Any
    ) -> None:
        """Emit ``error`` (an exception or a text) at ERROR; the message defaults to its text."""
        problem = _as_exception(error)
        await self.async_emit(event_type, level="ERROR", message=message or str(problem), error=problem, **more)
        self._after("ERROR", problem)

    async def async_critical(
        self, error: Any, *, event_type: str = "runtime.critical", message: str | None = None, **more: Any
    ) -> None:
        """Emit ``error`` (an exception or a text) at CRITICAL; the message defaults to its text."""
        problem = _as_exception(error)
        await self.async_emit(event_type, level="CRITICAL", message=message or str(problem), error=problem, **more)
        self._after("CRITICAL", problem)

    def debug(self, message: Any, *, event_type: str = "runtime.debug", **more: Any) -> None:
        """Emit ``message`` at DEBUG."""
        self.emit(event_type, level="DEBUG", message=str(message), **more)

    def info(self, message: Any, *, event_type: str = "runtime.info", **more: Any) -> None:
        """Emit ``message`` at INFO."""
        self.emit(event_type, level="INFO", message=str(message), **more)

    def warning(self, message: Any, *, event_type: str = "runtime.warning", **more: Any) -> None:
        """Emit ``message`` at WARNING."""
        self.emit(event_type, level="WARNING", message=str(message), **more)

    def error(self, error: Any, *, event_type: str = "runtime.error", message: str | None = None, **more: Any) -> None:
        """Emit ``error`` (an exception or a text) at ERROR; the message defaults to its text."""
        problem = _as_exception(error)
        self.emit(event_type, level="ERROR", message=message or str(problem), error=problem, **more)
        self._after("ERROR", problem)

    def critical(
        self, error: Any, *, event_type: str = "runtime.critical", message: str | None = None, **more: Any
    ) -> None:
        """Emit ``error`` (an exception or a text) at CRITICAL; the message defaults to its text."""
        problem = _as_exception(error)
        self.emit(event_type, level="CRITICAL", message=message or str(problem), error=problem, **more)
        self._after("CRITICAL", problem)

    def _record(
        self,
        event_type: str,
        level: str,
        message: str | None,
        payload: Any,
        error: Any,
        run: RunContext | None,
        meta: Mapping[str, Any] | None,
    ) -> EventRecord | None:
        try:
            return make_record(
                event_type,
                level=level,
                source=self.source,
                message=message,
                payload=payload,
                error=error,
                run=run if run is not None else self.base_run,
                meta={**self.base_meta, **meta} if meta else self.base_meta,
            )
        except Exception as problem:
            self._refused(
                {"event_type": event_type, "level": level, "message": message, "source": self.source}, problem
            )
            return None

    def _refused(self, event: dict[str, Any], problem: Exception) -> None:
        """What becomes of a bad event. The compatible emitter raises here."""
        self._center.quarantine_event(event, problem)

    def _after(self, level: str, problem: BaseException) -> None:
        """Called once an error event is delivered. The compatible emitter re-raises here."""


def _as_exception(error: Any) -> BaseException:
    return error if isinstance(error, BaseException) else RuntimeError(str(error))
