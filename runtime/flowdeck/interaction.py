"""The interaction layer: what a product shows while work is under way (seed 000).

Three channels stay apart. Control is emit, pause and continue; observation is the Event Center; this is the third:
**product events**, stable business facts for a web page, a chat or a mail. They are made from instant items, from a
flow's runtime stream and from how a run ended, by rules the application writes down once. What has no rule does not
pass: no parser path, operator name, layer mark or provider token can reach a product. Beside the fields of
:class:`~flowdeck.product.ProductEvent`, events of this module may have ``data`` (business content under names of the
application's choice), ``position`` (which one of several, from 0) and ``interrupt_id`` (what to answer).

    progress = ProductMapper(
        task_id="t-17",
        fields={"summary": FieldRule("summary_ready", stage="writing", title="Summary", publish="text")},
        questions={"approval": QuestionRule("waiting_for_approval", stage="approval", title="Please approve")},
    )
    async for event in progress.follow(execution):
        await websocket.send_json(event.model_dump(exclude_none=True))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from flowdeck.product import STATUSES, ProductEvent, Status

if TYPE_CHECKING:
    from flowdeck.agents.response import ModelResponse
    from flowdeck.execution.execution import TriggerFlowExecution
    from flowdeck.models.instant import StreamingData

__all__ = [
    "STATUSES",
    "EndRule",
    "FieldRule",
    "ProductEvent",
    "ProductMapper",
    "QuestionRule",
    "Status",
    "read_product_event",
]

ENDED: Final = ("completed", "failed", "cancelled")


def read_product_event(given: Any) -> ProductEvent | None:
    """Return what a client received as an event; ``None`` for what it should ignore."""
    try:
        return ProductEvent.model_validate(given)
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What becomes of a field of a structured answer.

    Attributes:
        event_type: of the product event.
        publish: the key under which the value stands in ``data``; without one the value stays inside.
        growing: also tell while a text is being written (``running``); by default only once it is whole.
        status: of the complete field.
    """

    event_type: str
    stage: str | None = None
    title: str | None = None
    publish: str | None = None
    growing: bool = False
    status: Status = "ready"


@dataclass(frozen=True, slots=True)
class QuestionRule:
    """What becomes of an interrupt: the user must do something. ``publish`` names where its payload stands."""

    event_type: str
    stage: str | None = None
    title: str | None = None
    publish: str | None = "question"
    answered: str | None = None
    """The event type once it is answered (status ``running``); without one nothing is said."""


@dataclass(frozen=True, slots=True)
class EndRule:
    """What is said of the end. ``publish`` names where the final data stand; the cause of a failure stays inside."""

    event_type: str = "task_ended"
    stage: str | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    """By status."""
    publish: str | None = None


class ProductMapper:
    """Makes product events by rules; what has no rule makes none.

    Args:
        task_id: of the business task; a run's own, where it has one, by default.
        fields: rules by wildcard path of instant items.
        questions: rules by the interrupt's type; ``"*"`` is every other.
        end: the rule of the end; ``None`` says nothing.
    """

    def __init__(
        self,
        *,
        task_id: str | None = None,
        execution_id: str | None = None,
        fields: Mapping[str, FieldRule] | None = None,
        questions: Mapping[str, QuestionRule] | None = None,
        end: EndRule | None = EndRule(),
    ) -> None:
        self.task_id = task_id
        self.execution_id = execution_id
        self._fields = dict(fields or {})
        self._questions = dict(questions or {})
        self._end = end

    def event(self, event_type: str, status: Status = "running", **more: Any) -> ProductEvent:
        """Return an event of this task."""
        given = {name: value for name, value in more.items() if value is not None and value != {}}
        known = {"task_id": self.task_id, "execution_id": self.execution_id}
        return ProductEvent(event_type=event_type, status=status, **{**known, **given})

    def of_instant(self, item: StreamingData) -> ProductEvent | None:
        """Return what a field of an answer is to the user; ``None`` when it is nothing."""
        rule = self._fields.get(item.wildcard_path)
        if rule is None or not (item.is_complete or rule.growing):
            return None

        status: Status = rule.status if item.is_complete else "running"
        data = {rule.publish: item.value} if rule.publish else {}
        position = item.indexes[-1] if item.indexes else None
        return self.event(rule.event_type, status, stage=rule.stage, title=rule.title, position=position, data=data)

    def of_stream(self, item: Any) -> ProductEvent | None:
        """Return what an item of a flow's runtime stream is to the user; ``None`` when it is nothing.

        Product events that a chunk put there pass, with the task and the run filled in; an interrupt passes by its
        rule; anything else stays inside.
        """
        if isinstance(item, ProductEvent):
            return self._filled(item)

        if not isinstance(item, Mapping):
            return None

        if item.get("type") == "interrupt":
            return self._of_interrupt(item)

        if "event_type" not in item or "type" in item:
            return None

        found = read_product_event(item)
        return None if found is None else self._filled(found)

    def _filled(self, event: ProductEvent) -> ProductEvent:
        known = {"task_id": event.task_id or self.task_id, "execution_id": event.execution_id or self.execution_id}
        return event.model_copy(update=known)

    def _of_interrupt(self, item: Mapping[str, Any]) -> ProductEvent | None:
        interrupt = item.get("interrupt")
        record: Mapping[str, Any] = interrupt if isinstance(interrupt, Mapping) else {}
        rule = self._questions.get(str(record.get("type")), self._questions.get("*"))
        if rule is None:
            return None

        if item.get("action") in ("pause", "project"):
            data = {rule.publish: record.get("payload")} if rule.publish else {}
            more = {"stage": rule.stage, "title": rule.title, "data": data, "interrupt_id": record.get("id")}
            return self.event(rule.event_type, "waiting", **more)

        if item.get("action") == "resume" and rule.answered:
            return self.event(rule.answered, "running", stage=rule.stage, title=rule.title)

        return None

    def of_end(self, status: str, result: Any = None) -> ProductEvent | None:
        """Return what the end of the work is to the user; ``None`` without a rule."""
        rule = self._end
        if rule is None:
            return None

        shown: Status = status if status in ENDED else "failed"  # type: ignore[assignment]
        data = {rule.publish: result} if rule.publish and shown == "completed" else {}
        return self.event(rule.event_type, shown, stage=rule.stage, title=rule.titles.get(shown), data=data)

    # -- following -------------------------------------------------------------------------------------------------

    async def follow(self, execution: TriggerFlowExecution) -> AsyncIterator[ProductEvent]:
        """Follow a run to its end. It must have been started; a run that waits is followed while it waits.

        A failure is an event, not an error: it is raised where the result is read.
        """
        self.execution_id = self.execution_id or execution.id
        self.task_id = self.task_id or execution.run_context.meta.get("task_id")
        try:
            async for item in execution.get_async_runtime_stream(timeout=None):
                event = self.of_stream(item)
                if event is None:
                    continue

                if event.status == "waiting" and self._of_a_child(item, execution):
                    continue  # it is asked here as well, under the id it can be answered by

                yield event
        except Exception:
            if execution.get_status() != "failed":
                raise

        ended = self.of_end(execution.get_status(), execution.result.get_state())
        if ended is not None:
            yield ended

    @staticmethod
    def _of_a_child(item: Any, execution: TriggerFlowExecution) -> bool:
        return isinstance(item, Mapping) and item.get("execution_id") not in (None, execution.id)

    async def follow_response(self, response: ModelResponse) -> AsyncIterator[ProductEvent]:
        """Follow a structured answer to its end; a failure is an event, not an error: it is raised where data are read.

        Every attempt is followed: a client shows what it last heard of a place.
        """
        self.execution_id = self.execution_id or response.id
        status, result = "completed", None
        try:
            async for item in response.get_async_generator("instant", retries=True):
                event = self.of_instant(item)
                if event is not None:
                    yield event

            result = await response.async_get_data()
        except Exception:
            status = "failed"

        ended = self.of_end(status, result)
        if ended is not None:
            yield ended
