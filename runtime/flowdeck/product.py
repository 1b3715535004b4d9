"""Product events: what a product shows of a run, apart from what operators observe of it.

A flow puts them on its runtime stream; what the framework itself puts there (questions, interventions) is translated by
:func:`product_event`. Names of operators, parser paths, layer marks and signals never become part of one. Clients
ignore an ``event_type`` they do not know; ``status`` is a closed set. Source: the interaction layer of the design
documents.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

__all__ = ["STATUSES", "ProductEvent", "Status", "product_event"]

Status = Literal["queued", "started", "running", "waiting", "ready", "completed", "failed", "cancelled"]

STATUSES: Final[tuple[str, ...]] = get_args(Status)
"""``queued``: accepted, not begun. ``started``: work on the stage began. ``running``: it goes on. ``waiting``: a person
or a system is asked. ``ready``: a part of the result can be shown. ``completed``, ``failed``, ``cancelled``: the stage,
or the run, has ended so."""


class ProductEvent(BaseModel):
    """One thing a product shows. Fields of the application's own may be added."""

    model_config = ConfigDict(extra="allow", frozen=True)

    event_type: str
    """What happened, in the product's words: ``"document.reviewed"``."""
    status: Status
    execution_id: str | None = None
    task_id: str | None = None
    """The application's own task."""
    stage: str | None = None
    """A name the product knows, never that of an operator."""
    title: str | None = None
    """One line for people."""
    artifact_ref: str | None = None
    """What can be opened: ``workspace://...`` or a link."""


_QUESTION: Final = {
    "pause": ("decision.required", "waiting"),
    "project": ("decision.required", "waiting"),
    "resume": ("decision.made", "running"),
    "expire": ("decision.expired", "running"),
    "cancel": ("decision.withdrawn", "cancelled"),
}


def product_event(item: Any, execution_id: str, task_id: str | None = None) -> Any:
    """Translate an item of a runtime stream into what a product may see.

    Returns a :class:`ProductEvent` for what the framework put there and for mappings with ``event_type`` and
    ``status``; anything else a flow put there as it is; ``None`` for what is no product's business.
    """
    if isinstance(item, ProductEvent):
        return item if item.execution_id is not None else item.model_copy(update={"execution_id": execution_id})

    if not isinstance(item, dict):
        return item

    kind = item.get("type")
    if kind in ("interrupt", "intervention", "stream") and "action" in item:
        return _of_framework(kind, item, execution_id, task_id)

    if isinstance(item.get("event_type"), str) and item.get("status") in STATUSES:
        return ProductEvent.model_validate({"execution_id": execution_id, "task_id": task_id, **item})

    return item


def _of_framework(kind: str, item: dict[str, Any], execution_id: str, task_id: str | None) -> ProductEvent | None:
    if item.get("execution_id") != execution_id or kind == "stream":
        return None  # a sub flow's own view of a question that is asked here as well

    if kind == "intervention":
        status: Any = "running"
        return ProductEvent(
            event_type=f"intervention.{item['action']}", status=status, execution_id=execution_id, task_id=task_id
        )

    found = _QUESTION.get(item["action"])
    record = item.get("interrupt")
    if found is None or not isinstance(record, dict):
        return None

    payload = record.get("payload")
    said = payload if isinstance(payload, dict) else {}
    asked = item["action"] in ("pause", "project")  # the question is no title of its answer
    titles = [said.get(key) for key in ("title", "question", "message")] if asked else []
    title = next((each for each in titles if isinstance(each, str)), None)
    stage, artifact = said.get("stage"), said.get("artifact_ref")
    event_type, status = found
    return ProductEvent(
        event_type=event_type,
        status=status,
        execution_id=execution_id,
        task_id=task_id,
        stage=stage if isinstance(stage, str) else None,
        title=title,
        artifact_ref=artifact if isinstance(artifact, str) else None,
        interrupt_id=record.get("id"),  # type: ignore[call-arg]
        kind=record.get("type"),
    )
