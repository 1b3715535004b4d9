"""Every public name of the compatible API's flows and events is there, and takes the parameters it took."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flowdeck.compat
from flowdeck.compat import Agently, TriggerFlow
from flowdeck.compat.agently import NOT_BUILT

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"

START = "initial_value timeout concurrency runtime_resources run_context parent_run_context auto_close_timeout"
CREATE = (
    "skip_exceptions concurrency runtime_resources execution_environments run_context parent_run_context auto_close "
    "auto_close_timeout owner_id lease_ttl intervention_mode intervention_policy resume_handle_exposed"
)
PAUSE = "type payload resume_event interrupt_id resume_to"
CONSUMED = "status note metadata"
WRITES: dict[str, str | None] = {
    f"{mode}{verb}_{scope}": "key emit" if verb == "del" else "key value emit"
    for mode in ("", "async_")
    for verb in ("set", "append", "del")
    for scope in ("state", "runtime_data", "flow_data")
}
HELPER = "event_type message"
ANSWERS = "ensure_keys validate_handler key_style max_retries raise_ensure_failure"

# Name -> the parameters the behaviour's sections 1 to 5 give it; None: an attribute or a property.
NAMES: dict[str, dict[str, str | None]] = {
    "flow": {
        **dict.fromkeys(["name", "settings", "chunks"], None),
        "set_settings": "key value auto_load_env raise_empty", "chunk": "",
        "load_settings": "data_type value auto_load_env raise_empty",
        "to": "chunk side_branch name", "side_branch": "chunk name", "when": "mode", "batch": "side_branch concurrency",
        "for_each": "concurrency", "match": "mode", "if_condition": "condition",
        "collect": "collection_name branch_id mode",
        "to_sub_flow": "flow side_branch name capture write_back concurrency", "intervention_point": "name target",
        "register_chunk_handler": "name", "register_condition_handler": "name",
        "set_contract": "initial_input stream result meta", "get_contract": "", "get_contract_metadata": "",
        "get_flow_config": "validate_serializable", "get_json_flow": "save_to encoding",
        "get_yaml_flow": "save_to encoding",
        "load_flow_config": "config replace", "load_json_flow": "path_or_content replace encoding",
        "load_yaml_flow": "path_or_content replace encoding", "save_blueprint": "", "load_blueprint": "new_blueprint",
        "to_mermaid": "mode",
        "get_flow_data": "key default no_warning", "set_flow_data": "key value emit no_warning",
        "append_flow_data": "key value emit no_warning", "del_flow_data": "key emit no_warning",
        "async_set_flow_data": "key value emit no_warning", "async_append_flow_data": "key value emit no_warning",
        "async_del_flow_data": "key emit no_warning",
        "set_runtime_resource": "key value", "get_runtime_resource": "key default", "del_runtime_resource": "key",
        "update_runtime_resources": "", "clear_runtime_resources": "",
        "create_execution": CREATE, "start_execution": START + " owner_id intervention_mode",
        "async_start_execution": START + " wait_for_result owner_id lease_ttl intervention_policy",
        "start": START + " auto_close owner_id", "async_start": START + " auto_close wait_for_result",
        "get_async_runtime_stream": "initial_value timeout concurrency runtime_resources",
        "get_runtime_stream": "initial_value timeout concurrency runtime_resources", "remove_execution": "execution",
    },
    "process": {
        "to": "chunk side_branch name", "side_branch": "chunk name", "when": "mode", "batch": "side_branch concurrency",
        "for_each": "concurrency", "end_for_each": "", "match": "mode", "case": "condition", "case_else": "",
        "end_match": "", "if_condition": "condition", "elif_condition": "condition", "else_condition": "",
        "end_condition": "", "collect": "collection_name branch_id mode",
        "to_sub_flow": "flow side_branch name capture write_back concurrency", "intervention_point": "name target",
        "end": "", "____": "log_info print_info show_value",
    },
    "chunk": {
        **dict.fromkeys(["id", "name", "trigger", "emit_signals", "callable_ref"], None), "declare_emits": "",
    },
    "execution": {
        **dict.fromkeys(["id", "run_context", "settings", "result"], None),
        "start": "initial_value wait_for_result timeout", "async_start": "initial_value wait_for_result timeout",
        **dict.fromkeys(["emit", "async_emit", "emit_nowait", "async_emit_nowait"], "event value _layer_marks"),
        **dict.fromkeys(
            ["get_status", "get_lifecycle_state", "is_open", "is_sealed", "is_closed", "is_idle", "is_waiting",
             "get_last_signal", "get_runtime_resources", "get_sub_flow_frames", "get_contract",
             "get_contract_metadata", "get_pending_interrupts", "clear_runtime_resources", "stop_stream",
             "async_stop_stream"],
            "",
        ),
        "set_concurrency": "concurrency", "seal": "reason", "unseal": "reason", "async_seal": "reason",
        "async_unseal": "reason", "close": "reason timeout seal pending_interrupts",
        "async_close": "reason timeout seal pending_interrupts",
        "get_state": "key default",
        **WRITES,
        "get_runtime_data": "key default inherit", "get_flow_data": "key default no_warning",
        "set_runtime_resource": "key value", "get_runtime_resource": "key default", "del_runtime_resource": "key",
        "require_runtime_resource": "key", "update_runtime_resources": "",
        "put_into_stream": "item", "async_put_into_stream": "item",
        "get_runtime_stream": "initial_value timeout", "get_async_runtime_stream": "initial_value timeout",
        "pause_for": PAUSE, "async_pause_for": PAUSE, "continue_with": "interrupt_id value",
        "async_continue_with": "interrupt_id value", "get_interrupt": "interrupt_id",
        "save": "path encoding require_idle", "load": "state encoding runtime_resources",
        "intervene": "payload author note target metadata", "async_intervene": "payload author note target metadata",
        "async_reject_intervention": "reason author",
        "get_interventions": "status target since_version", "get_pending_interventions": "target",
        "get_latest_intervention": "default", "mark_intervention_consumed": "intervention_id consumer " + CONSUMED,
        "async_mark_intervention_consumed": "intervention_id consumer " + CONSUMED,
        "set_result": "result", "get_result": "timeout", "async_get_result": "timeout",
        "set_settings": "key value", "load_settings": "data_type value",
    },
    "result": {
        "get_state": "key default", "get_meta": "", "get_interventions": "status target since_version consumed_by",
        "get_latest_intervention": "default", "get_final_result": "timeout", "async_get_final_result": "timeout",
    },
    "data": {
        **dict.fromkeys(
            ["value", "input", "inputs", "trigger_event", "event", "trigger_type", "type", "execution", "execution_id",
             "settings", "signal", "signal_id", "signal_source", "signal_meta", "signal_info", "chunk_run_context",
             "layer_mark", "upper_layer_mark", "is_resume", "resume", "state", "flow_state", "resources",
             "interventions"],
            None,
        ),
        "layer_in": "", "layer_out": "", "get_state": "key default", "get_flow_data": "key default",
        **WRITES,
        "get_runtime_data": "key default inherit",
        "get_resource": "key default", "require_resource": "key", "set_resource": "key value", "del_resource": "key",
        **dict.fromkeys(["emit", "async_emit", "emit_nowait", "async_emit_nowait"], "event value _layer_marks"),
        **dict.fromkeys(["put", "async_put", "put_into_stream", "async_put_into_stream"], "item"),
        "stop_stream": "", "async_stop_stream": "", "pause_for": PAUSE, "async_pause_for": PAUSE,
        "continue_with": "interrupt_id value", "async_continue_with": "interrupt_id value", "get_status": "",
        "is_waiting": "", "get_interrupt": "interrupt_id", "get_pending_interrupts": "",
        "get_interventions": "status target since_version", "get_latest_intervention": "default",
        "mark_intervention_consumed": "intervention_id consumer " + CONSUMED,
        "async_mark_intervention_consumed": "intervention_id consumer " + CONSUMED,
        "set_result": "result", "get_result": "", "get_last_signal": "",
    },
    "state": {
        **dict.fromkeys(["get", "set", "append", "delete", "async_set", "async_append", "async_del", "to_dict", "keys",
                         "values", "items", "__getitem__", "__contains__", "__iter__", "__len__"], None),
    },
    "flow_state": dict.fromkeys(["get", "set", "append", "delete", "async_set", "async_append", "async_del"], None),
    "signal": dict.fromkeys(
        ["id", "trigger_event", "trigger_type", "value", "layer_marks", "source", "meta"], None
    ),
    "signal_info": {**dict.fromkeys(["event", "type", "source", "meta", "value"], None), "to_dict": ""},
    "event": dict.fromkeys(
        ["event_id", "event_type", "source", "level", "message", "payload", "error", "run", "meta", "timestamp"], None
    ),
    "error": dict.fromkeys(
        ["type", "message", "module", "traceback", "retryable", "fatal", "code", "details"], None
    ),
    "constructors": {
        "flow": "blueprint name skip_exceptions", "center": "idle_flush_seconds background_timeout",
        "helper": "response_provider response_warper",
    },
    "helper": dict.fromkeys(["use_post", "use_get", "use_sse", "use_websocket"], "path name dependencies"),
    "resume": {**dict.fromkeys(["interrupt_id", "value", "interrupt", "origin_signal"], None), "to_dict": ""},
    "center": {
        "emit": "event", "async_emit": "event", "create_emitter": "source base_meta base_run",
        "create_observation_emitter": "source base_meta base_run",
        "register_hook": "callback event_types hook_name delivery_policy", "unregister_hook": "hook_name",
        "register_hooker_plugin": "hooker", "unregister_hooker_plugin": "hooker", "async_flush": "hook_name timeout",
        "flush": "timeout",
    },
    "emitter": {
        "async_emit": "event_type level message payload error run meta", "emit": "event_type level message payload run",
        **dict.fromkeys(["async_debug", "async_info", "async_warning", "debug", "info", "warning"], HELPER),
        **dict.fromkeys(["async_error", "async_critical", "error", "critical"], HELPER), "update_base_meta": "",
    },
    "Agently": {
        **dict.fromkeys(["settings", "event_center", "logger", "workspace", "plugin_manager", "AgentType"], None),
        **dict.fromkeys(["action", "tool", "action_runtime", "execution_environment"], None),
        **dict.fromkeys(["create_agent", "create_request", "create_prompt"], "name"), "set_api_key": "api_key",
        **dict.fromkeys(
            ["emit_observation", "async_emit_observation", "emit_runtime", "async_emit_runtime"], "event"
        ),
        "print": "content", "async_print": "content", "set_settings": "key value auto_load_env raise_empty",
        "load_settings": "data_type value auto_load_env raise_empty", "set_log_level": "log_level",
        "set_debug_console": "", "create_observation_bridge": "app_id group_id", "observe": "app_id group_id",
    },
    "agent": {
        **dict.fromkeys(["name", "settings", "action", "tool", "sessions", "activated_session", "workspace"], None),
        "activate_session": "session_id", "deactivate_session": "", "use_workspace": "path_or_backend create mode",
        "use_actions": "items tags", "use_tools": "items tags", "action_func": "", "tool_func": "",
        "async_use_action_mcp": "transport", "async_use_mcp": "transport", "create_request": "",
        **dict.fromkeys(["input", "instruct", "info", "examples", "system", "role"], "mappings always"),
        "output": "mappings always format", "set_agent_prompt": "key value mappings", "attachment": "always",
        "register_action_planning_handler": "handler", "register_action_execution_handler": "handler",
    },
    "request": {
        **dict.fromkeys(["input", "instruct", "info", "examples", "system", "role"], "mappings always"),
        "output": "mappings always format", "set_request_prompt": "key value mappings",
        **dict.fromkeys(["get_response", "get_result", "start", "async_start", "get_data", "async_get_data"], ANSWERS),
        **dict.fromkeys(["get_data_object", "async_get_data_object"], ANSWERS), "validate": "",
        **dict.fromkeys(["get_text", "async_get_text", "get_meta", "async_get_meta"], ""),
        "get_generator": "type specific", "get_async_generator": "type specific",
    },
    "response": {
        **dict.fromkeys(["id", "attempt_index", "run_context", "result"], None), "cancel_logs": "",
        **dict.fromkeys(["get_data", "async_get_data"], f"type {ANSWERS}"),
        **dict.fromkeys(["get_data_object", "async_get_data_object"], ANSWERS),
        **dict.fromkeys(["get_text", "async_get_text", "get_meta", "async_get_meta"], ""),
        "get_generator": "type specific", "get_async_generator": "type specific",
    },
    "session": {
        **dict.fromkeys(["id", "auto_resize", "full_context", "context_window", "memo", "session_settings",
                         "max_length", "input_keys", "reply_keys"], None),
        "set_chat_history": "", "add_chat_history": "", "reset_chat_history": "", "clean_context_window": "",
        "register_session_analysis_handler": "handler", "register_session_resize_handler": "name handler",
        "to_json": "", "to_yaml": "", "load_json": "value", "load_yaml": "value",
    },
    "workspace": {
        "ingest": "content collection kind scope source summary meta profile",
        "put": "content collection kind meta summary scope source", "get": "ref", "get_data": "ref",
        "search": "query filters", "link": "source target relation meta", "links": "ref_or_id source target relation",
        "checkpoint": "run_id state step_id", "latest_checkpoint": "run_id", "checkpoint_history": "run_id step_id",
        "build_context": "goal scope budget profile", "capabilities": "",
    },
    "workspaces": {
        "create": "create mode", "register_profile": "name handler",
        "register_recall_profile": "name profile planner retriever context_builder",
    },
    "bridge": {"watch": "target", "unregister": "", "flush": ""},
    "module": dict.fromkeys(
        ["Agently", "TriggerFlow", "TriggerFlowBlueprint", "TriggerFlowRuntimeData", "TriggerFlowEventData",
         "TriggerFlowContractSpec", "TriggerFlowIntervention", "TriggerFlowInterventionEvent",
         "TriggerFlowInterruptEvent", "TriggerFlowSystemStreamEvent", "print_", "async_print", "ObservationEvent",
         "Agent", "RuntimeEvent", "RunContext", "ErrorInfo", "EventCenter", "normalize_triggerflow_event_type",
         "get_triggerflow_event_aliases", "matches_observation_event_type", "RuntimeConsoleSinkHooker",
         "RuntimeStorageSinkHooker"],
        None,
    ),
    "run_context": {
        **dict.fromkeys(["run_id", "run_kind", "root_run_id", "parent_run_id", "agent_id", "agent_name", "session_id",
                         "response_id", "execution_id", "meta"], None),
        "create": "run_kind run_id parent", "create_child": "run_kind run_id meta",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of each kind of object."""
    seen: dict[str, Any] = {}

    async def look(data: Any) -> None:
        seen.update(data=data, state=data.state, flow_state=data.flow_state, resume=data.resume)
        seen.update(signal=data.signal, signal_info=data.signal_info)

    flow = TriggerFlow(name="names")
    chunk = flow.chunk("look")(look)
    flow.to(chunk)
    execution = flow.create_execution(auto_close=False)
    asyncio.run(execution.async_start(1))
    agent = Agently.create_agent("names").use_workspace(tmp_path_factory.mktemp("workspace"))
    return {
        **seen,
        "flow": flow,
        "process": flow.process,
        "chunk": chunk,
        "execution": execution,
        "result": execution.result,
        "run_context": execution.run_context,
        "center": Agently.event_center,
        "emitter": Agently.event_center.create_emitter("names"),
        "Agently": Agently,
        "agent": agent,
        "request": (request := agent.create_request().use_model("m", base_url="http://127.0.0.1:9", api_key="k")),
        "response": request.get_response(),
        "session": flowdeck.compat.Session("names"),
        "workspace": agent.workspace,
        "workspaces": Agently.workspace,
        "bridge": flowdeck.compat.ObservationBridge,
        "module": flowdeck.compat,
        "event": (event := flowdeck.compat.ObservationEvent(event_type="a.b", error=ValueError("x"))),
        "error": event.error,
        "constructors": SimpleNamespace(
            flow=TriggerFlow, center=flowdeck.compat.EventCenter, helper=flowdeck.compat.FastAPIHelper
        ),
        "helper": flowdeck.compat.FastAPIHelper(response_provider=flow),
    }


@pytest.mark.parametrize("kind", NAMES)
def test_names_and_parameters(kind: str, objects: dict[str, Any]) -> None:
    """Each name is there, and what is called takes each of its parameters by name."""
    missing: list[str] = []
    for name, wanted in NAMES[kind].items():
        if not hasattr(objects[kind], name):
            missing.append(name)
            continue

        value = getattr(objects[kind], name)
        if wanted is not None:
            taken = inspect.signature(value).parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
                missing += [f"{name}({parameter}=)" for parameter in wanted.split() if parameter not in taken]

    assert missing == []


def test_asynchronous_names_are_asynchronous(objects: dict[str, Any]) -> None:
    """Every async_* can be awaited, and has a synchronous twin unless it is one of its own."""
    for kind, names in NAMES.items():
        for name in names:
            if name.startswith("async_") and names[name] is not None:
                function = inspect.unwrap(getattr(objects[kind], name))
                assert inspect.iscoroutinefunction(function), f"{kind}.{name}"


def test_what_is_not_built_says_so() -> None:
    """A name of a part that is missing raises AttributeError with what to use; hasattr is False, as usual."""
    text = DOCUMENT.read_text()
    for name in NOT_BUILT:
        assert not hasattr(Agently, name)
        with pytest.raises(AttributeError, match=rf"Agently\.{name} is not there: .*flowdeck docs compatibility"):
            getattr(Agently, name)

        assert f"`{name}`" in text, name
        for method in re.findall(r"(\w+)\(\)", NOT_BUILT[name]):
            assert hasattr(Agently.action, method) or hasattr(Agently.AgentType, method), method

    with pytest.raises(AttributeError, match="no attribute 'ModelRequest'.*flowdeck docs compatibility"):
        flowdeck.compat.ModelRequest  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="Agently has no attribute 'nonsense'"):
        Agently.nonsense


def test_everything_exported_resolves() -> None:
    """__all__ is sorted as the linter wants, and each of its names leads somewhere."""
    for name in flowdeck.compat.__all__:
        assert getattr(flowdeck.compat, name) is not None

    assert set(flowdeck.compat.__all__) == set(dir(flowdeck.compat))


def test_the_document_has_every_part() -> None:
    """docs/compatibility.md says of everything: same, fixed, different or absent."""
    text = DOCUMENT.read_text()
    assert re.findall(r"^## (\w+)", text, re.M) == ["Same", "Fixed", "Different", "Absent"]
    fixed = text[text.index("## Fixed") : text.index("## Different")]
    absent = text[text.index("## Absent") :]
    defects = set(map(int, re.findall(r"^\| (\d+) \|", fixed, re.M)))
    defects.update(map(int, re.findall(r"defect (\d+)", absent)))
    assert defects == set(range(1, 19)), "each of the reference's reproduced defects is named by its number"
