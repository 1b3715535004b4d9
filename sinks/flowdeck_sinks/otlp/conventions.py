"""Every name this package writes: the one table of span, log, event and metric attributes.

Three vocabularies meet here: OpenTelemetry's semantic conventions (the GenAI part is still in development, so its
version is pinned and a change of it is a change of this file), OpenInference (what Phoenix reads), and our own
``flow.*`` for what no standard names: steps, waits, segments. ``docs/traces.md`` shows the table; a test keeps it so,
and another that no span carries a name which is not in it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "ATTRIBUTES",
    "INSTRUMENTS",
    "SCHEMA_URL",
    "SCOPE_NAME",
    "SEMCONV_VERSION",
    "Attribute",
    "Instrument",
    "attributes_markdown",
    "instruments_markdown",
]

SEMCONV_VERSION: Final = "1.41.1"
"""The semantic conventions the OpenTelemetry names below are taken from, GenAI (development) included."""
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{SEMCONV_VERSION}"
SCOPE_NAME: Final = "flowdeck.observation"
"""Name of the instrumentation scope."""

_OTEL: Final = "OpenTelemetry"
_GENAI: Final = "OpenTelemetry GenAI"
_INFERENCE: Final = "OpenInference"
_FLOW: Final = "flowdeck"


class Attribute(NamedTuple):
    """One attribute."""

    name: str
    type: str
    on: str
    """Where it appears: span kinds, ``all`` spans, ``log``, ``link``, ``event``, ``resource``."""
    origin: str
    """Which vocabulary it is from."""
    summary: str


class Instrument(NamedTuple):
    """One metric."""

    name: str
    kind: str
    unit: str
    attributes: tuple[str, ...]
    origin: str
    summary: str


ATTRIBUTES: Final[dict[str, Attribute]] = {}
"""Every attribute by name, in the order of the documentation."""


def _name(name: str, type_: str, on: str, origin: str, summary: str) -> str:
    ATTRIBUTES[name] = Attribute(name, type_, on, origin, summary)
    return name


# -- who and where ---------------------------------------------------------------------------------------------------
RUN_ID: Final = _name("flow.run.id", "string", "all", _FLOW, "The run the span stands for; the span id is its hash.")
RUN_KIND: Final = _name("flow.run.kind", "string", "all", _FLOW, "`workflow_execution`, `chunk_execution`, `action` …")
EXECUTION_ID: Final = _name("flow.execution.id", "string", "all", _FLOW, "The flow execution the run belongs to.")
FLOW_NAME: Final = _name("flow.name", "string", "all", _FLOW, "The flow's name.")
SESSION_ID: Final = _name("session.id", "string", "all", _OTEL, "The session active when the run began.")
USER_ID: Final = _name("user.id", "string", "all", _OTEL, "`run.meta.user_id`.")
TENANT_ID: Final = _name("flow.tenant.id", "string", "all", _FLOW, "`run.meta.tenant_id`.")
TASK_ID: Final = _name("flow.task.id", "string", "all", _FLOW, "`run.meta.task_id`.")
CORRELATION_ID: Final = _name(
    "flow.correlation.id", "string", "all", _FLOW, "`run.meta.trace_id`, an id of the caller's own system."
)
SPAN_KIND: Final = _name(
    "openinference.span.kind", "string", "all", _INFERENCE, "`CHAIN`, `AGENT`, `TOOL`, `LLM`; required by Phoenix."
)

# -- how it went -----------------------------------------------------------------------------------------------------
OUTCOME: Final = _name(
    "flow.outcome", "string", "all", _FLOW, "`success`, `failure`, `timeout`, `cancelled`, `waiting`, `incomplete`."
)
ERROR_TYPE: Final = _name(
    "error.type", "string", "failed spans", _OTEL, "Class name of the error, `_OTHER` without one."
)
DURATION_US: Final = _name(
    "flow.duration_us", "int", "ended spans", _FLOW, "Microseconds of a monotonic clock; finer than start and end."
)
INCOMPLETE: Final = _name(
    "flow.span.incomplete", "boolean", "lost runs", _FLOW, "No end was seen: the span ends with the last event seen."
)
INCOMPLETE_REASON: Final = _name(
    "flow.span.incomplete_reason",
    "string",
    "lost runs",
    _FLOW,
    "`process_lost`, `end_missing`, `evicted`, `recovered` …",
)
START_MISSING: Final = _name(
    "flow.span.start_missing", "boolean", "lost starts", _FLOW, "No start was seen; it is derived from the duration."
)
EVENTS_DROPPED: Final = _name(
    "flow.events.dropped", "int", "all", _FLOW, "Span events beyond the limit; they are still log records."
)

# -- workflow --------------------------------------------------------------------------------------------------------
OPERATION: Final = _name(
    "gen_ai.operation.name",
    "string",
    "workflow, agent, tool, chat",
    _GENAI,
    "`invoke_workflow`, `invoke_agent`, `execute_tool`, `chat`.",
)
WORKFLOW_NAME: Final = _name("gen_ai.workflow.name", "string", "workflow", _GENAI, "The flow's name.")
SEGMENTS: Final = _name(
    "flow.segments", "int", "workflow", _FLOW, "Active periods between pauses; only when it paused."
)
EPOCH: Final = _name("flow.epoch", "int", "workflow", _FLOW, "How often the execution was loaded; only above 1.")
CONTINUATION: Final = _name(
    "flow.trace.continuation", "int", "workflow", _FLOW, "Which trace of the run this is, after a very long wait."
)

# -- step ------------------------------------------------------------------------------------------------------------
STEP_ID: Final = _name("flow.step.id", "string", "step", _FLOW, "The operator's id.")
STEP_NAME: Final = _name("flow.step.name", "string", "step, wait", _FLOW, "The operator's name.")
STEP_KIND: Final = _name("flow.step.kind", "string", "step", _FLOW, "The operator's kind: `chunk`, `sub_flow` …")
STEP_ATTEMPT: Final = _name("flow.step.attempt", "int", "step", _FLOW, "Which attempt this is, from 1.")
STEP_SCOPE: Final = _name(
    "flow.step.scope", "string", "step", _FLOW, "The place in the flow: `for_each[3]/classify#1`."
)
WILL_RETRY: Final = _name("flow.step.will_retry", "boolean", "failed step", _FLOW, "Another attempt follows.")
NODE_ID: Final = _name("graph.node.id", "string", "step", _INFERENCE, "The operator's id, for the flow's graph.")
NODE_NAME: Final = _name("graph.node.name", "string", "step", _INFERENCE, "The operator's name.")
NODE_PARENT: Final = _name("graph.node.parent_id", "string", "step", _INFERENCE, "The operator whose signal it took.")

# -- segment and wait ------------------------------------------------------------------------------------------------
SEGMENT: Final = _name("flow.segment", "int", "segment", _FLOW, "Ordinal of the active period, from 1.")
SEGMENT_END: Final = _name(
    "flow.segment.end_reason", "string", "segment", _FLOW, "`waiting`, `completed`, `failed`, `cancelled`, `lost`."
)
INTERRUPT_ID: Final = _name("flow.interrupt.id", "string", "wait", _FLOW, "The interrupt.")
WAIT_KIND: Final = _name("flow.wait.kind", "string", "wait", _FLOW, "The interrupt's type: `approval` …")
WAIT_RESOLUTION: Final = _name(
    "flow.wait.resolution", "string", "wait", _FLOW, "`answered`, `signal`, `expired`, `cancelled`, `incomplete`."
)
WAIT_ACTOR: Final = _name("flow.wait.actor", "string", "wait", _FLOW, "Who answered.")

# -- agent, tool, model ----------------------------------------------------------------------------------------------
AGENT_ID: Final = _name("gen_ai.agent.id", "string", "agent", _GENAI, "The agent's id.")
AGENT_NAME: Final = _name("gen_ai.agent.name", "string", "agent, tool, chat", _GENAI, "The agent's name.")
CONVERSATION_ID: Final = _name("gen_ai.conversation.id", "string", "agent, chat", _GENAI, "The session.")
RESPONSE_ID: Final = _name("flow.response.id", "string", "agent, chat", _FLOW, "The model response the run belongs to.")
TOOL_NAME: Final = _name("gen_ai.tool.name", "string", "tool", _GENAI, "The action's name.")
TOOL_TYPE: Final = _name("gen_ai.tool.type", "string", "tool", _GENAI, "`function`, `extension`, `datastore`.")
TOOL_CALL_ID: Final = _name("gen_ai.tool.call.id", "string", "tool", _GENAI, "The call's id as the model gave it.")
TOOL_ARGUMENTS: Final = _name(
    "gen_ai.tool.call.arguments", "string (JSON)", "tool, when content is captured", _GENAI, "The arguments."
)
TOOL_RESULT: Final = _name(
    "gen_ai.tool.call.result", "string (JSON)", "tool, when content is captured", _GENAI, "The result."
)
OI_TOOL_NAME: Final = _name("tool.name", "string", "tool", _INFERENCE, "The action's name.")
ACTION_TYPE: Final = _name("flow.action.type", "string", "tool", _FLOW, "The action's type: `tool`, `mcp` …")
PROVIDER: Final = _name(
    "gen_ai.provider.name", "string", "chat", _GENAI, "`openai`, `anthropic` …; `unknown` if untold."
)
REQUEST_MODEL: Final = _name("gen_ai.request.model", "string", "chat", _GENAI, "The model asked for.")
RESPONSE_MODEL: Final = _name("gen_ai.response.model", "string", "chat", _GENAI, "The model that answered.")
FINISH_REASONS: Final = _name("gen_ai.response.finish_reasons", "string[]", "chat", _GENAI, "Why the model stopped.")
INPUT_TOKENS: Final = _name("gen_ai.usage.input_tokens", "int", "chat", _GENAI, "Tokens read.")
OUTPUT_TOKENS: Final = _name("gen_ai.usage.output_tokens", "int", "chat", _GENAI, "Tokens written.")
LLM_MODEL: Final = _name("llm.model_name", "string", "chat", _INFERENCE, "The model.")
LLM_PROMPT_TOKENS: Final = _name("llm.token_count.prompt", "int", "chat", _INFERENCE, "Tokens read.")
LLM_COMPLETION_TOKENS: Final = _name("llm.token_count.completion", "int", "chat", _INFERENCE, "Tokens written.")
LLM_TOTAL_TOKENS: Final = _name("llm.token_count.total", "int", "chat", _INFERENCE, "Tokens in all.")
ATTEMPT_INDEX: Final = _name("flow.request.attempt", "int", "chat, request", _FLOW, "Which attempt of the request.")

# -- content, only when captured -------------------------------------------------------------------------------------
INPUT_VALUE: Final = _name(
    "input.value", "string", "all, when content is captured", _INFERENCE, "What went in, as JSON."
)
INPUT_MIME: Final = _name(
    "input.mime_type", "string", "all, when content is captured", _INFERENCE, "`application/json`."
)
OUTPUT_VALUE: Final = _name(
    "output.value", "string", "all, when content is captured", _INFERENCE, "What came out, as JSON."
)
OUTPUT_MIME: Final = _name(
    "output.mime_type", "string", "all, when content is captured", _INFERENCE, "`application/json`."
)
INPUT_MESSAGES: Final = _name(
    "gen_ai.input.messages", "string (JSON)", "chat, when content is captured", _GENAI, "The prompt's messages."
)
OUTPUT_MESSAGES: Final = _name(
    "gen_ai.output.messages", "string (JSON)", "chat, when content is captured", _GENAI, "The model's messages."
)
INPUT_CUT: Final = _name("input.value.truncated", "boolean", "all", _FLOW, "The value was longer than the limit.")
OUTPUT_CUT: Final = _name("output.value.truncated", "boolean", "all", _FLOW, "The value was longer than the limit.")
INPUT_BLOB: Final = _name("flow.input.blob", "string", "all", _FLOW, "SHA-256 under which the store keeps the payload.")
OUTPUT_BLOB: Final = _name(
    "flow.output.blob", "string", "all", _FLOW, "SHA-256 under which the store keeps the payload."
)

# -- links -----------------------------------------------------------------------------------------------------------
LINK_KIND: Final = _name(
    "flow.link.kind",
    "string",
    "link",
    _FLOW,
    "`retry_of`, `previous_segment`, `previous_trace`, `parent_run`.",
)

# -- events and logs -------------------------------------------------------------------------------------------------
EXCEPTION_TYPE: Final = _name("exception.type", "string", "event, log", _OTEL, "Class name with its module.")
EXCEPTION_MESSAGE: Final = _name("exception.message", "string", "event, log", _OTEL, "The error's text.")
EXCEPTION_STACKTRACE: Final = _name("exception.stacktrace", "string", "event, log", _OTEL, "The traceback.")
LOG_UID: Final = _name("log.record.uid", "string", "event, log", _OTEL, "The event's id; receivers may dedupe by it.")
EVENT_LEVEL: Final = _name("flow.event.level", "string", "event", _FLOW, "The event's level, when above INFO.")
EVENT_MESSAGE: Final = _name("flow.event.message", "string", "event", _FLOW, "The event's message.")
EVENT_ACTOR: Final = _name("flow.event.actor", "string", "event, log", _FLOW, "Who did it.")
EVENT_TARGET: Final = _name("flow.event.target", "string", "event, log", _FLOW, "Step, signal or key it is about.")
EVENT_KIND: Final = _name("flow.event.kind", "string", "event, log", _FLOW, "Kind of signal, intervention or request.")
EVENT_STATUS: Final = _name("flow.event.status", "string", "event, log", _FLOW, "What became of it.")
EVENT_OBJECT: Final = _name("flow.event.object_id", "string", "event, log", _FLOW, "Id of the signal or intervention.")
PAYLOAD: Final = _name("flow.payload", "string (JSON)", "log, when content is captured", _FLOW, "The event's payload.")
PAYLOAD_CUT: Final = _name("flow.payload.truncated", "boolean", "log", _FLOW, "The payload was longer than the limit.")
CE_SOURCE: Final = _name("cloudevents.event_source", "string", "log", _OTEL, "The event's source.")

INSTRUMENTS: Final[dict[str, Instrument]] = {
    item.name: item
    for item in (
        Instrument(
            "gen_ai.workflow.duration", "histogram", "s", (WORKFLOW_NAME, OUTCOME, ERROR_TYPE), _GENAI,
            "From an execution's start to its end, its waits included.",
        ),
        Instrument(
            "flow.step.duration", "histogram", "s", (FLOW_NAME, STEP_NAME, OUTCOME, ERROR_TYPE), _FLOW,
            "One attempt of a step.",
        ),
        Instrument(
            "gen_ai.execute_tool.duration", "histogram", "s", (TOOL_NAME, OUTCOME, ERROR_TYPE), _GENAI, "One action.",
        ),
        Instrument(
            "gen_ai.invoke_agent.duration", "histogram", "s", (AGENT_NAME, OUTCOME, ERROR_TYPE), _GENAI,
            "One turn of an agent.",
        ),
        Instrument(
            "gen_ai.client.operation.duration", "histogram", "s", (OPERATION, PROVIDER, REQUEST_MODEL, ERROR_TYPE),
            _GENAI, "One call of a model.",
        ),
        Instrument(
            "gen_ai.client.token.usage", "histogram", "{token}",
            (OPERATION, PROVIDER, REQUEST_MODEL, "gen_ai.token.type"), _GENAI, "Tokens of one call: `input`, `output`.",
        ),
        Instrument(
            "flow.wait.duration", "histogram", "s", (FLOW_NAME, WAIT_KIND, WAIT_RESOLUTION), _FLOW,
            "From a question to its answer.",
        ),
        Instrument("flow.runs.active", "updowncounter", "{run}", (FLOW_NAME,), _FLOW, "Executions that are open."),
    )
}  # fmt: skip
"""Every metric by name. Run and session ids are never metric attributes: their number has no bound."""
TOKEN_TYPE: Final = _name("gen_ai.token.type", "string", "metric", _GENAI, "`input` or `output`.")


def attributes_markdown() -> str:
    """Return the table of attributes for the documentation."""
    lines = ["| attribute | type | on | from | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{a.name}` | {a.type} | {a.on} | {a.origin} | {a.summary} |" for a in ATTRIBUTES.values()]
    return "\n".join(lines)


def instruments_markdown() -> str:
    """Return the table of metrics for the documentation."""
    lines = ["| metric | kind | unit | attributes | meaning |", "|---|---|---|---|---|"]
    for item in INSTRUMENTS.values():
        names = ", ".join(f"`{name}`" for name in item.attributes)
        lines.append(f"| `{item.name}` | {item.kind} | {item.unit} | {names} | {item.summary} |")
    return "\n".join(lines)
