"""Actions: what a flow or an agent can do in the world. See :mod:`flowdeck.actions.runtime`."""

from flowdeck.actions.artifacts import ArtifactStore, FileArtifacts
from flowdeck.actions.context import ActionContext, current_action
from flowdeck.actions.loop import ActionLoop
from flowdeck.actions.registry import ActionPackage, ActionRegistry
from flowdeck.actions.runtime import ActionRuntime
from flowdeck.actions.spec import ActionExecutor, ActionSpec
from flowdeck.errors import ActionDefinitionError, ActionError, ActionNotFound

__all__ = [
    "ActionContext",
    "ActionDefinitionError",
    "ActionError",
    "ActionExecutor",
    "ActionLoop",
    "ActionNotFound",
    "ActionPackage",
    "ActionRegistry",
    "ActionRuntime",
    "ActionSpec",
    "ArtifactStore",
    "FileArtifacts",
    "current_action",
]
