"""Saving an execution, loading it again, and going on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowdeck.execution.hosting import HostedMixin
from flowdeck.execution.snapshot import load_state, save_state

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["SavingMixin"]


class SavingMixin(HostedMixin):
    """The part of an execution that outlives its process."""

    _definition: Any
    _entrypoint: str | None

    if TYPE_CHECKING:  # supplied by the execution itself

        def _register(self) -> None: ...

    def save(self, path: Any = None, *, encoding: str = "utf-8", require_idle: bool = False) -> dict[str, Any]:
        """Return the state as JSON-safe data, and write it to ``path`` (``.json``, ``.yaml`` or ``.yml``) if given.

        Raises:
            UnencodableValue: a signal's value cannot be stored; names the operator and the key path.
            RuntimeError: ``require_idle`` and something is running.
        """
        return save_state(self._self(), path, encoding, require_idle)

    def load(
        self, state: Any, *, encoding: str = "utf-8", runtime_resources: Mapping[str, Any] | None = None
    ) -> TriggerFlowExecution:
        """Take over a saved state: a dict, a path, or JSON or YAML text.

        What was running when it was saved runs again, with its committed effects skipped, as soon as the execution is
        used: continued, emitted to, closed, or told to :meth:`async_recover`.

        Raises:
            SnapshotError: the state is too new, altered, incomplete, or made by an incompatible definition.
        """
        if runtime_resources:
            self._own_resources().update(runtime_resources)

        old_id = self.id
        load_state(self._self(), state, encoding)
        if self._definition is not None:
            self._definition.rekey_execution(old_id, self._self())

        self._restored = True
        return self._self()

    async def async_recover(self) -> TriggerFlowExecution:
        """After :meth:`load`: let what was running go on, and return once everything has finished or paused.

        Raises:
            Exception: whatever a chunk raised meanwhile and nobody caught.
        """
        if self._lease is not None:
            await self._lease.open(self)

        self._bind()
        await self._driver.idle(self._driver.own_branches())
        self._on_idle()
        if self._driver.failure is not None:
            raise self._driver.failure

        return self._self()

    def _take_over(self) -> None:
        if self._lifecycle == "closed":
            return

        self._register()
        origin = self._origin
        if "initial_value" in origin:  # a fork's first life: it has begun with what the other one began with
            known = {"definition": self._plan.fingerprint, "entrypoint": self._entrypoint}
            self._emit_event(self._events.execution_started, {**origin, **known})

        where = {key: origin[key] for key in ("forked_from", "forked_at") if key in origin}
        self._emit_event(self._events.execution_recovered, {"epoch": self._epoch, **where})
        # A store that holds the execution holds its questions; a fork's are new to it.
        told = self._log is not None and self._log.seq > 0
        if self._services.control is not None and self._link is None and not told:
            for interrupt in self._core.open_interrupts:
                self._services.control.interrupt_opened(self.id, self._record(interrupt))

        self._arm_all()
        self._arm_deadline()
        for frame in self._frames.values():
            frame.child._bind()

        self._driver.restart()
        self._on_idle()
