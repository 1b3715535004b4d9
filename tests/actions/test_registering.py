"""Actions are registered by decorator, function, package or hand, and described for people and planners."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from flowdeck.actions import ActionContext, ActionDefinitionError, ActionNotFound, ActionRuntime

pytestmark = pytest.mark.anyio


async def search(query: Annotated[str, "What to look for."], limit: int = 5) -> list[str]:
    """Search the archive."""
    return [query] * limit


class Mathematics:
    """A package of actions."""

    def register_actions(self, action: Any, tags: list[str] | None = None) -> None:
        action.register_action(
            action_id="double", desc="Double.", kwargs={"x": (int, "a number")}, func=_double, tags=tags
        )
        action.register_action(action_id="halve", desc="Halve.", func=lambda x: x / 2, tags=tags)


def _double(x: int) -> int:
    return 2 * x


def test_a_decorated_function_is_described_by_its_hints(actions: ActionRuntime) -> None:
    """Id, description, arguments, defaults and types come from the function, which stays what it was."""
    assert actions.action_func(search) is search
    info = actions.get_action_info()["search"]
    assert info["desc"] == "Search the archive."
    assert info["kwargs"] == {"query": (str, "What to look for."), "limit": (int, "Default: 5")}
    assert info["parameters"]["required"] == ["query"]
    assert info["parameters"]["properties"]["query"]["description"] == "What to look for."
    assert (info["side_effect_level"], info["replay_safe"], info["executor_type"]) == ("read", True, "function")
    assert actions.get_action_func("search") is search


def test_a_decorator_with_options(actions: ActionRuntime) -> None:
    """``@action_func(...)`` takes what register_action takes."""

    @actions.tool_func(approval_required=True, side_effect_level="write", tags="money")
    def refund(order: str) -> None: ...

    info = actions.get_action_info("money")["refund"]
    assert (info["approval_required"], info["side_effect_level"], info["desc"]) == (True, "write", "refund")
    assert refund.__name__ == "refund"


def test_a_package_registers_what_it_has(actions: ActionRuntime) -> None:
    """use() takes packages, functions, ids and lists of them, and returns the ids."""
    assert actions.use([Mathematics(), search], tags="agent-demo") == ["double", "halve", "search"]
    assert set(actions.get_action_info(["agent-demo"])) == {"double", "halve", "search"}
    assert actions.use(["double"], tags="maths") == ["double"]
    assert list(actions.get_action_info("maths")) == ["double"]
    assert actions.use_actions(Mathematics) is actions


def test_the_context_is_no_argument(actions: ActionRuntime) -> None:
    """A parameter annotated ActionContext is the runtime's to fill and is not shown to planners."""

    @actions.action_func
    def pay(amount: float, context: ActionContext) -> str:
        return context.idempotency_key

    assert list(actions.get_action_info()["pay"]["kwargs"]) == ["amount"]


@pytest.mark.parametrize(
    ("register", "problem"),
    [
        (lambda a: a.register_action(action_id="x", desc="x"), "give func= or executor="),
        (lambda a: a.register_action(action_id="", func=_double), "expected a name"),
        (lambda a: a.register_action(action_id="x", func=3), "cannot be called"),
        (
            lambda a: a.register_action(action_id="x", func=_double, side_effect_level="nuke"),
            "expected read, write, exec",
        ),
        (
            lambda a: a.register_action(action_id="x", func=_double, kwargs=["y"]),
            r"takes \{name: \(type, description\)\}",
        ),
        (lambda a: a.action_func(len), "positional-only"),
    ],
)
def test_a_wrong_declaration_is_refused(actions: ActionRuntime, register: Any, problem: str) -> None:
    """The error names the action and what is wrong with it."""
    with pytest.raises(ActionDefinitionError, match=problem) as caught:
        register(actions)

    assert isinstance(caught.value, ValueError)


def test_unknown_ids_and_things(actions: ActionRuntime) -> None:
    """An unknown id is a ValueError that lists what there is; anything else a TypeError."""
    actions.action_func(search)
    with pytest.raises(ActionNotFound, match=r"'serach' \(there are: read_action_artifact, search\)") as caught:
        actions.use("serach")

    assert isinstance(caught.value, ValueError)
    with pytest.raises(TypeError, match="expected ids, functions, packages"):
        actions.use(3)


def test_planners_see_only_what_is_exposed(actions: ActionRuntime) -> None:
    """expose_to_model=False hides an action from planners; the artifact reader shows only beside other actions."""
    assert actions.get_action_list() == []
    actions.register_action(action_id="secret", func=_double, expose_to_model=False)
    assert actions.get_action_list() == []
    actions.action_func(search)
    assert [each["action_id"] for each in actions.get_action_list()] == ["read_action_artifact", "search"]
