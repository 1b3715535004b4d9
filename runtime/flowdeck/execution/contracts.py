"""Contracts: what a flow may be started with, may stream and may set as its result; checked where the value crosses.

A part is any type pydantic understands (models, dataclasses, TypedDicts, type hints) or JSON Schema as a dict. Order at
a start: ``execution_started`` -> the input is checked and converted -> START is dispatched with it; an input that does
not fit fails the run, and no chunk sees it. Stream items are checked and go on as they are; the framework's own items
(interrupts, interventions) are exempt. The result is checked where it is set, so the close snapshot never is.

pydantic is imported when the first contract is set. Source: the compatible API's contracts.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self, Union, get_args, get_origin, get_type_hints, is_typeddict

from flowdeck.definition.contract import PARTS, TriggerFlowContractSpec
from flowdeck.errors import ContractError
from flowdeck.execution.base import ExecutionBase
from flowdeck.execution.json_schema import check
from flowdeck.execution.schema import schema_of
from flowdeck.execution.values import copy_value

if TYPE_CHECKING:
    from flowdeck.definition.blueprint import Blueprint
    from flowdeck.events.lineage import RunContext

__all__ = ["Contract", "ContractMixin", "ContractScope"]

_UNSET: Final[Any] = object()


class _Part:
    """One part of a contract, ready to check values."""

    __slots__ = ("_adapter", "label", "name", "schema")

    def __init__(self, name: str, given: Any) -> None:
        self.name = name
        self._adapter: Any = None
        if isinstance(given, dict):
            self.schema: Any = schema_of(given)
            self.label = str(given.get("title") or given.get("type") or "JSON Schema")
            return

        self._adapter, self.schema = _understood(name, given)
        title = self.schema.get("title") if isinstance(self.schema, dict) else None
        self.label = str(title or getattr(given, "__name__", None) or given)

    def checked(self, value: Any, flow_name: str) -> Any:
        """Return ``value`` as the part's type has it.

        Raises:
            ContractError: it does not fit; pydantic's report is the cause.
        """
        if self._adapter is None:
            problems = check(value, self.schema, self.name).errors
            if problems:
                raise ContractError(flow_name, self.name, self.label, problems)

            return value

        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value)
        except ValidationError as exc:
            problems = [
                f"{'.'.join((self.name, *map(str, error['loc'])))}: {error['msg']}"
                for error in exc.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise ContractError(flow_name, self.name, self.label, problems) from exc

    def describe(self) -> dict[str, Any]:
        return {"label": self.label, "schema": copy_value(self.schema)}


class Contract:
    """A contract that can be checked. Immutable: executions keep the one they were created with."""

    __slots__ = ("initial_input", "result", "spec", "stream")

    def __init__(self, spec: TriggerFlowContractSpec) -> None:
        self.spec = spec
        self.initial_input, self.stream, self.result = (
            None if getattr(spec, name) is None else _Part(name, getattr(spec, name)) for name in PARTS
        )

    def describe(self) -> dict[str, Any]:
        """Return the contract as JSON-safe data: the schema of each part, and those of the framework's own items."""
        described: dict[str, Any] = {}
        for name in PARTS:
            part: _Part | None = getattr(self, name)
            described[name] = None if part is None else part.describe()

        return {**described, "meta": copy_value(dict(self.spec.meta)), "system_stream": _system_stream()}


class ContractScope:
    """``flow.set_contract`` and its relatives."""

    _blueprint: Blueprint
    _contract: Contract | None = None

    def set_contract(
        self, *, initial_input: Any = _UNSET, stream: Any = _UNSET, result: Any = _UNSET, meta: Any = _UNSET
    ) -> Self:
        """Say what the flow takes and gives. Parts that are not given stay as they are; ``None`` removes one.

        Executions created before keep the contract they were created with.

        Args:
            initial_input: what a run may be started with; it is converted too, ``"3"`` to 3 for an ``int``.
            stream: what may be put on the runtime stream.
            result: what ``set_result`` takes.
            meta: anything else to publish with the contract, a dict.

        Raises:
            TypeError: a part is neither a type pydantic understands nor JSON Schema, or ``meta`` is no dict.
        """
        given = {"initial_input": initial_input, "stream": stream, "result": result, "meta": meta}
        changes = {name: value for name, value in given.items() if value is not _UNSET}
        if "meta" in changes:
            if not isinstance(changes["meta"], Mapping | None):
                raise TypeError(f"set_contract(meta={changes['meta']!r}): expected a dict")

            changes["meta"] = types.MappingProxyType(copy_value(dict(changes["meta"] or {}), "meta"))

        spec = replace(self.get_contract(), **changes)
        contract = Contract(spec)
        self._contract = None if spec == TriggerFlowContractSpec() else contract
        self._blueprint.contract = {} if self._contract is None else contract.describe()
        return self

    def get_contract(self) -> TriggerFlowContractSpec:
        """Return the contract as it was given."""
        return TriggerFlowContractSpec() if self._contract is None else self._contract.spec

    def get_contract_metadata(self) -> dict[str, Any]:
        """Return the contract as schemas: each part ``{label, schema}`` or ``None``, ``meta``, and the schemas of the
        framework's own stream items; ``{}`` without a contract. After a config was loaded: what that described."""
        return dict(self._blueprint.contract) if self._contract is None else self._contract.describe()

    def _adopt(self, blueprint: Blueprint) -> None:
        """Another definition is taken over: nothing is promised of it until :meth:`set_contract`."""
        self._contract = None
        super()._adopt(blueprint)  # type: ignore[misc]


class ContractMixin(ExecutionBase):
    """The part of an execution that keeps to its flow's contract."""

    def get_contract(self) -> TriggerFlowContractSpec:
        """Return the contract the execution was created with."""
        return TriggerFlowContractSpec() if self._contract is None else self._contract.spec

    def get_contract_metadata(self) -> dict[str, Any]:
        """Return the contract as schemas; ``{}`` without one. See :meth:`ContractScope.get_contract_metadata`."""
        return {} if self._contract is None else self._contract.describe()

    def _admitted(self, initial_value: Any) -> Any:
        """Return the value a run begins with, as the contract has it. One that does not fit fails the run.

        Raises:
            ContractError: it does not fit.
        """
        part = None if self._contract is None else self._contract.initial_input
        if part is None:
            return initial_value

        try:
            return part.checked(initial_value, self._plan.flow_name)
        except ContractError as error:
            self._core.refuse(type(error).__name__, str(error))
            self._driver.failure = error
            self._emit_event(
                self._events.execution_failed, {"initial_value": initial_value}, message=str(error)[:500], error=error
            )
            self._tell_control("failed")
            raise

    def _check_item(self, item: Any, origin: dict[str, Any] | None, run: RunContext) -> None:
        """Refuse a stream item that does not fit the contract.

        Raises:
            ContractError: it does not fit.
        """
        part = None if self._contract is None else self._contract.stream
        if part is None:
            return

        try:
            part.checked(item, self._plan.flow_name)
        except ContractError as error:
            payload = {"item": item, "origin_chunk": origin}
            self._emit_event(self._events.stream_item_rejected, payload, run=run, message=str(error)[:500], error=error)
            raise

    def _checked_result(self, value: Any) -> Any:
        """Return the value ``set_result`` keeps, as the contract has it.

        Raises:
            ContractError: it does not fit.
        """
        part = None if self._contract is None else self._contract.result
        return value if part is None else part.checked(value, self._plan.flow_name)


# -- types -------------------------------------------------------------------------------------------------------------


def _understood(name: str, given: Any) -> tuple[Any, Any]:
    """Return pydantic's adapter of a type and its JSON Schema, ``None`` when values of it cannot be written as JSON.

    Raises:
        TypeError: pydantic does not understand it.
    """
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation
    from pydantic_core import SchemaError

    wanted = f"set_contract({name}={given!r}): expected a type that pydantic understands, or JSON Schema as a dict"
    if isinstance(given, str | types.FunctionType | types.MethodType):
        raise TypeError(wanted)

    try:
        adapter: Any = TypeAdapter(_modern(given))
        return adapter, adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        return adapter, None
    except (PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError, NameError) as exc:
        raise TypeError(f"{wanted}: {exc}") from exc


def _modern(given: Any) -> Any:
    """Return the type with every TypedDict of the standard library replaced by one pydantic takes.

    Before Python 3.12 the standard library's loses which keys are required, so pydantic refuses it.
    """
    if sys.version_info >= (3, 12):
        return given

    import typing_extensions

    if is_typeddict(given) and type(given).__module__ == "typing":
        plain = get_type_hints(given)
        optional = {
            key
            for key, hint in get_type_hints(given, include_extras=True).items()
            if get_origin(hint) is typing_extensions.NotRequired
            or (key in given.__optional_keys__ and get_origin(hint) is not typing_extensions.Required)
        }
        fields = {
            key: typing_extensions.NotRequired[_modern(hint)] if key in optional else _modern(hint)
            for key, hint in plain.items()
        }
        return typing_extensions.TypedDict(given.__name__, fields)  # type: ignore[operator]

    arguments = get_args(given)
    changed = tuple(_modern(each) for each in arguments)
    if changed == arguments:
        return given

    return Union[changed] if get_origin(given) in (Union, types.UnionType) else get_origin(given)[changed]  # noqa: UP007


_described: dict[str, Any] = {}


def _system_stream() -> dict[str, Any]:
    """Return label and schema of the stream items the framework itself emits."""
    if not _described:
        from pydantic import TypeAdapter

        from flowdeck.definition import stream_items

        for kind, event in (
            ("interrupt", stream_items.TriggerFlowInterruptEvent),
            ("intervention", stream_items.TriggerFlowInterventionEvent),
        ):
            _described[kind] = {"label": event.__name__, "schema": TypeAdapter(event).json_schema()}

    copied: dict[str, Any] = copy_value(_described)
    return copied
