"""Workspaces: the evidence and the products of tasks. See :mod:`flowdeck.workspace.workspace`."""

from flowdeck.errors import (
    WorkspaceConfigurationError,
    WorkspaceContentError,
    WorkspaceError,
    WorkspacePolicyError,
    WorkspaceRecordNotFound,
)
from flowdeck.workspace.in_flow import FlowWorkspace
from flowdeck.workspace.manager import WorkspaceManager
from flowdeck.workspace.profiles import IngestionProfile, RecallProfile
from flowdeck.workspace.workspace import Workspace

__all__ = [
    "FlowWorkspace",
    "IngestionProfile",
    "RecallProfile",
    "Workspace",
    "WorkspaceConfigurationError",
    "WorkspaceContentError",
    "WorkspaceError",
    "WorkspaceManager",
    "WorkspacePolicyError",
    "WorkspaceRecordNotFound",
]
