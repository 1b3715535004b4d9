"""The actions one owner can use: registered by decorator, function, package or hand. Source: behaviour §7.1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from flowdeck.actions.schema import declared_arguments, function_arguments
from flowdeck.actions.spec import SIDE_EFFECTS, ActionExecutor, ActionSpec, FunctionExecutor
from flowdeck.environments.policy import checked_policy
from flowdeck.errors import ActionDefinitionError, ActionNotFound

__all__ = ["ActionPackage", "ActionRegistry"]

F = TypeVar("F", bound=Callable[..., Any])


@runtime_checkable
class ActionPackage(Protocol):
    """A package of actions: it registers what it has, under the tags it is given."""

    def register_actions(self, action: Any, tags: list[str] | None = None) -> Any: ...


class ActionRegistry:
    """Actions by id, and their tags."""

    def __init__(self) -> None:
        self.specs: dict[str, ActionSpec] = {}
        """By action id, in the order they were registered."""

    # -- registering ---------------------------------------------------------------------------------------------

    def register_action(
        self,
        *,
        action_id: str,
        desc: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        func: Callable[..., Any] | None = None,
        executor: ActionExecutor | None = None,
        returns: Any = None,
        tags: str | Iterable[str] | None = None,
        default_policy: Mapping[str, Any] | None = None,
        side_effect_level: str = "read",
        approval_required: bool = False,
        sandbox_required: bool = False,
        replay_safe: bool = True,
        expose_to_model: bool = True,
        execution_environments: Iterable[Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> ActionSpec:
        """Register an action; one of the same id is replaced.

        Args:
            kwargs: what it takes, ``{name: (type, description)}`` or JSON Schema; read from ``func`` when not given.
            executor: runs it, in place of ``func``.
            side_effect_level: ``read``, ``write`` or ``exec``.
            approval_required: a person must allow every call.
            sandbox_required: only an executor that is sandboxed may run it.
            replay_safe: ``False``: after a crash in the middle of a call a person is asked instead of calling again.
            expose_to_model: whether planners are told of it.
            execution_environments: requirements (or their ids) it needs; resources go to parameters of their
                ``resource_key``.

        Raises:
            ActionDefinitionError: neither ``func`` nor ``executor``, or something that is no declaration.
        """
        if not isinstance(action_id, str) or not action_id:
            raise ActionDefinitionError(f"register_action(action_id={action_id!r}): expected a name")

        if func is None and executor is None:
            raise ActionDefinitionError(f"action {action_id!r}: give func= or executor=")

        if func is not None and not callable(func):
            raise ActionDefinitionError(f"action {action_id!r}: func={func!r} cannot be called")

        if side_effect_level not in SIDE_EFFECTS:
            raise ActionDefinitionError(
                f"action {action_id!r}: side_effect_level={side_effect_level!r}: expected {', '.join(SIDE_EFFECTS)}"
            )

        environments = list(execution_environments or ())
        keys = tuple(_resource_keys(environments))
        read = function_arguments(action_id, func, keys) if func is not None else None
        arguments = declared_arguments(action_id, kwargs) if kwargs is not None or read is None else read
        if executor is None:
            assert func is not None and read is not None
            executor = FunctionExecutor(func, read.injected, keys)

        spec = ActionSpec(
            action_id=action_id,
            desc=desc if desc is not None else _documentation(func, action_id),
            arguments=arguments,
            executor=executor,
            func=func,
            returns=returns if returns is not None else _returns(func),
            tags=_tags(tags),
            default_policy=checked_policy(default_policy or {}, f"action {action_id!r}"),
            side_effect_level=side_effect_level,
            approval_required=approval_required,
            sandbox_required=sandbox_required,
            replay_safe=replay_safe,
            expose_to_model=expose_to_model,
            execution_environments=environments,
            meta=dict(meta or {}),
        )
        self.specs[action_id] = spec
        return spec

    def register(
        self,
        name: str | None = None,
        desc: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        func: Callable[..., Any] | None = None,
        *,
        action_id: str | None = None,
        **options: Any,
    ) -> ActionSpec:
        """Register an action under the older argument names; see :meth:`register_action`."""
        return self.register_action(action_id=action_id or name or "", desc=desc, kwargs=kwargs, func=func, **options)

    def action_func(self, function: F | None = None, **options: Any) -> Any:
        """Decorate a function as an action, ``@action_func`` or ``@action_func(approval_required=True)``.

        Its id is the function's name, its description the docstring. Returns the function unchanged.
        """
        if function is None:
            return lambda given: self.action_func(given, **options)

        given = {"action_id": getattr(function, "__name__", ""), **options}
        self.register_action(func=function, **given)
        return function

    tool_func = action_func

    def use(self, items: Any, *, tags: str | Iterable[str] | None = None) -> list[str]:
        """Take over actions: ids, functions, specs, packages (anything with ``register_actions``), or lists of them.

        Returns the ids.

        Raises:
            ActionNotFound: an id nobody has registered.
            TypeError: something else.
        """
        wanted = _tags(tags)
        if isinstance(items, str):
            self.tag(items, wanted)
            return [items]

        if isinstance(items, ActionSpec):
            self.specs[items.action_id] = items
            self.tag(items.action_id, wanted)
            return [items.action_id]

        if isinstance(items, list | tuple | set):
            return [each for item in items for each in self.use(item, tags=wanted)]

        package = items() if inspect.isclass(items) and hasattr(items, "register_actions") else items
        if isinstance(package, ActionPackage):
            before = dict(self.specs)
            package.register_actions(self, tags=wanted)
            return [name for name, spec in self.specs.items() if before.get(name) is not spec]

        if callable(items):
            name = getattr(items, "__name__", "")
            if name in self.specs and self.specs[name].func is items:
                self.tag(name, wanted)  # decorated before: its options stay
            else:
                self.action_func(items, tags=wanted)

            return [name]

        raise TypeError(f"use_actions({items!r}): expected ids, functions, packages with register_actions, or lists")

    def tag(self, ids: str | Iterable[str], tags: str | Iterable[str]) -> None:
        """Add tags to actions.

        Raises:
            ActionNotFound: an id nobody has registered.
        """
        for each in [ids] if isinstance(ids, str) else ids:
            spec = self.require(each)
            spec.tags.extend(tag for tag in _tags(tags) if tag not in spec.tags)

    # -- reading -------------------------------------------------------------------------------------------------

    def get(self, action_id: str) -> ActionSpec | None:
        """Return an action, or ``None``."""
        return self.specs.get(action_id)

    def require(self, action_id: str) -> ActionSpec:
        """Return an action.

        Raises:
            ActionNotFound: there is none of that id.
        """
        spec = self.specs.get(action_id)
        if spec is None:
            there = ", ".join(sorted(self.specs)) or "none"
            raise ActionNotFound(f"Can not find action named '{action_id}' (there are: {there})")

        return spec

    def get_action_info(self, tags: str | Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return descriptions by id, of all actions or of those with one of the tags."""
        wanted = set(_tags(tags))
        return {name: s.info() for name, s in self.specs.items() if not wanted or wanted.intersection(s.tags)}

    def get_action_list(self, tags: str | Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return what planners are told: the descriptions of actions that are exposed to models."""
        return [info for info in self.get_action_info(tags).values() if info["expose_to_model"]]

    def get_action_func(self, action_id: str) -> Callable[..., Any] | None:
        """Return the function behind an action, ``None`` when an executor runs it.

        Raises:
            ActionNotFound: there is none of that id.
        """
        return self.require(action_id).func

    get_tool_info = get_action_info
    get_tool_list = get_action_list
    get_tool_func = get_action_func


def _tags(tags: str | Iterable[str] | None) -> list[str]:
    return [tags] if isinstance(tags, str) else list(tags or ())


def _resource_keys(environments: list[Any]) -> Iterable[str]:
    for each in environments:
        if isinstance(each, Mapping):
            yield str(each.get("resource_key") or each.get("kind") or "")


def _documentation(function: Callable[..., Any] | None, name: str) -> str:
    return (inspect.getdoc(function) or name) if function is not None else name


def _returns(function: Callable[..., Any] | None) -> Any:
    found = getattr(function, "__annotations__", {}).get("return") if function is not None else None
    return getattr(found, "__name__", found) if found is not None else None
