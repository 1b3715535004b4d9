"""Reading a ``trigger_flow/v1`` config: the blueprint it describes, with handlers found by name.

Everything is checked before anything of a flow changes: shape and types first, then names, groups and signals, and at
last the compiled plan. A config is data somebody may have edited: nothing in it is executed or imported.
Configs of the compatible API are read, too; where its operators are cut otherwise, they are joined here
(:meth:`_Loader._foreign_batch`, :meth:`_Loader._arms`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from flowdeck.definition.bindings import SubFlow, parse_capture, parse_write_back
from flowdeck.definition.blueprint import CONFIG_VERSION, Blueprint, Chunk
from flowdeck.definition.config import GROUPS
from flowdeck.definition.config_options import (
    annotation_of,
    limit_of,
    mode_of,
    need_texts,
    retry_of,
    texts_of,
    timeout_of,
)
from flowdeck.definition.config_schema import KINDS, FlowConfig, OpConfig, RefConfig
from flowdeck.definition.operators import Case, Operator, Trigger, completion_event
from flowdeck.definition.plan import compile_plan
from flowdeck.errors import ConfigError, ConfigVersionError, DefinitionError, HandlerNotRegistered

__all__ = ["blueprint_from_config"]

_OPENERS: Final = ("for_each_split", "batch_fanout", "match_route")
_ENDS: Final = ("for_each_collect", "batch_collect", "match_collect")
_TRIGGER_TYPES: Final = ("event", "runtime_data", "flow_data")
_COMMON_OPTIONS: Final = frozenset(
    {"annotation", "mode", "concurrency", "retry", "timeout", "replay_safe", "members", "cases"}
)
_SUB_FLOW_OPTIONS: Final = ("sub_flow_name", "sub_flow_config")
_MAX_NESTING: Final = 32


FlowMaker = Callable[[Blueprint], Any]


def blueprint_from_config(config: Any, known: Blueprint, make_flow: FlowMaker, depth: int = 0) -> Blueprint:
    """Return the blueprint a config describes.

    Args:
        known: whose registered handlers and conditions, and named chunks, the config may refer to.
        make_flow: makes a flow of a sub flow's blueprint.

    Raises:
        TypeError: the config is no mapping.
        ConfigVersionError: it has another version.
        HandlerNotRegistered: it names a handler or condition nobody registered.
        ConfigError: anything else about it is wrong; the message names the place.
    """
    if not isinstance(config, dict):
        raise TypeError(f"a flow config is a mapping, got {type(config).__name__}")

    version = config.get("version")
    if version != CONFIG_VERSION:
        raise ConfigVersionError(f"the flow config has version {version!r}; this reads {CONFIG_VERSION!r}")

    if depth > _MAX_NESTING:
        raise ConfigError(f"the flow config has sub flows in sub flows more than {_MAX_NESTING} deep")

    try:
        checked = msgspec.convert(config, FlowConfig)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise ConfigError(f"the flow config is not valid: {problem}") from None

    blueprint = _Loader(checked, known, make_flow, depth).blueprint()
    try:
        compile_plan(blueprint)
    except DefinitionError as problem:
        raise ConfigError(str(problem)) from None

    return blueprint


class _Loader:
    """One config, on its way to a blueprint."""

    def __init__(self, config: FlowConfig, known: Blueprint, make_flow: FlowMaker, depth: int) -> None:
        self._config = config
        self._known = known
        self._make_flow = make_flow
        self._depth = depth
        self._blueprint = Blueprint(config.name or known.name)
        self._openers: dict[str, OpConfig] = {}
        self._match_ends: dict[str, OpConfig] = {}
        self._match_arms: dict[str, list[OpConfig]] = {}
        """All three by group id."""

    def blueprint(self) -> Blueprint:
        blueprint = self._blueprint
        blueprint.handlers, blueprint.conditions = self._known.handlers.copy(), self._known.conditions.copy()
        blueprint.meta = dict(self._config.meta or {})
        blueprint.contract = dict(self._config.contract or {})
        self._check_names()
        for op in self._config.operators:
            if op.kind != "match_case":
                made = blueprint.operators[op.id] = self._operator(op)
                if made.kind == "chunk":
                    self._chunk(op, made)

        for op in self._config.operators:
            made_op = blueprint.operators.get(op.id)
            if made_op is not None and made_op.kind == "batch_fanout" and not made_op.members:
                self._foreign_batch(op, made_op)

        self._check_blocks()
        return blueprint

    # -- checks ----------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        seen: set[str] = set()
        keys: set[str] = set()
        for op in self._config.operators:
            if not op.id:
                raise ConfigError("the flow config has an operator with an empty id")

            if op.id in seen:
                raise ConfigError(f"the flow config has two operators with the id {op.id!r}")

            if op.key is not None and (not op.key or op.key in keys):
                raise ConfigError(f"{op}: the key {op.key!r} is empty or stands twice")

            seen.add(op.id)
            keys.add(op.key or "")
            if op.kind not in KINDS:
                raise ConfigError(f"{op}: there is no such kind; choose from {', '.join(KINDS)}")

            if op.kind in _OPENERS:
                self._openers[op.group_id or op.id] = op
            elif op.kind == "match_collect":
                self._match_ends[op.group_id or ""] = op
            elif op.kind == "match_case":
                self._match_arms.setdefault(op.group_id or "", []).append(op)

    def _check_blocks(self) -> None:
        operators = self._blueprint.operators
        emitted: dict[str, str] = {}
        for op in operators.values():
            opener = operators.get(op.group_id or "")
            if op.kind in _ENDS and (opener is None or GROUPS[opener.kind] != GROUPS[op.kind] or opener is op):
                raise ConfigError(f"{op.kind} {op.name!r} ({op.id}): group_id {op.group_id!r} opens no such block")

            if op.kind == "match_route" and not op.cases:
                raise ConfigError(f"{op.kind} {op.name!r} ({op.id}): it has no match_case")

            for member in op.members:
                if member not in operators or operators[member].kind != "chunk":
                    raise ConfigError(f"{op.kind} {op.name!r} ({op.id}): member {member!r} is no chunk of the config")

            events = [op.emits, *(case.emits for case in op.cases), *([op.else_emits] if op.else_emits else [])]
            for event in events if op.kind != "collect_branch" else ():
                if emitted.setdefault(event, op.id) != op.id:
                    raise ConfigError(f"operators {emitted[event]!r} and {op.id!r} both emit {event!r}")

    # -- operators -------------------------------------------------------------------------------------------------

    def _operator(self, op: OpConfig) -> Operator:
        options = {k: v for k, v in op.options.items() if k not in _COMMON_OPTIONS and k not in _SUB_FLOW_OPTIONS}
        name = op.name or op.kind
        mode = mode_of(op)
        made = Operator(
            id=op.id,
            key=self._blueprint.unique_key(op.id, op.key or name.partition(":")[0]),
            kind="chunk" if op.kind == "result_sink" else op.kind,
            name=name,
            emits=self._emits(op),
            listens=[],
            group_id=self._group(op),
            parent_group_id=self._parent(op),
            timeout=timeout_of(op),
            replay_safe=op.options.get("replay_safe") is not False,
            concurrency=limit_of(op),
            mode=mode,
            options=options,
            declared_emits=[s.trigger_event for s in op.emit_signals if s.role == "declared_emit"],
        )
        for signal in op.listen_signals:
            if signal.trigger_type not in _TRIGGER_TYPES:
                raise ConfigError(f"{op}: it listens to a {signal.trigger_type!r}, which is no trigger type")

            made.listen(Trigger(signal.trigger_type, signal.trigger_event))

        if made.kind == "chunk":
            made.handler = self._handler(op)
            made.retry = retry_of(op)
        elif op.kind == "match_route":
            self._arms(op, made)
        elif op.kind == "match_collect":
            route = self._openers.get(op.group_id or "")
            if route is not None:  # the value that no arm has taken
                made.listen(Trigger.event(self._emits(route)))
        elif op.kind == "batch_fanout":
            made.members = texts_of(op, "members")
        elif op.kind == "collect_branch":
            need_texts(op, "collection_name", "branch_id")
        elif op.kind == "intervention_point":
            target = op.options.get("target")
            if not (target is None or (isinstance(target, str) and target)):
                raise ConfigError(f"{op}: options.target must be text or null, got {target!r:.80}")
        elif op.kind == "sub_flow":
            self._sub_flow(op, made)

        return made

    def _chunk(self, op: OpConfig, made: Operator) -> None:
        if made.name in self._blueprint.chunks:
            raise ConfigError(f"{op}: another chunk of the config has that name")

        assert made.handler is not None
        named = op.handler_ref is not None and op.handler_ref.kind == "registered" and op.handler_ref.name == op.name
        self._blueprint.chunks[made.name] = Chunk(
            op.id, made.name, made.handler, made.emits, made.declared_emits, named=named
        )

    def _emits(self, op: OpConfig) -> str:
        goes_on = [s.trigger_event for s in op.emit_signals if s.role == "continuation"]
        if op.kind == "batch_fanout" and not goes_on:
            return f"Batch-{op.id}-Send"

        if op.kind == "match_route" and self._is_result_of(op, goes_on):
            return f"Match-{op.id}-Pass"

        if op.kind == "result_sink" and not goes_on:
            return completion_event("result", op.id)

        if len(goes_on) != 1 or not goes_on[0]:
            raise ConfigError(f"{op}: it needs one signal with the role 'continuation' in emit_signals")

        return goes_on[0]

    def _is_result_of(self, route: OpConfig, events: list[str]) -> bool:
        """The compatible API lets a match emit its own result when no case holds; here its end does."""
        end = self._match_ends.get(route.group_id or route.id)
        return end is not None and events == [s.trigger_event for s in end.emit_signals if s.role == "continuation"]

    def _group(self, op: OpConfig) -> str | None:
        if op.kind in _OPENERS or op.kind == "collect_branch":
            return op.id

        if op.kind in _ENDS:
            opener = self._openers.get(op.group_id or "")
            return opener.id if opener is not None else op.group_id

        return None

    def _parent(self, op: OpConfig) -> str | None:
        wanted = op.parent_group_id
        if wanted is None and op.kind not in _OPENERS + _ENDS and op.kind != "collect_branch":
            wanted = op.group_id  # as the compatible API has it: a step belongs to the group it stands in

        if wanted is None:
            return None

        opener = self._openers.get(wanted)
        if opener is None or opener.id == op.id:
            raise ConfigError(f"{op}: it stands in the group {wanted!r}, which nothing in the config opens")

        return opener.id

    def _arms(self, op: OpConfig, made: Operator) -> None:
        for arm in self._match_arms.get(op.group_id or op.id, ()):
            emits = self._emits(arm)
            if arm.options.get("is_else"):
                made.else_emits = emits
            elif arm.condition_ref is not None:
                condition = self._find(arm, arm.condition_ref, "condition")
                made.cases.append(Case(str(arm.options.get("case_id", arm.id)), condition, emits))
            elif "condition_value" in arm.options:
                value = arm.options["condition_value"]
                made.cases.append(Case(str(arm.options.get("case_id", arm.id)), value, emits))
            else:
                raise ConfigError(f"{arm}: it has neither a condition_ref nor options.condition_value")

    def _foreign_batch(self, op: OpConfig, made: Operator) -> None:
        """The compatible API gives every member of a batch an event of its own; here they share one."""
        inputs = [Trigger.event(s.trigger_event) for s in op.emit_signals if s.role is None]
        listening: dict[Trigger, Operator] = {}
        for member in self._blueprint.operators.values():
            listening.update((trigger, member) for trigger in member.listens)

        for trigger in inputs:
            found = listening.get(trigger)
            if found is not None:
                found.listens[found.listens.index(trigger)] = Trigger.event(made.emits)
                made.members.append(found.id)

        if not made.members:
            raise ConfigError(f"{op}: it has no members")

    def _sub_flow(self, op: OpConfig, made: Operator) -> None:
        config = op.options.get("sub_flow_config")
        if config is None:
            raise ConfigError(f"{op}: options.sub_flow_config is missing, so there is nothing to run")

        try:
            child = blueprint_from_config(config, self._known, self._make_flow, self._depth + 1)
            capture, write_back = op.options.get("capture"), op.options.get("write_back")
            spec = (parse_capture(str(op), capture), parse_write_back(str(op), write_back))
        except (DefinitionError, TypeError) as problem:
            kind = type(problem) if isinstance(problem, ConfigError) else ConfigError
            raise kind(f"{op}: {problem}") from None

        made.sub_flow = SubFlow(self._make_flow(child), *spec, limit_of(op))
        made.options["capture"] = capture or {}
        made.options["write_back"] = write_back or {}

    # -- names -----------------------------------------------------------------------------------------------------

    def _handler(self, op: OpConfig) -> Callable[..., Any]:
        if "annotation" in op.options:
            return annotation_of(op)

        ref = op.handler_ref or (RefConfig(name="$final_result") if op.kind == "result_sink" else None)
        if ref is None:
            raise ConfigError(f"{op}: it has no handler_ref")

        return self._find(op, ref, "chunk")

    def _find(self, op: OpConfig, ref: RefConfig, kind: str) -> Callable[..., Any]:
        if not ref.name or ref.kind not in ("registered", "inspected"):
            what = ref.callable_name or ref.kind
            raise ConfigError(
                f"{op}: its {kind} handler is {what!r}, which had no name when the flow was exported; name it there: "
                f"register_{kind}_handler(fn, name=...)"
            )

        known = self._known
        found = known.find_handler(ref.name) if kind == "chunk" else known.conditions.find(ref.name)
        if found is None:
            raise HandlerNotRegistered(
                f"{op}: {kind} handler {ref.name!r} is not registered; before loading, call "
                f"flow.register_{kind}_handler(fn, name={ref.name!r})"
            )

        return found
