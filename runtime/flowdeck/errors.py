"""Every error Flowdeck raises on purpose, as one tree.

* FlowdeckError
  * DefinitionError (ValueError): a flow is declared wrongly; raised where it is declared, names the operator
    * BlockError (NotImplementedError): an ``end_*``/``case`` without its opening operator
    * ConfigError: a flow config cannot be read, or a flow cannot be written as one
      * ConfigVersionError: it was written in another version of the format
      * HandlerNotRegistered (LookupError): it names a handler or condition nobody has registered
  * ActionDefinitionError (ValueError, TypeError): an action or an environment is declared wrongly
  * ExecutionError: a run cannot do what was asked of it
    * ExecutionFenced (RuntimeError): another process has taken the execution over
    * ExecutionBusy (RuntimeError): another process runs the execution
    * ExecutionExists (ValueError): there is an execution of that id already
    * ExecutionNotFound (KeyError): the store has no execution of that id
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
    * ContractError (ValueError): a value does not fit the flow's contract; carries the part and the report
    * InterventionError (RuntimeError): the execution takes no interventions, now or at all
      * InterventionNotFound (KeyError)
      * InterventionSettled (ValueError): it was inserted, rejected or expired before
      * InterventionPolicyError: a policy raised, or selected what is not there; only ever seen in an event
    * ActionError: an action cannot be had or planned; calls themselves never raise, they return a record
      * ActionNotFound (KeyError, ValueError): no action of that id
    * ExecutionEnvironmentError (RuntimeError): an environment cannot be had; carries ``code`` and ``payload``
      * ExecutionEnvironmentApprovalRequired: a person must allow it and nobody was asked
      * ExecutionEnvironmentApprovalDenied (PermissionError): it was not allowed
      * ExecutionEnvironmentTimeout (TimeoutError): what ran in it took too long and was killed
      * ExecutionEnvironmentRefused (PermissionError): its policy does not allow that command, path or query
    * ModelError (RuntimeError): a model could not be asked, or did not answer; ``retryable`` ones are tried again
      * ModelNotConfigured (ValueError): no model was named, or its provider cannot be had
      * ModelUnreachable (ConnectionError): its server cannot be reached
      * ModelStreamCut (ConnectionError): the answer ended before its end
      * ModelTimeout (TimeoutError): it took too long
      * ModelRateLimited: too many requests; carries ``retry_after``
      * ModelServerFailed: the provider failed (HTTP 5xx)
      * ModelAuthenticationFailed (PermissionError): the key is missing or wrong
      * ModelRequestRefused (ValueError): the provider refuses the request (HTTP 4xx)
      * ModelProtocolError: what came is no answer
      * ModelOutputError (ValueError): the answer is not what was asked for; carries ``reason`` and the text
  * EvalError: an evaluation cannot be done as asked
    * SuiteError (ValueError): a suite file is wrong; carries every problem with its file and line
  * SessionError (ValueError): a session, its store or a handler cannot be used as asked
  * WorkspaceError: a workspace cannot do what was asked of it
    * WorkspaceConfigurationError (ValueError): it cannot be opened, or a profile, a filter or a budget is none
    * WorkspacePolicyError (PermissionError): a path leads out of it, or it is read-only
    * WorkspaceRecordNotFound (FileNotFoundError): it has no such record or file
    * WorkspaceContentError (ValueError): a content cannot be stored, or is not what was stored

InterventionTargetWarning (RuntimeWarning) is warned of when nothing in the flow has an intervention's target.

CycleWarning (UserWarning) is warned of when one function used twice in a chain leads back into its own step.

Each class also derives from the built-in that a caller of the compatible API expects to catch.
"""

from __future__ import annotations

from flowdeck._error_docs import page_of

__all__ = [
    "ActionDefinitionError",
    "ActionError",
    "ActionNotFound",
    "BindingError",
    "BlockError",
    "ConfigError",
    "ConfigVersionError",
    "ContractError",
    "CycleWarning",
    "DefinitionError",
    "EmitDepthExceeded",
    "EvalError",
    "ExecutionBusy",
    "ExecutionEnvironmentApprovalDenied",
    "ExecutionEnvironmentApprovalRequired",
    "ExecutionEnvironmentError",
    "ExecutionEnvironmentRefused",
    "ExecutionEnvironmentTimeout",
    "ExecutionError",
    "ExecutionExists",
    "ExecutionFenced",
    "ExecutionNotFound",
    "FlowdeckError",
    "HandlerDiverged",
    "HandlerFailed",
    "HandlerNotRegistered",
    "HiddenHandleError",
    "InterruptError",
    "InterruptExpired",
    "InterruptNotFound",
    "InterventionError",
    "InterventionNotFound",
    "InterventionPolicyError",
    "InterventionSettled",
    "InterventionTargetWarning",
    "MissingResource",
    "ModelAuthenticationFailed",
    "ModelError",
    "ModelNotConfigured",
    "ModelOutputError",
    "ModelProtocolError",
    "ModelRateLimited",
    "ModelRequestRefused",
    "ModelServerFailed",
    "ModelStreamCut",
    "ModelTimeout",
    "ModelUnreachable",
    "PendingInterruptsError",
    "SessionError",
    "SnapshotError",
    "SuiteError",
    "UnencodableValue",
    "WorkspaceConfigurationError",
    "WorkspaceContentError",
    "WorkspaceError",
    "WorkspacePolicyError",
    "WorkspaceRecordNotFound",
]


class FlowdeckError(Exception):
    """Base of every error Flowdeck raises on purpose."""

    @property
    def docs(self) -> str:
        """Where the documents tell more: ``page#heading``, which ``flowdeck docs`` prints."""
        return page_of(type(self)) or ""


class _NotThere(KeyError):
    """A key error that shows its message as it is; the built-in one shows it in quotes."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DefinitionError(FlowdeckError, ValueError):
    """A flow is declared wrongly. The message names the operator."""


class BlockError(DefinitionError, NotImplementedError):
    """A block is closed, or a case is opened, outside the block it belongs to."""


class ConfigError(DefinitionError):
    """A flow config cannot be read, or a flow cannot be written as one. The message names the operator."""


class ConfigVersionError(ConfigError):
    """A flow config was written in another version of the format than this one reads."""


class HandlerNotRegistered(ConfigError, LookupError):
    """A flow config names a handler or a condition that nobody has registered under that name."""


class CycleWarning(UserWarning):
    """A function used twice in a chain is one step, so the chain leads back into it; names both places."""


class ExecutionError(FlowdeckError):
    """A run cannot do what was asked of it."""


class ExecutionFenced(ExecutionError, RuntimeError):
    """Another process has taken the execution over: nothing this one does reaches it any more."""


class ExecutionBusy(ExecutionError, RuntimeError):
    """Another process runs the execution, so it cannot be taken up here."""


class ExecutionExists(ExecutionError, ValueError):
    """The store has an execution of that id already."""


class ExecutionNotFound(ExecutionError, _NotThere):
    """The store has no execution of that id."""


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


class InterruptNotFound(InterruptError, _NotThere):
    """No interrupt of that id belongs to the execution."""


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


class MissingResource(ExecutionError, _NotThere):
    """A runtime resource was asked for that nobody injected."""


class BindingError(ExecutionError, _NotThere):
    """A path that a sub flow captures or writes back leads nowhere. The message names the operator and the path."""


class ContractError(ExecutionError, ValueError):
    """A value does not fit the flow's contract.

    Attributes:
        part: ``initial_input``, ``stream`` or ``result``.
        problems: what is wrong, each with its place.
    """

    def __init__(self, flow_name: str, part: str, label: str, problems: list[str]) -> None:
        self.part = part
        self.problems = problems
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        super().__init__(f"flow {flow_name!r}: {part} does not fit its contract ({label}): {shown}")


class InterventionError(ExecutionError, RuntimeError):
    """The execution takes no interventions: they are disabled, it is sealed or closed, or too many are pending."""


class InterventionNotFound(InterventionError, _NotThere):
    """No intervention of that id belongs to the execution."""


class InterventionSettled(InterventionError, ValueError):
    """The intervention is not pending any more."""


class InterventionPolicyError(InterventionError):
    """A policy raised, or selected what is not there. The flow goes on; the event carries this."""


class InterventionTargetWarning(RuntimeWarning):
    """Nothing in the flow has an intervention's target, so it will expire unseen."""


class ActionDefinitionError(FlowdeckError, ValueError, TypeError):
    """An action, or an execution environment, is declared wrongly. The message names it."""


class ActionError(ExecutionError):
    """An action cannot be planned or had. A call itself never raises: its record says what went wrong."""


class ActionNotFound(ActionError, _NotThere, ValueError):
    """No action of that id is registered. The message lists those that are."""


class ExecutionEnvironmentError(ExecutionError, RuntimeError):
    """An execution environment cannot be had.

    Attributes:
        code: stable, such as ``execution_environment.provider_missing``.
        payload: the requirement's id, kind and policy, and more by code.
    """

    code = "execution_environment.error"

    def __init__(self, message: str, *, code: str | None = None, payload: dict[str, object] | None = None) -> None:
        self.code = code or type(self).code
        self.payload = payload or {}
        super().__init__(message)


class ExecutionEnvironmentApprovalRequired(ExecutionEnvironmentError):
    """A person must allow the environment, and no decision handler is set."""

    code = "execution_environment.approval_required"


class ExecutionEnvironmentApprovalDenied(ExecutionEnvironmentError, PermissionError):
    """The environment was not allowed."""

    code = "execution_environment.approval_denied"


class ExecutionEnvironmentTimeout(ExecutionEnvironmentError, TimeoutError):
    """What ran in the environment took longer than its policy's ``timeout_seconds`` and was killed."""

    code = "execution_environment.timeout"


class ExecutionEnvironmentRefused(ExecutionEnvironmentError, PermissionError):
    """The environment's policy does not allow that command, path or query."""

    code = "execution_environment.refused"


class ModelError(ExecutionError, RuntimeError):
    """A model could not be asked, or did not answer.

    Attributes:
        status: the HTTP status, where there was one.
        retry_after: seconds the provider asks to wait.
        model: the model's name.
    """

    retryable = False
    """Whether another attempt may go better."""

    def __init__(
        self, message: str, status: int | None = None, retry_after: float | None = None, model: str = ""
    ) -> None:
        super().__init__(message, status, retry_after, model)  # so that a recording can make it anew
        self.status = status
        self.retry_after = retry_after
        self.model = model

    def __str__(self) -> str:
        return str(self.args[0])


class ModelNotConfigured(ModelError, ValueError):
    """No model was named, or its provider cannot be had. The message says how to name one."""


class ModelUnreachable(ModelError, ConnectionError):
    """The model's server cannot be reached."""

    retryable = True


class ModelStreamCut(ModelError, ConnectionError):
    """The answer ended before its end: the connection was lost, or the server stopped without a finish reason."""

    retryable = True


class ModelTimeout(ModelError, TimeoutError):
    """The model took too long."""

    retryable = True


class ModelRateLimited(ModelError):
    """Too many requests. ``retry_after`` is what the provider asks for."""

    retryable = True


class ModelServerFailed(ModelError):
    """The provider failed, with an HTTP status from 500 on."""

    retryable = True


class ModelAuthenticationFailed(ModelError, PermissionError):
    """The key is missing, wrong, or not allowed to do that."""


class ModelRequestRefused(ModelError, ValueError):
    """The provider refuses the request as it is: an unknown model, a wrong option, too long a prompt."""


class ModelProtocolError(ModelError):
    """What came is no answer of the provider's protocol."""

    retryable = True


class ModelOutputError(ModelError, ValueError):
    """The answer is not what was asked for, after all attempts.

    Attributes:
        reason: ``parse``, ``schema``, ``ensure_keys`` or ``validation``.
        text: the last answer.
        attempts: how many there were.
    """

    def __init__(self, message: str, reason: str = "parse", text: str = "", attempts: int = 1, model: str = "") -> None:
        super().__init__(message, None, None, model)
        self.args = (message, reason, text, attempts, model)
        self.reason = reason
        self.text = text
        self.attempts = attempts


class EvalError(FlowdeckError):
    """An evaluation cannot be done as asked. The message names the thing and the mend."""


class SuiteError(EvalError, ValueError):
    """A suite file is wrong. ``problems`` are lines ``file:line: what``, all of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class SessionError(FlowdeckError, ValueError):
    """A session cannot be read, kept or resized as asked. The message names it."""


class WorkspaceError(FlowdeckError):
    """A workspace cannot do what was asked of it. The message names its directory."""


class WorkspaceConfigurationError(WorkspaceError, ValueError):
    """A workspace cannot be opened, or a profile, a filter, a mode or a budget is none."""


class WorkspacePolicyError(WorkspaceError, PermissionError):
    """A path leads out of the workspace, or the workspace is read-only."""


class WorkspaceRecordNotFound(WorkspaceError, FileNotFoundError):
    """The workspace has no such record or file."""


class WorkspaceContentError(WorkspaceError, ValueError):
    """A content cannot be stored, or what is there is not what was stored."""
