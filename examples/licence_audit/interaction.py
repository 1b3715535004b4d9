"""What the audit tells the product around it: one shape of event, with business fields only.

These items travel on the execution's runtime stream, for a web page, a chat or a progress bar. They hold no
operator ids, layer marks or observation events: what a product shows must not change when the flow is
rearranged.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from flowdeck import TriggerFlowRuntimeData

__all__ = ["ProductEvent", "Status", "is_product_event", "tell"]

Status = Literal["running", "waiting", "ready", "failed"]


class ProductEvent(TypedDict):
    """One step a user of the audit understands."""

    event_type: str
    task_id: str | None
    execution_id: str
    stage: str
    """``discover``, ``check``, ``review`` or ``report``."""
    title: str
    """One sentence for a person."""
    status: Status
    artifact_ref: str | None
    """Where the thing that became ready can be found."""
    total: NotRequired[int]
    """How many distributions there are, on ``distributions_found``."""


def is_product_event(item: object) -> bool:
    """Tell a product event from the system items (interrupts) that share the stream."""
    return isinstance(item, dict) and "event_type" in item and "stage" in item


async def tell(
    data: TriggerFlowRuntimeData,
    event_type: str,
    stage: str,
    title: str,
    status: Status,
    artifact_ref: str | None = None,
    **more: Any,
) -> None:
    """Put one product event on the runtime stream of this execution."""
    await data.async_put_into_stream(
        {
            "event_type": event_type,
            "task_id": data.get_resource("task_id"),
            "execution_id": data.execution_id,
            "stage": stage,
            "title": title,
            "status": status,
            "artifact_ref": artifact_ref,
            **more,
        }
    )
