"""Requests from other processes: what an execution does with the rows of its inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowdeck.execution.control import InboxRow
from flowdeck.execution.interventions import InterventionMixin
from flowdeck.execution.values import copy_loosely

__all__ = ["InboxMixin"]

_EARLY_LIMIT: Final = 1_000
"""Answers kept for interrupts that do not exist yet; more would be a mistake, or an attack."""


class InboxMixin(InterventionMixin):
    """The part of an execution that takes requests from outside. Every row is applied once, on its own loop."""

    if TYPE_CHECKING:  # supplied by the other parts
        _cancel_reason: str | None

        def _record_lifecycle(self) -> None: ...
        def _services_task(self, coroutine: Any) -> None: ...
        def emit_nowait(self, event: str, value: Any = None) -> None: ...
        async def async_cancel(self, *, reason: str = "cancelled") -> dict[str, Any]: ...

    def deliver(self, row: InboxRow) -> None:
        """Take a request out of the inbox. Called from the control plane's thread."""
        loop = self._driver.loop
        if loop is None or loop.is_closed():
            self._ack(row, "rejected", "the execution has no running event loop")
        else:
            loop.call_soon_threadsafe(self._apply, row)

    def _apply(self, row: InboxRow) -> None:
        log = self._log
        if log is not None:
            if log.error is not None:
                return  # whoever owns the run now is handed the row

            if row.id in log.rows and log.rows[row.id][0] != "early":
                self._tell_ack(row.id, *log.rows[row.id])  # applied before the crash, acknowledged never
                return

        try:
            outcome, detail = self._applied(row)
        except Exception as exc:
            outcome, detail = "rejected", f"{type(exc).__name__}: {exc}"

        self._ack(row, outcome, detail)

    def _applied(self, row: InboxRow) -> tuple[str, str | None]:
        if row.kind == "resume":
            return self._applied_answer(row)

        if self._lifecycle == "closed":
            return "rejected", "the execution is closed"

        if row.kind == "emit" and row.target:
            if self._lifecycle != "open":
                return "rejected", f"the execution is {self._lifecycle}"

            self.emit_nowait(row.target, row.payload)
            return "applied", None

        if row.kind == "intervene":
            return self._applied_intervention(row)

        if row.kind == "cancel":
            reason = f"cancelled by {row.actor or 'an operator'}"
            if self._driver.gate is not None:  # the row counts as applied from now on, also after a crash
                self._cancelled, self._cancel_reason = True, reason
                self._record_lifecycle()

            self._services_task(self.async_cancel(reason=reason))
            return "applied", None

        if row.kind == "timer":
            return self._applied_timer(row)

        if row.kind == "start":
            return "conflict", "it was started before"

        return "rejected", f"an execution of this version does not understand {row.kind!r}"

    def _applied_timer(self, row: InboxRow) -> tuple[str, str | None]:
        """A clock outside says that an interrupt's time has come."""
        interrupt = self._core.interrupts.get(row.target or "")
        if interrupt is None:
            return "rejected", f"no interrupt {row.target!r} is or was open"

        if interrupt.status == "expired":
            return "expired", "it had expired"

        if interrupt.status != "waiting":
            return "conflict", f"answered by {interrupt.actor or 'somebody'} before"

        if interrupt.frame is not None:
            return "rejected", "it belongs to a sub flow, which keeps its own time; answer it, or cancel the execution"

        self._disarm(interrupt.id)
        self._expire(interrupt)
        return "applied", None

    def _applied_answer(self, row: InboxRow) -> tuple[str, str | None]:
        target = row.target or ""
        interrupt = self._core.interrupts.get(target)
        if interrupt is None:
            if self._lifecycle != "open":
                return "rejected", f"the execution is {self._lifecycle}"

            early = self._core.early
            if target not in early and len(early) >= _EARLY_LIMIT:
                return "rejected", f"{_EARLY_LIMIT} early answers are kept already"

            if target in early:
                if early[target][2] == row.id:
                    return "early", "kept until the interrupt is raised"  # handed over again after a restart

                return "conflict", "another early answer is kept already"

            self._core.keep_early(target, [row.payload, row.actor, row.id])
            return "early", "kept until the interrupt is raised"

        if interrupt.status == "expired":
            return "expired", "it had expired"

        if interrupt.status != "waiting":
            return "conflict", f"answered by {interrupt.actor or 'somebody'} before"

        if self._lifecycle != "open":
            return "rejected", f"the execution is {self._lifecycle}"

        self._answer(interrupt.id, row.payload, row.actor)
        self._driver.drain()
        self._on_idle()
        return "applied", None

    def _ack(self, row: InboxRow, outcome: str, detail: str | None) -> None:
        if self._log is not None:
            self._log.row(row.id, row.kind, row.target, row.actor, outcome, detail)

        self._tell_applied(row.kind, row.target, row.actor, outcome, detail, row.payload)
        self._tell_ack(row.id, outcome, detail)

    def _tell_ack(self, row_id: int, outcome: str, detail: str | None) -> None:
        if self._services.control is not None:
            self._services.control.ack(row_id, outcome, detail)

    def _settled_row(
        self, row: int, target: str, actor: str | None, outcome: str, detail: str | None, value: Any
    ) -> None:
        """What became of a row that was acknowledged as early."""
        if self._log is not None and row:
            self._log.row(row, "resume", target, actor, outcome, detail)

        self._tell_applied("resume", target, actor, outcome, detail, value)
        self._tell_ack(row, outcome, detail)

    def _tell_applied(
        self, kind: str, target: str | None, actor: str | None, outcome: str, detail: str | None, asked: Any = None
    ) -> None:
        payload = {"kind": kind, "target": target, "actor": actor, "outcome": outcome, "detail": detail}
        if asked is not None and self._events.inbox_applied.sinks:
            payload["payload"] = copy_loosely(asked)  # the flow may change its own

        self._emit_event(self._events.inbox_applied, payload)
