"""LoggingSink: events as records of the standard library's logging.

Each event becomes one record of the logger ``flowdeck.observation`` (or another), at the event's level and with its
time: handlers, filters and formatters of the application apply. The text is the console's line without time and level;
``record.flowdeck`` is the whole event as a dict, for JSON formatters. Handlers run on the sink's own thread, so a slow
one never holds a flow up.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from flowdeck.events.record import EventRecord
from flowdeck_sinks._queued import QUEUE_BYTES, QueuedSink
from flowdeck_sinks.console import describe_event, strip_control

__all__ = ["LOGGER", "LoggingSink", "create_sink"]

LOGGER: Final = "flowdeck.observation"
"""The logger events go to unless another is named."""
_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
}
_MISSED: Final = "%d observation events were not logged: a handler was too slow, or failed"
_decode: Final = msgspec.json.Decoder().decode


class LoggingSink(QueuedSink):
    """Logs events.

    Args:
        logger: the logger's name.
        queue_bytes: what may wait for the handlers.
    """

    name = "logging"

    def __init__(self, logger: str = LOGGER, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self.logger = logging.getLogger(logger)
        super().__init__(queue_bytes=queue_bytes)

    def statistics(self) -> dict[str, int | float | str]:
        """Return what was accepted, logged and dropped."""
        return {"logger": self.logger.name, "logged": self._handed_over, **super().statistics()}

    def _wants(self, record: EventRecord) -> int | None:
        level = _LEVELS.get(record.level, logging.INFO)
        return level if self.logger.isEnabledFor(level) else None

    def _hand_over(self, batch: list[tuple[Any, bytes]], missed: int) -> int:
        out = 0
        if missed:
            self._log(self.logger.makeRecord(self.logger.name, logging.WARNING, "", 0, _MISSED, (missed,), None))

        for level, line in batch:
            out += self._log(self._record(level, _decode(line)))

        return out

    def _log(self, record: logging.LogRecord) -> bool:
        try:
            self.logger.handle(record)
        except Exception:  # a handler or filter of the application's that raises
            return False

        return True

    def _record(self, level: int, event: dict[str, Any]) -> logging.LogRecord:
        error = event.get("error") or {}
        record = self.logger.makeRecord(
            self.logger.name, level, str(event.get("source") or ""), 0, "%s", (describe_event(event),), None
        )
        record.created = (event.get("timestamp") or 0) / 1000
        record.msecs = (event.get("timestamp") or 0) % 1000
        record.flowdeck = event
        if error.get("traceback"):
            record.exc_text = strip_control(str(error["traceback"]), lines=True).rstrip()

        return record


def create_sink(target: str | None = None, **options: Any) -> LoggingSink:
    """Return the sink for ``FLOWDECK_SINKS="logging"`` or ``"logging:name.of.a.logger"``.

    Args:
        target: the logger's name, ``flowdeck.observation`` by default.
        options: those of :class:`LoggingSink`.
    """
    return LoggingSink(target or LOGGER, **options)
