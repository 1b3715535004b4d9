"""Every error Flowdeck raises on purpose, as one tree.

* FlowdeckError
  * DefinitionError (ValueError): a flow is declared wrongly; raised where it is declared, names the operator
    * BlockError (NotImplementedError): an ``end_*``/``case`` without its opening operator
  * ExecutionError: a run cannot do what was asked of it
    * UnencodableValue (TypeError): a value that cannot be stored; carries the key path
    * PendingInterruptsError (RuntimeError): closing while people still owe an answer
    * InterruptError (ValueError): an interrupt is unknown, answered already, or declared wrongly
      * InterruptNotFound (KeyError)
    * InterruptExpired (TimeoutError): nobody answered in time and on_expire="fail"
    * HiddenHandleError (RuntimeError): a pause in an execution nobody holds a handle of
    * EmitDepthExceeded (RecursionError): awaited emits nested too deeply
    * HandlerDiverged (RuntimeError): a re-run did not repeat its committed effects
    * HandlerFailed (RuntimeError): a failure that was read back from a snapshot
    * SnapshotError (ValueError): a saved state cannot be loaded
    * MissingResource (KeyError): a runtime resource a handler needs was not injected
    * BindingError (KeyError): what a sub flow captures or writes back is not there

Each class also derives from the built-in that a caller of the compatible API expects to catch.
"""

from __future__ import annotations

__all__ = [
    "BindingError",
    "BlockError",
    "DefinitionError",
    "EmitDepthExceeded",
    "ExecutionError",
    "FlowdeckError",
    "HandlerDiverged",
    "HandlerFailed",
    "HiddenHandleError",
    "InterruptError",
    "InterruptExpired",
    "InterruptNotFound",
    "MissingResource",
    "PendingInterruptsError",
    "SnapshotError",
    "UnencodableValue",
]


class FlowdeckError(Exception):
    """Base of every error Flowdeck raises on purpose."""


class DefinitionError(FlowdeckError, ValueError):
    """A flow is declared wrongly. The message names the operator."""


class BlockError(DefinitionError, NotImplementedError):
    """A block is closed, or a case is opened, outside the block it belongs to."""


class ExecutionError(FlowdeckError):
    """A run cannot do what was asked of it."""


class UnencodableValue(ExecutionError, TypeError):
    """A value cannot be stored. ``path`` is the key path from the value's root."""

    def __init__(self, path: str, value: object, hint: str = "") -> None:
        self.path = path
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        text = f"{path or 'value'}: {kind} cannot be stored in execution state"
        super().__init__(f"{text}; {hint}" if hint else text)


class PendingInterruptsError(ExecutionError, RuntimeError):
    """An execution was asked to close while interrupts wait for an answer."""

    def __init__(self, execution_id: str, interrupt_ids: list[str]) -> None:
        self.execution_id = execution_id
        self.interrupt_ids = interrupt_ids
        super().__init__(
            f"execution {execution_id} still waits for {len(interrupt_ids)} interrupt(s): "
            f"{', '.join(interrupt_ids)}. Answer them with continue_with(id, value), "
            'or give them up with close(pending_interrupts="cancel").'
        )


class InterruptError(ExecutionError, ValueError):
    """An interrupt was declared wrongly, or is not waiting any more."""


class InterruptNotFound(InterruptError, KeyError):
    """No interrupt of that id belongs to the execution."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class InterruptExpired(ExecutionError, TimeoutError):
    """Nobody answered an interrupt in time, and its ``on_expire`` is ``"fail"``."""


class HiddenHandleError(ExecutionError, RuntimeError):
    """A chunk paused in an execution whose handle nobody holds, so nobody could continue it."""


class EmitDepthExceeded(ExecutionError, RecursionError):
    """Awaited emits were nested deeper than the limit of 1,000."""


class HandlerDiverged(ExecutionError, RuntimeError):
    """A handler re-run after a crash did not repeat the emits or pauses it had already committed."""


class HandlerFailed(ExecutionError, RuntimeError):
    """A handler's failure that was read back from saved state, where the exception object is gone."""


class SnapshotError(ExecutionError, ValueError):
    """A saved state cannot be loaded. The message lists what is missing or wrong."""


class MissingResource(ExecutionError, KeyError):
    """A runtime resource was asked for that nobody injected."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BindingError(ExecutionError, KeyError):
    """A path that a sub flow captures or writes back leads nowhere. The message names the operator and the path."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
