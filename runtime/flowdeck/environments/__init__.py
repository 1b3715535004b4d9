"""Execution environments: what actions and flows run things in. See :mod:`flowdeck.environments.manager`."""

from flowdeck.environments.manager import ExecutionEnvironmentManager, environments_of
from flowdeck.environments.provider import ExecutionEnvironmentProvider
from flowdeck.errors import (
    ExecutionEnvironmentApprovalDenied,
    ExecutionEnvironmentApprovalRequired,
    ExecutionEnvironmentError,
    ExecutionEnvironmentRefused,
    ExecutionEnvironmentTimeout,
)

__all__ = [
    "ExecutionEnvironmentApprovalDenied",
    "ExecutionEnvironmentApprovalRequired",
    "ExecutionEnvironmentError",
    "ExecutionEnvironmentManager",
    "ExecutionEnvironmentProvider",
    "ExecutionEnvironmentRefused",
    "ExecutionEnvironmentTimeout",
    "environments_of",
]
