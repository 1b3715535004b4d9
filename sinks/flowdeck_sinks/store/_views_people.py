"""Views of what people and products see: ``interrupts``, ``interventions``, ``stream_items``."""

from __future__ import annotations

from typing import Final

from flowdeck_sinks.store._view import View

__all__ = ["INTERNAL", "INTERRUPTS", "INTERVENTIONS", "STREAM_ITEMS", "waits_of"]

_ABOUT: Final = (
    "('triggerflow.interrupt_raised', 'triggerflow.interrupt_answered', 'triggerflow.interrupt_expired', "
    "'triggerflow.execution_resumed', 'triggerflow.pending_interrupts_cancelled')"
)
_RESUMED: Final = "('triggerflow.execution_resumed', 'triggerflow.interrupt_answered')"


def _interrupt_events(events: str) -> str:
    """One row per interrupt and event about it. An event names one by id or record, or several in a list."""
    return f"""SELECT ts, event_type, execution_id, flow_name, task_id, tenant_id, user_id, payload,
  run_id, step_name, coalesce(named ->> '$.id', named ->> '$') AS interrupt_id,
  CASE WHEN json_type(named) = 'OBJECT' THEN named END AS record
FROM (
  SELECT *, unnest(CASE
    WHEN json_type(payload, '$.interrupts') = 'ARRAY' THEN from_json(payload -> '$.interrupts', '["JSON"]')
    ELSE [coalesce(payload -> '$.interrupt', payload -> '$.interrupt_id')] END) AS named
  FROM {events}
  WHERE event_type IN {_ABOUT}
)
WHERE named IS NOT NULL AND json_type(named) IN ('OBJECT', 'VARCHAR')"""


def _interrupt_history(interrupt_events: str) -> str:
    """One row per interrupt. Its id is unique within its execution."""
    return f"""SELECT
  interrupt_id, execution_id,
  any_value(coalesce(raised ->> '$.source_flow_name', flow_name)) AS flow_name,
  any_value(raised ->> '$.type') AS type,
  min(ts) FILTER (event_type = 'triggerflow.interrupt_raised') AS raised_at,
  min(ts) FILTER (event_type IN {_RESUMED}) AS resumed_at,
  min(ts) FILTER (event_type = 'triggerflow.interrupt_expired') AS expired_at,
  min(ts) FILTER (event_type = 'triggerflow.pending_interrupts_cancelled') AS cancelled_at,
  any_value(raised -> '$.payload') AS payload,
  any_value(raised -> '$.schema') AS schema,
  any_value(raised ->> '$.resume_to') AS resume_to,
  any_value(raised ->> '$.projected_as') AS projected_as,
  any_value(raised ->> '$.scope') AS scope,
  any_value(raised -> '$.assignees') AS assignees,
  any_value(TRY_CAST(raised ->> '$.expires_at' AS DOUBLE)) AS expires_s,
  any_value(coalesce(answer -> '$.value', record -> '$.response')) AS response,
  any_value(answer ->> '$.actor') AS actor,
  any_value(raised ->> '$.source_operator_id') AS operator_id,
  any_value(coalesce(raised ->> '$.source_operator_name', step_name)) FILTER (raised IS NOT NULL) AS step_name,
  any_value(run_id) FILTER (raised IS NOT NULL) AS run_id,
  any_value(task_id) AS task_id,
  any_value(tenant_id) AS tenant_id,
  any_value(user_id) AS user_id,
  any_value(raised) AS record
FROM (
  SELECT *,
    CASE WHEN event_type = 'triggerflow.interrupt_raised' THEN record END AS raised,
    CASE WHEN event_type IN {_RESUMED} THEN payload END AS answer
  FROM {interrupt_events}
)
WHERE interrupt_id IS NOT NULL
GROUP BY interrupt_id, execution_id"""


def waits_of(events: str = "events") -> str:
    """Return the SELECT of how long the interrupts of each run were open, over a relation of events."""
    history = "_interrupt_history"
    if events != "events":
        history = f"({_interrupt_history(f'({_interrupt_events(events)})')})"
    return f"""SELECT run_id, execution_id,
  sum(epoch_us(coalesce(resumed_at, expired_at, cancelled_at)) - epoch_us(raised_at)) / 1000.0 AS wait_ms
FROM {history}
WHERE run_id IS NOT NULL
GROUP BY run_id, execution_id"""


INTERNAL: Final = {
    "_interrupt_events": _interrupt_events("events"),
    "_interrupt_history": _interrupt_history("_interrupt_events"),
    "_interrupt_waits": waits_of(),
}
"""Views that other views stand on."""

_SECONDS_OF_YEAR_9999: Final = 253402300799

INTERRUPTS: Final = View(
    "interrupts",
    "One row per question that was put to somebody: its history. What waits right now is `flowdeck interrupts list`.",
    f"""SELECT
  interrupt_id, execution_id, flow_name, step_name, type,
  CASE WHEN resumed_at IS NOT NULL THEN 'resumed' WHEN expired_at IS NOT NULL THEN 'expired'
    WHEN cancelled_at IS NOT NULL THEN 'cancelled' ELSE 'waiting' END AS status,
  raised_at,
  coalesce(resumed_at, expired_at, cancelled_at) AS closed_at,
  epoch_ms(coalesce(resumed_at, expired_at, cancelled_at) - raised_at)::DOUBLE AS wait_ms,
  payload, response, actor, assignees, schema, resume_to,
  CASE WHEN expires_s BETWEEN 0 AND {_SECONDS_OF_YEAR_9999} THEN make_timestamp((expires_s * 1000000)::BIGINT) END
    AS expires_at,
  scope, operator_id, run_id, task_id, tenant_id, user_id, record
FROM _interrupt_history
WHERE projected_as IS NULL""",
    {
        "interrupt_id": "The interrupt; unique within its execution.",
        "execution_id": "The execution that waits, or waited.",
        "flow_name": "The flow that asks.",
        "step_name": "The chunk that asks.",
        "type": "Its kind, as the flow named it, such as approval.",
        "status": "waiting, resumed, expired or cancelled.",
        "raised_at": "When it was asked, UTC.",
        "closed_at": "When it was answered, expired or was given up; NULL while it waits.",
        "wait_ms": "From asked to closed; NULL while it waits.",
        "payload": "What is asked.",
        "response": "The answer.",
        "actor": "Who answered, where they said so.",
        "assignees": "Who was asked.",
        "schema": "JSON Schema of the answer; NULL when any value will do.",
        "resume_to": "Where the flow goes on: next, self, or an event.",
        "expires_at": "When it stops waiting by itself.",
        "scope": "Place in the execution.",
        "operator_id": "The operator in the flow's definition.",
        "run_id": "The attempt that asked.",
        "task_id": "Given by the application.",
        "tenant_id": "Given by the application.",
        "user_id": "Given by the application.",
        "record": "The interrupt as it was raised. A question of a sub flow appears once, under the id it can be "
        "answered by.",
    },
)

_LEDGER: Final = (
    "('triggerflow.intervention_received', 'triggerflow.intervention_inserted', 'triggerflow.intervention_consumed', "
    "'triggerflow.intervention_expired', 'triggerflow.intervention_rejected')"
)


def _when(event: str) -> str:
    return f"min(ts) FILTER (event_type = 'triggerflow.intervention_{event}') AS {event}_at"


INTERVENTIONS: Final = View(
    "interventions",
    "One row per addition somebody made to a running execution, and what became of it.",
    f"""SELECT
  intervention_id, execution_id, flow_name,
  CASE WHEN consumed_at IS NOT NULL OR inserted_at IS NOT NULL THEN 'inserted'
    WHEN rejected_at IS NOT NULL THEN 'rejected' WHEN expired_at IS NOT NULL THEN 'expired' ELSE 'pending' END
    AS status,
  author, target, received_at, inserted_at, consumed_at, rejected_at, expired_at,
  record -> '$.payload' AS payload,
  record ->> '$.note' AS note,
  record ->> '$.insertion.mode' AS mode,
  coalesce(record ->> '$.insertion.operator_name', record ->> '$.insertion.operator_id') AS inserted_before,
  record -> '$.consumers' AS consumers,
  record ->> '$.reject_reason' AS reject_reason,
  TRY_CAST(record ->> '$.version' AS BIGINT) AS version,
  task_id, tenant_id, user_id, record
FROM (
  SELECT
    coalesce(record ->> '$.id', payload ->> '$.intervention_id') AS intervention_id,
    execution_id,
    any_value(flow_name) AS flow_name,
    any_value(record ->> '$.author') AS author,
    any_value(record ->> '$.target') AS target,
    {_when("received")},
    {_when("inserted")},
    {_when("consumed")},
    {_when("rejected")},
    {_when("expired")},
    arg_max(record, greatest(coalesce(epoch, 0), 0)::HUGEINT * {2**62} + greatest(coalesce(seq, 0), 0)) AS record,
    any_value(task_id) AS task_id,
    any_value(tenant_id) AS tenant_id,
    any_value(user_id) AS user_id
  FROM (SELECT *, payload -> '$.intervention' AS record FROM events WHERE event_type IN {_LEDGER})
  GROUP BY ALL
)
WHERE intervention_id IS NOT NULL""",
    {
        "intervention_id": "The intervention; unique within its execution.",
        "execution_id": "The execution it was made to.",
        "flow_name": "The flow's name.",
        "status": "pending, inserted, rejected or expired.",
        "author": "Who made it.",
        "target": "The operator or point it is meant for; NULL for the next one.",
        "received_at": "When it came, UTC.",
        "inserted_at": "When chunks could see it.",
        "consumed_at": "When a chunk first marked it as taken.",
        "rejected_at": "When a policy refused it.",
        "expired_at": "When the execution closed without it.",
        "payload": "What was added.",
        "note": "Why.",
        "mode": "planned or auto.",
        "inserted_before": "The chunk it was put before.",
        "consumers": "Who took it, with status and note.",
        "reject_reason": "Why it was refused.",
        "version": "1, 2 ... in the order of arrival.",
        "task_id": "Given by the application.",
        "tenant_id": "Given by the application.",
        "user_id": "Given by the application.",
        "record": "The intervention as it was last reported.",
    },
)

STREAM_ITEMS: Final = View(
    "stream_items",
    "One row per item a flow put on its runtime stream, in order.",
    """SELECT
  execution_id, flow_name,
  row_number() OVER (PARTITION BY execution_id ORDER BY coalesce(epoch, 0), seq, sub, wseq, event_id) AS position,
  ts, item, item_type, item_event, step_name, run_id, root_run_id, epoch, seq, event_id, task_id, tenant_id, user_id
FROM (
  SELECT *, payload -> '$.item' AS item, payload ->> '$.item_type' AS item_type,
    payload ->> '$.item.event_type' AS item_event
  FROM events
  WHERE event_type = 'triggerflow.stream_item_emitted'
  QUALIFY row_number() OVER (PARTITION BY execution_id, event_id ORDER BY wseq) = 1
)""",
    {
        "execution_id": "The execution.",
        "flow_name": "The flow's name.",
        "position": "1, 2 ... in the order the items left.",
        "ts": "When it left, UTC.",
        "item": "The item.",
        "item_type": "Its Python type.",
        "item_event": "The item's own event_type field, where it has one.",
        "step_name": "The chunk it came from.",
        "run_id": "The attempt it came from.",
        "root_run_id": "The topmost run.",
        "epoch": "Epoch of the execution.",
        "seq": "Its place among the execution's transitions.",
        "event_id": "The event that reports it.",
        "task_id": "Given by the application.",
        "tenant_id": "Given by the application.",
        "user_id": "Given by the application.",
    },
)
