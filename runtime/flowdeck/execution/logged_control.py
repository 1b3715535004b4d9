"""The control plane of a durable execution: what it registers is written together with the inputs it follows from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.execution.control import Controlled

if TYPE_CHECKING:
    from flowdeck.execution.input_log import InputLog

__all__ = ["LoggedControl"]


class LoggedControl:
    """A control plane whose changes are written together with the inputs they follow from."""

    __slots__ = ("_log",)

    def __init__(self, log: InputLog) -> None:
        self._log = log

    def opened(self, execution: Controlled, info: Mapping[str, Any]) -> None:
        self._log.attach("opened", (execution, dict(info)))

    def status(self, execution_id: str, status: str) -> None:
        self._log.attach("status", (execution_id, status))

    def interrupt_opened(self, execution_id: str, interrupt: Mapping[str, Any]) -> None:
        self._log.attach("interrupt_opened", (execution_id, interrupt))

    def interrupt_closed(
        self, execution_id: str, interrupt_id: str, status: str, response: Any, actor: str | None
    ) -> None:
        self._log.attach("interrupt_closed", (execution_id, interrupt_id, status, response, actor))

    def ack(self, row_id: int, outcome: str, detail: str | None) -> None:
        self._log.attach("ack", (row_id, outcome, detail))

    def finished(self, execution_id: str, status: str) -> None:
        self._log.attach("finished", (execution_id, status))

    def flush(self, timeout: float) -> bool:
        self._log.flush()
        return True

    def close(self, timeout: float) -> None:
        self._log.flush()
