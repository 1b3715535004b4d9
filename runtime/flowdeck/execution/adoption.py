"""A replayed run becomes an execution: what the replica's core owns is handed over as it is.

The core is deterministic: what a replay has come to is what the execution would be, had it never left the memory. So
nothing has to be written out and read in again, as long as the definition is the same and no sub flow is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowdeck.errors import MissingResource
from flowdeck.execution.core import Core
from flowdeck.execution.replica import Replica

if TYPE_CHECKING:
    from flowdeck.execution.execution import TriggerFlowExecution

__all__ = ["adopt", "adoptable"]

_OF_THE_PLAN: Final = {"plan", "ops", "out"}
_OWNED: Final = tuple(
    name for part in Core.__mro__ for name in getattr(part, "__slots__", ()) if name not in _OF_THE_PLAN
)
"""Everything a core keeps, but for the definition it stands in and the commands it has given."""


def adoptable(replica: Replica) -> bool:
    """Whether the run stands alone: the executions of sub flows are made by the way every saved state goes."""
    return not replica.root.frames and not replica.root.past_frames


def adopt(execution: TriggerFlowExecution, replica: Replica, epoch: int, resource_keys: list[str]) -> None:
    """Fill a fresh execution of the same definition from a replica that nobody uses any more.

    Raises:
        MissingResource: a runtime resource was not given.
    """
    missing = [key for key in resource_keys if key not in execution._resources]
    if missing:
        raise MissingResource(
            f"execution {execution.id} needs runtime resource(s) {', '.join(map(repr, missing))}; "
            "pass them as runtime_resources= to create_execution() or load()"
        )

    run, core = replica.root, execution._core
    for name in _OWNED:
        setattr(core, name, getattr(run.core, name))

    execution._flow_data.restore(run.flow_data)
    execution._epoch = epoch
    execution._lifecycle, execution._close_reason = run.lifecycle, run.close_reason
    execution._created_us, execution._started_us, execution._closed_us = run.created_us, run.started_us, run.closed_us
    execution._cancelled = run.status == "cancelled"
    if run.lifecycle == "closed":
        execution._snapshot = core.snapshot_data()
        execution._driver.closed = True
