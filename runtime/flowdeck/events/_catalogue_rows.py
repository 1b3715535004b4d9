"""The rows of the event catalogue: ``(source, run kind, ((name, level, payload keys, leads to, summary), ...))``.

Payload keys are blank-separated; ``*`` stands for any. See :mod:`flowdeck.events.catalogue`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ROWS"]

Row = tuple[str, str, str, str | None, str]

_CHUNK = "chunk_id chunk_name operator_kind trigger_event trigger_type signal_id status input signal_source signal_meta"
_EXECUTION: tuple[Row, ...] = (
    (
        "triggerflow.definition_declared",
        "INFO",
        "flow_name definition fingerprint entrypoint mermaid",
        None,
        "A definition, once per definition and process, before its first execution starts.",
    ),
    (
        "triggerflow.execution_started",
        "INFO",
        "initial_value definition entrypoint forked_from forked_at actor",
        "running",
        "An execution began; a fork names where it came from and who forked it.",
    ),
    (
        "triggerflow.execution_waiting",
        "INFO",
        "interrupt_ids",
        "waiting",
        "Nothing is ready or running and interrupts are open.",
    ),
    (
        "triggerflow.execution_resumed",
        "INFO",
        "interrupt_id value signal interrupts actor paused_at",
        "running",
        "An interrupt was answered, directly or by a matching emit.",
    ),
    (
        "triggerflow.execution_recovered",
        "INFO",
        "epoch forked_from forked_at",
        "running",
        "A saved execution was loaded and goes on.",
    ),
    (
        "triggerflow.execution_superseded",
        "WARNING",
        "epoch",
        None,
        "Another process has taken the execution over; this one stops working on it.",
    ),
    (
        "triggerflow.execution_heartbeat",
        "DEBUG",
        "running waiting age_s seq",
        None,
        "A durable execution is alive: how many handlers run, how many answers it waits for.",
    ),
    ("triggerflow.execution_completed", "INFO", "result origin_chunk", "completed", "An execution closed normally."),
    (
        "triggerflow.execution_failed",
        "ERROR",
        "last_signal initial_value origin_run_id",
        "failed",
        "A handler's failure ended the execution.",
    ),
    ("triggerflow.execution_cancelled", "WARNING", "reason", "cancelled", "The execution was given up."),
    (
        "triggerflow.execution_closed",
        "INFO",
        "reason closed_at status result",
        None,
        "Always the last event of an execution.",
    ),
    ("triggerflow.execution_sealed", "INFO", "reason sealed_at", None, "No new signals are taken."),
    ("triggerflow.execution_unsealed", "INFO", "reason", None, "Signals are taken again."),
    ("triggerflow.unseal_rejected", "WARNING", "reason", None, "A closed execution cannot be unsealed."),
    (
        "triggerflow.auto_close_timeout",
        "DEBUG",
        "timeout last_activity_at",
        None,
        "The execution was idle long enough to close itself.",
    ),
    (
        "triggerflow.pending_tasks_cancelled",
        "WARNING",
        "pending_task_count timeout",
        None,
        "Work still running at close was cancelled.",
    ),
    ("triggerflow.interrupt_answered", "INFO", "interrupt_id actor value", None, "A person or program answered."),
    ("triggerflow.interrupt_expired", "WARNING", "interrupt on_expire interrupt_id", None, "Nobody answered in time."),
    (
        "triggerflow.continue_rejected",
        "WARNING",
        "lifecycle_state interrupt_id",
        None,
        "An answer came after the execution was sealed or closed.",
    ),
    (
        "triggerflow.pending_interrupts_close_rejected",
        "ERROR",
        "reason pending_interrupt_ids pending_interrupts",
        None,
        "Closing was refused: interrupts are open.",
    ),
    (
        "triggerflow.pending_interrupts_cancelled",
        "WARNING",
        "reason interrupts",
        None,
        "Open interrupts were given up at close.",
    ),
    ("triggerflow.intervention_received", "INFO", "intervention", None, "An intervention was recorded."),
    ("triggerflow.intervention_inserted", "INFO", "intervention", None, "An intervention entered the flow."),
    ("triggerflow.intervention_consumed", "INFO", "intervention consumer", None, "A chunk took an intervention."),
    ("triggerflow.intervention_expired", "INFO", "intervention", None, "An intervention found no taker."),
    (
        "triggerflow.event_rejected",
        "WARNING",
        "lifecycle_state signal",
        None,
        "A signal came after the execution was sealed or closed.",
    ),
    (
        "triggerflow.inbox_applied",
        "INFO",
        "kind target actor outcome detail payload",
        None,
        "A request from outside was applied, or refused with its reason.",
    ),
)
_ANY_RUN: tuple[Row, ...] = (
    ("triggerflow.signal", "DEBUG", "SIGNAL_ID TYPE EVENT VALUE SOURCE META", None, "A signal was dispatched."),
    ("triggerflow.handler_dispatch", "DEBUG", "event type handler signal_id", None, "A handler takes a signal."),
    ("triggerflow.state_changed", "DEBUG", "key version value", None, "A state key was written."),
    ("triggerflow.port_called", "DEBUG", "scope port name ordinal digest key_id args", None, "A port call began."),
    (
        "triggerflow.port_returned",
        "INFO",
        "scope port name ordinal digest key_id args result unrecorded stream",
        None,
        "A port call gave its result: what a tape is made from.",
    ),
    (
        "triggerflow.port_failed",
        "WARNING",
        "scope port name ordinal digest key_id args failure result unrecorded stream",
        None,
        "A port call raised.",
    ),
    (
        "triggerflow.stream_item_emitted",
        "INFO",
        "item item_type origin_chunk",
        None,
        "A product item left on the runtime stream.",
    ),
    (
        "triggerflow.stream_item_rejected",
        "WARNING",
        "item origin_chunk",
        None,
        "A stream item came after the stream was closed.",
    ),
    ("triggerflow.stream_closed", "INFO", "execution_id", None, "The runtime stream ended."),
    ("triggerflow.interrupt_raised", "WARNING", "interrupt", None, "A chunk paused and waits for an answer."),
    (
        "triggerflow.interrupt_unhandled",
        "ERROR",
        "type payload resume_event resume_to",
        None,
        "A chunk paused in an execution nobody holds a handle of.",
    ),
    (
        "triggerflow.intervention_rejected",
        "WARNING",
        "intervention operator_id operator_name policy intervention_ids",
        None,
        "An intervention was refused; or a policy failed, and what is pending stays so.",
    ),
    ("triggerflow.handler_diverged", "ERROR", "*", None, "A re-run handler did not repeat its committed effects."),
    ("triggerflow.result_set", "INFO", "result state_key origin_chunk", None, "The final result was set."),
    ("triggerflow.annotation", "INFO", "ANNOTATIONS VALUE", None, "A process was annotated."),
)
_CHUNKS: tuple[Row, ...] = (
    ("chunk.started", "INFO", _CHUNK, "running", "An attempt of a chunk began."),
    (
        "chunk.completed",
        "INFO",
        _CHUNK + " returned_pause_signal output",
        "completed",
        "The attempt's handler returned, or paused.",
    ),
    (
        "chunk.failed",
        "ERROR",
        _CHUNK + " will_retry retry_delay_s propagated_from",
        "failed",
        "The attempt raised; another may follow.",
    ),
)
_MODEL = "agent_name response_id"
_TURN: tuple[Row, ...] = (
    ("agent_turn.started", "INFO", "agent_id agent_name", "running", "An agent began to answer."),
    ("agent_turn.completed", "INFO", _MODEL + " request_run_id attempt_count", "completed", "The agent answered."),
    ("agent_turn.failed", "ERROR", _MODEL + " request_run_id attempt_count", "failed", "The agent gave up."),
)
_REQUEST: tuple[Row, ...] = (
    ("request.started", "INFO", _MODEL + " attempt_index", "running", "A request began; repeated per attempt."),
    ("request.completed", "INFO", _MODEL + " attempt_index", "completed", "The request has its result."),
    ("request.failed", "ERROR", _MODEL + " attempt_index", "failed", "The request has none."),
    ("model.retrying", "WARNING", "*", None, "The answer was not good enough; another attempt follows."),
    ("model.validation_failed", "WARNING", "*", None, "A validator refused the answer."),
    ("model.validation_error", "ERROR", "*", None, "A validator itself failed."),
)
_MODEL_REQUEST: tuple[Row, ...] = (
    ("model.request_started", "INFO", _MODEL + " request_run_id attempt_index", "running", "One call of a model."),
    ("prompt.built", "INFO", "*", None, "The prompt as it will be sent."),
    ("model.requesting", "INFO", "*", None, "The request as it is sent; no key, no header."),
    ("model.streaming", "DEBUG", _MODEL + " delta chunk_index", None, "One delta."),
    ("model.streaming_canceled", "INFO", _MODEL, None, "Nobody wants the deltas any more."),
    ("model.meta", "INFO", _MODEL + " meta", None, "Finish reason and usage."),
    (
        "model.completed",
        "INFO",
        _MODEL + " result raw_text streamed_text cleaned_text repaired reasoning_text tool_calls",
        "completed",
        "The model answered.",
    ),
    (
        "model.parse_failed",
        "WARNING",
        _MODEL + " result streamed_text cleaned_text reason problem",
        None,
        "The answer could not be parsed.",
    ),
    ("model.failed", "ERROR", _MODEL, "failed", "The provider's stream yielded an error."),
    ("model.requester.error", "ERROR", "request_data", None, "The requester raised."),
    ("model.request_failed", "ERROR", _MODEL + " attempt_index request_run_id", "failed", "The call failed."),
)
_SESSION: tuple[Row, ...] = (
    ("session.activated", "INFO", "session_id agent_name", None, "An agent uses a session."),
    ("session.deactivated", "INFO", "session_id agent_name", None, "The agent left its session."),
    (
        "session.applied_to_request",
        "INFO",
        "session_id context_window_size memo_size",
        None,
        "The session's window entered a request.",
    ),
    (
        "session.context_appended",
        "INFO",
        "session_id has_user_content has_assistant_content context_window_size",
        None,
        "A turn was remembered.",
    ),
)
_LOOP = (
    ("loop_started", "INFO", "agent_name action_count tool_count planning_protocol", "running", "The loop began."),
    ("plan_ready", "INFO", "agent_name round_index decision", None, "The next round is decided."),
    ("loop_failed", "ERROR", "agent_name", "failed", "The loop gave up."),
    ("loop_completed", "INFO", "agent_name record_count", "completed", "The loop is done."),
)
_LOOPS: tuple[Row, ...] = tuple((f"action.{name}", *rest) for name, *rest in _LOOP)
_TOOL_TWINS: tuple[Row, ...] = tuple(  # twins for old subscribers: they lead nowhere, the primary does
    (f"tool.{name}", level, keys, None, f"Twin of `action.{name}` (meta.compat_event_alias).")
    for name, level, keys, _, _ in _LOOP
)
_ACTION = "agent_name round_index command_index record_index action_type action_name command record"
_ACTIONS: tuple[Row, ...] = (
    ("action.started", "INFO", _ACTION, "running", "An action runs."),
    ("action.completed", "INFO", _ACTION, "completed", "The action returned."),
    ("action.failed", "WARNING", _ACTION, "failed", "The action failed; see `payload.record.error`."),
)
_HANDLE = "requirement_id handle_id kind scope owner_id resource_key status reuse_key error"
_ENVIRONMENT: tuple[Row, ...] = tuple(
    (f"execution_environment.{name}", "ERROR" if name == "failed" else "INFO", _HANDLE, None, summary)
    for name, summary in (
        ("declared", "A requirement is known."),
        ("approval_required", "A person must allow it."),
        ("ensuring", "A provider is asked for a handle."),
        ("ready", "The handle can be used."),
        ("unhealthy", "A health check failed before reuse."),
        ("releasing", "The handle is given back."),
        ("released", "The handle is gone."),
        ("failed", "No handle could be had."),
    )
)
_RECORD = "workspace_id record_id uri collection kind path size sha256 summary scope source"
_WORKSPACE: tuple[Row, ...] = (
    ("workspace.opened", "INFO", "workspace_id root mode created records", None, "A workspace is in use."),
    ("workspace.record_ingested", "INFO", _RECORD, None, "A record was written."),
    ("workspace.record_read", "DEBUG", "workspace_id record_id size", None, "A record's content was read."),
    ("workspace.searched", "DEBUG", "workspace_id query filters count", None, "Records were searched."),
    (
        "workspace.linked",
        "INFO",
        "workspace_id link_id source_id target_id relation meta",
        None,
        "Two records were related.",
    ),
    (
        "workspace.checkpointed",
        "INFO",
        "workspace_id record_id uri run_id step_id size",
        None,
        "A compact state was written to go on from.",
    ),
    (
        "workspace.context_built",
        "INFO",
        "workspace_id goal scope profile record_ids omitted candidate_count used_chars used_tokens char_budget",
        None,
        "Records were packed for a goal, within a budget.",
    ),
    ("workspace.refused", "WARNING", "workspace_id operation target reason", None, "A path or a write was refused."),
)
_RUNTIME: tuple[Row, ...] = (
    ("runtime.debug", "DEBUG", "*", None, "Emitter helper."),
    ("runtime.info", "INFO", "*", None, "Emitter helper."),
    ("runtime.warning", "WARNING", "*", None, "Emitter helper."),
    ("runtime.error", "ERROR", "*", None, "Emitter helper."),
    ("runtime.critical", "CRITICAL", "*", None, "Emitter helper."),
    ("runtime.print", "INFO", "*", None, "Printed text."),
    (
        "runtime.event_quarantined",
        "WARNING",
        "event_type reason count preview",
        None,
        "A bad event was set aside; `center.quarantine()` lists it.",
    ),
    ("runtime.hook_failed", "WARNING", "hook event_type event_id failures", None, "A hook raised."),
    ("runtime.sink_failed", "ERROR", "sink event_type failures", None, "A sink raised or cannot write."),
    (
        "runtime.control_problem",
        "WARNING",
        "kind message",
        None,
        "The control store is busy, full, unwritable or fenced; runs go on, other processes may not see them.",
    ),
    (
        "sink.dropped",
        "WARNING",
        "sink count bytes reason",
        None,
        "A sink or hook could not keep up: this many are gone.",
    ),
)
_EVALS: tuple[Row, ...] = (
    (
        "eval.session_started",
        "INFO",
        "session_id suite suites level selected jobs argv git_sha host python resumed shard scored merged",
        None,
        "An evaluation began.",
    ),
    (
        "eval.round_finished",
        "INFO",
        "session_id suite case_id case_hash round level state reason wall_us work_us virtual_us attempts run_id "
        "execution_id error checks findings metrics output control tokens cost_usd of_session",
        None,
        "One round of one case, with its checks.",
    ),
    (
        "eval.verdict",
        "INFO",
        "session_id suite verdict code reasons rules totals excused flaky quarantined sees advice level baseline "
        "git_sha passed failed rounds lost",
        None,
        "What the evaluation came to; a later one of the same session (resumed) replaces it.",
    ),
)

_DEVTOOLS: tuple[Row, ...] = (
    (
        "devtools.action",
        "INFO",
        "action target actor outcome detail more",
        None,
        "A person did something from DevTools that no execution's inbox records: fork, resume, run again ...",
    ),
)

ROWS: Final[tuple[tuple[str, str | None, tuple[Row, ...]], ...]] = (
    ("TriggerFlowExecution", "workflow_execution", _EXECUTION),
    ("TriggerFlowExecution", None, _ANY_RUN),
    ("TriggerFlowExecution", "chunk_execution", _CHUNKS),
    ("Agent", "agent_turn", _TURN),
    ("ModelResponse", "request", _REQUEST),
    ("ModelResponse", "model_request", _MODEL_REQUEST),
    ("Session", None, _SESSION),
    ("ActionFlow", "action_loop", _LOOPS),
    ("ActionFlow", "action_loop", _TOOL_TWINS),
    ("ActionFlow", "action", _ACTIONS),
    ("ExecutionEnvironmentManager", None, _ENVIRONMENT),
    ("Workspace", None, _WORKSPACE),
    ("Flowdeck", None, _RUNTIME),
    ("Evals", None, _EVALS),
    ("DevTools", None, _DEVTOOLS),
)
