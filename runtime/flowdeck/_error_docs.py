"""Where the documents tell more about an error: the page, and the heading on it.

By name and for all four components, so that whoever has nothing but a traceback can ask too, and nothing has to be
imported for it: ``flowdeck docs ExecutionFenced``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BELOW", "PAGES", "page_of"]

PAGES: Final = {
    "FlowdeckError": "operations#when-something-is-wrong",
    # flows
    "DefinitionError": "concepts#flow-execution-attempt",
    "CycleWarning": "concepts#flow-execution-attempt",
    "ConfigError": "blueprints#errors",
    "ContractError": "contracts#contracts",
    "MissingResource": "contracts#resources",
    "UnencodableValue": "contracts#resources",
    "BindingError": "compatibility#execution-state-and-stream",
    "EmitDepthExceeded": "compatibility#execution-state-and-stream",
    # executions
    "ExecutionError": "concepts#status",
    "ExecutionFenced": "durable#what-is-promised",
    "ExecutionBusy": "durable#what-is-promised",
    "ExecutionExists": "durable#from-code",
    "ExecutionNotFound": "durable#from-any-terminal",
    "AmbiguousExecution": "durable#from-any-terminal",
    "HandlerDiverged": "durable#what-is-promised",
    "HandlerFailed": "concepts#status",
    "SnapshotError": "durable#taking-up",
    # people
    "InterruptError": "durable#from-any-terminal",
    "InterruptExpired": "compatibility#pause-resume-and-saving",
    "PendingInterruptsError": "compatibility#pause-resume-and-saving",
    "HiddenHandleError": "compatibility#pause-resume-and-saving",
    "InterventionError": "interventions#errors",
    "InterventionTargetWarning": "interventions#what-becomes-of-one",
    # actions, models, agents
    "ActionDefinitionError": "actions#registering",
    "ActionError": "actions#calling",
    "ActionNotFound": "actions#registering",
    "ExecutionEnvironmentError": "actions#execution-environments",
    "ModelError": "agents#when-it-goes-wrong",
    "ModelNotConfigured": "agents#naming-a-model",
    "SessionError": "agents#sessions",
    "WorkspaceError": "workspace#records",
    # observing
    "InvalidEvent": "reference/events#catalogue",
    "UnlistedEvent": "reference/events#catalogue",
    "SinkNotAvailable": "watching",
    "StoreError": "store#when-something-looks-wrong",
    "StoreNotFound": "store",
    "StoreBusy": "operations#when-something-is-wrong",
    "ExportRefused": "store#taking-events-elsewhere",
    "ImportRefused": "store#taking-events-elsewhere",
    "LakeUnavailable": "scale#events-of-many-machines",
    "QueryRefused": "sql#what-is-refused",
    "FilterError": "reference/filters",
    "SourceError": "devtools#several-stores",
    "ServeError": "devtools#in-a-browser",
    "ExportStalled": "otlp#when-the-collector-is-away",
    "BadRequest": "otlp#receiving-other-programs-in-the-same-store",
    "CollectError": "otlp#receiving-other-programs-in-the-same-store",
    "Problem": "web",
    # evaluations
    "EvalError": "evals#running",
    "SuiteError": "evals#a-suite",
    "BadTape": "evals#replay",
    "NotWhole": "evals#on-several-machines",
    "NoSuchRun": "evals#cases-from-production",
    "RunNotKept": "evals#cases-from-production",
    # the command line
    "CliError": "reference/commands",
}
"""Name of a class, for those below it too -> ``page#heading`` (``page`` where all of it is about the error)."""

BELOW: Final = {
    "AmbiguousInterrupt": "InterruptError",
    "BlockNotFound": "DefinitionError",
    "BlockedVersion": "SnapshotError",
    "DuckDBMissing": "StoreError",
    "GivenUp": "StoreError",
    "StoreDamaged": "StoreError",
    "StoreForeign": "StoreError",
    "StoreFull": "StoreError",
    "StoreIsFile": "StoreError",
    "StorePermission": "StoreError",
    "StoreTooNew": "StoreError",
    "StoreTooOld": "StoreError",
    "StoreUnreachable": "StoreBusy",
}
"""Those without a page of their own that are not in ``flowdeck.errors`` -> the nearest class above that has one."""


def page_of(kind: type[BaseException]) -> str | None:
    """Return the page of a class, or of the nearest class above it that has one."""
    return next((PAGES[each.__name__] for each in kind.__mro__ if each.__name__ in PAGES), None)
