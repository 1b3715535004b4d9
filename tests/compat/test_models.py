"""The reference's names for models: settings, requests, requester plugins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowdeck import Runtime
from flowdeck.compat.agently import AgentlyMain
from flowdeck.errors import ModelNotConfigured
from flowdeck.testing import LocalModel

pytestmark = pytest.mark.anyio


class Mock:
    """A requester plugin as an application writes one to do without a provider."""

    name = "Mock"
    registered = 0

    def __init__(self, prompt: Any, settings: Any) -> None:
        self.prompt = prompt

    @staticmethod
    def _on_register() -> None:
        Mock.registered += 1

    def generate_request_data(self) -> Any:
        return {"messages": self.prompt.to_messages()}

    async def request_model(self, request_data: Any) -> AsyncIterator[tuple[str, Any]]:
        if "fail" in str(request_data):
            yield "error", RuntimeError("the provider is gone")

        yield "message", '{"echo": '
        yield "message", '"hello"}'

    async def broadcast_response(self, stream: AsyncIterator[tuple[str, Any]]) -> AsyncIterator[tuple[str, Any]]:
        text = ""
        yield "reasoning_delta", "hm"
        async for kind, data in stream:
            if kind == "error":
                yield "error", data
                continue

            text += data
            yield "original_delta", data
            yield "delta", data

        yield "tool_calls", [{"index": 0, "id": "c", "function": {"name": "look", "arguments": "{}"}}]
        yield "meta", {"finish_reason": "stop"}
        yield "original_done", {}
        yield "done", text


@pytest.fixture
def main() -> AgentlyMain:
    """A main object over a runtime of its own."""
    return AgentlyMain(Runtime())


async def test_a_requester_plugin(main: AgentlyMain) -> None:
    """It answers for every agent; an error it yields fails the request instead of vanishing."""
    main.plugin_manager.register("ModelRequester", Mock, activate=True)
    response = main.create_agent("a").input("say hello").output({"echo": str}).get_response()
    assert [item.value async for item in response.get_async_generator("instant") if item.is_complete][-1] is not None
    assert await response.async_get_data() == {"echo": "hello"}
    assert (await response.async_get_data(type="all"))["tool_calls"] == [{"id": "c", "name": "look", "arguments": "{}"}]
    with pytest.raises(RuntimeError, match="the provider is gone"):
        await main.create_request("b").input("fail").async_start()

    with pytest.raises(NotImplementedError, match="ResponseParser"):
        main.plugin_manager.register("ResponseParser", Mock)

    assert (Mock.registered, main.plugin_manager.get_plugin_list()) == (1, ["Mock"])
    main.plugin_manager.unregister("ModelRequester", Mock)
    with pytest.raises(ModelNotConfigured):
        main.create_request("c").input("x").get_response()


def test_a_prompt_by_itself(main: AgentlyMain) -> None:
    """It shows what a request would send."""
    prompt = main.create_prompt("letter")
    prompt.set("input", "Dear ${who}", {"who": "Ann"})
    prompt["instruct"] = "Be brief."
    prompt.append("instruct", "Be kind.")
    prompt.set("system", "You write letters.")
    assert prompt.to_text() == "[INSTRUCTIONS]\n- Be brief.\n- Be kind.\n\n[INPUT]\nDear Ann"
    assert [message["role"] for message in prompt.to_messages()] == ["system", "user"]
    prompt.delete("instruct")
    assert (prompt.to_text(), prompt["input"], prompt.get("instruct"), prompt.name) == (
        "Dear Ann", "Dear Ann", None, "letter",
    )  # fmt: skip
    with pytest.raises(ValueError, match="'inptu'"):
        prompt.set("inptu", 1)

    assert isinstance(main.create_agent("a"), main.AgentType)


async def test_settings_of_old(main: AgentlyMain) -> None:
    """``OpenAICompatible`` names a model, ``set_api_key`` its key; slash paths are a setting."""
    with pytest.raises(ModelNotConfigured):
        main.set_api_key("sk-123456")

    with LocalModel(lambda request: {"items": [{"k": "v"}]}) as server:
        main.set_settings("OpenAICompatible", {"base_url": server.base_url, "model": "local"}).set_api_key(
            server.api_key
        )
        agent = main.create_agent("a").set_settings("response.streaming_parse_path_style", "slash")
        items = agent.input("x").output({"items": [{"k": str}]}).get_async_generator("streaming_parse")
        first, *_ = [item.path async for item in items]
        assert first == "items/0/k"
