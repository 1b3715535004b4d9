"""What an action takes: its arguments, from a function's type hints or as they were declared, and the check of a call.

Two forms of one thing: ``kwargs`` is the compatible API's ``{name: (type, description)}``, ``parameters`` is the JSON
Schema that models, MCP and the interrupt forms read. A planner's arguments are checked and converted before the
function sees them, so a model's mistake becomes a record that names the argument. Source: behaviour §7.1.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from flowdeck.actions.context import ActionContext
from flowdeck.errors import ActionDefinitionError
from flowdeck.execution.json_schema import check

__all__ = ["Arguments", "declared_arguments", "function_arguments"]

Kwargs = dict[str, Any]
_OPEN: Final[dict[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": True}
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Arguments:
    """The arguments of one action."""

    __slots__ = ("_model", "_types", "injected", "kwargs", "parameters")

    def __init__(
        self,
        kwargs: Kwargs,
        parameters: dict[str, Any],
        *,
        model: Any = None,
        types: Mapping[str, TypeAdapter[Any]] | None = None,
        injected: Collection[str] = (),
    ) -> None:
        self.kwargs = kwargs
        """``{name: (type, description)}``."""
        self.parameters = parameters
        """JSON Schema of an object."""
        self.injected = frozenset(injected)
        """Parameters the runtime fills in: the :class:`ActionContext`."""
        self._model = model
        self._types = types or {}

    def prepare(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return the arguments to call with, and what is wrong with the given ones, if anything is."""
        if self._model is not None:
            try:
                checked = self._model.model_validate(dict(given))
            except ValidationError as problem:
                return dict(given), _first(problem)
            except Exception as problem:  # a validator of the user's own
                return dict(given), f"{type(problem).__name__}: {problem}"

            more = checked.model_extra or {}
            return {**{n: getattr(checked, n) for n in checked.model_fields_set if n not in more}, **more}, None

        out = dict(given)
        for name, adapter in self._types.items():
            if name in out:
                try:
                    out[name] = adapter.validate_python(out[name])
                except ValidationError as problem:
                    return out, f"{name}: {_first(problem)}"

        errors = check(out, self.parameters).errors
        return out, errors[0] if errors else None


def _first(problem: ValidationError) -> str:
    found = problem.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {found['msg']}" if place else str(found["msg"])


def function_arguments(label: str, function: Callable[..., Any], resources: Collection[str] = ()) -> Arguments:
    """Read the arguments of a function; ``resources`` are parameters its execution environments fill in.

    Raises:
        ActionDefinitionError: a type hint cannot be resolved or described, or the function takes positional-only ones.
    """
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as problem:
        raise ActionDefinitionError(f"action {label!r}: its signature cannot be read: {problem}") from problem

    kwargs: Kwargs = {}
    fields: dict[str, Any] = {}
    injected: list[str] = []
    takes_any = False
    for name, parameter in signature.parameters.items():
        hint = hints.get(name, Any)
        if _bare(hint) is ActionContext:
            injected.append(name)
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ActionDefinitionError(f"action {label!r}: parameter {name!r} is positional-only; calls go by name")
        elif parameter.kind in _VARIADIC:
            takes_any = takes_any or parameter.kind is inspect.Parameter.VAR_KEYWORD
        elif name not in resources:
            fields[name] = _field(hint, parameter)
            kwargs[name] = _described(hint, parameter)

    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=False)
    try:
        model = create_model(f"{label} arguments", __config__=config, **fields)
        parameters = model.model_json_schema()
    except Exception as problem:  # pydantic raises many kinds here
        raise ActionDefinitionError(f"action {label!r}: its type hints cannot be described: {problem}") from problem

    parameters.pop("title", None)
    return Arguments(kwargs, parameters, model=model, injected=injected)


def _bare(hint: Any) -> Any:
    """Return the class of ``Annotated[T, …]`` and ``T | None``."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]

    parts = [each for each in get_args(hint) if each is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in get_args(hint) else hint


def _field(hint: Any, parameter: inspect.Parameter) -> Any:
    described = _description(hint)
    if get_origin(hint) is Annotated and not any(isinstance(each, FieldInfo) for each in get_args(hint)[1:]):
        hint = get_args(hint)[0]

    default = ... if parameter.default is parameter.empty else parameter.default
    return (hint, Field(default, description=described) if described else default)


def _description(hint: Any) -> str:
    if get_origin(hint) is not Annotated:
        return ""

    for each in get_args(hint)[1:]:
        text = each if isinstance(each, str) else getattr(each, "description", None)
        if isinstance(text, str):
            return text

    return ""


def _described(hint: Any, parameter: inspect.Parameter) -> tuple[Any, str]:
    text = _description(hint)
    if parameter.default is not parameter.empty:
        text = f"{text} Default: {parameter.default}".strip()

    return (get_args(hint)[0] if get_origin(hint) is Annotated else hint, text)


def declared_arguments(label: str, kwargs: Mapping[str, Any] | None) -> Arguments:
    """Take over declared arguments: ``{name: type}``, ``{name: (type, description)}`` or a JSON Schema.

    Raises:
        ActionDefinitionError: they are none of these.
    """
    if kwargs is None:
        return Arguments({}, dict(_OPEN))

    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise ActionDefinitionError(f"action {label!r}: kwargs= takes {{name: (type, description)}}, got {kwargs!r}")

    if kwargs.get("type") == "object" and isinstance(kwargs.get("properties"), Mapping):
        properties: dict[str, Any] = dict(kwargs["properties"])
        shown = {name: (part.get("type", "any"), part.get("description", "")) for name, part in properties.items()}
        return Arguments(shown, dict(kwargs))

    parts: dict[str, Any] = {}
    types: dict[str, TypeAdapter[Any]] = {}
    shown = {}
    for name, spec in kwargs.items():
        pair = tuple(spec) if isinstance(spec, tuple | list) else (spec,)
        hint, text = pair[0] if pair else Any, str(pair[1]) if len(pair) > 1 else ""
        adapter = _adapter(hint)
        part = {} if adapter is None else adapter.json_schema()
        if adapter is not None:
            types[name] = adapter

        parts[name] = {**part, "description": text} if text else part
        shown[name] = (hint, text)

    return Arguments(shown, {"type": "object", "properties": parts, "additionalProperties": True}, types=types)


_NAMED: Final[dict[str, Any]] = {
    "str": str, "string": str, "int": int, "integer": int, "float": float, "number": float, "bool": bool,
    "boolean": bool, "dict": dict, "object": dict, "list": list, "array": list,
}  # fmt: skip


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """Return what checks a type; ``None`` for one that is only a text for the reader, as the compatible API allows."""
    if isinstance(hint, str):
        hint = _NAMED.get(hint.strip().lower())

    if hint is None or hint is Any or not (isinstance(hint, type) or typing.get_origin(hint) is not None):
        return None

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema()
    except Exception:  # no schema can be made of it: the declaration stays a description
        return None

    return adapter
