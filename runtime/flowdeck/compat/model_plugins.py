"""The reference's plugin protocol for model requests: a class that answers in a provider's place.

``Agently.plugin_manager.register("ModelRequester", Cls, activate=True)``, where ``Cls(prompt, settings)`` has
``generate_request_data()``, ``request_model(data)`` and ``broadcast_response(stream)``. Source: behaviour, Appendix D.
An ``("error", exception)`` pair fails the request; there it was swallowed (defect 17).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from flowdeck.errors import ModelProtocolError
from flowdeck.models.config import MODEL_SETTING

if TYPE_CHECKING:
    from flowdeck._runtime import Runtime
    from flowdeck.models.requester import ModelRequest, Piece

__all__ = ["PluginManager", "RequestPrompt", "RequesterPlugin"]


class RequestPrompt:
    """What a requester plugin finds of the request."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request

    def to_messages(self) -> list[dict[str, Any]]:
        """Return the messages in the shape of the chat completions API."""
        return [dict(message) for message in self.request["messages"]]

    def to_text(self) -> str:
        """Return the request as one text."""
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self.request["messages"])

    def get(self, key: str, default: Any = None) -> Any:
        """Return a part of the request: ``messages``, ``tools``, ``settings``, ``model``."""
        return self.request.get(key, default)


class RequesterPlugin:
    """Answers requests through a plugin class."""

    def __init__(self, plugin: type[Any], settings: Any) -> None:
        self.plugin = plugin
        self.name = str(getattr(plugin, "name", plugin.__name__))
        self._settings = settings

    async def stream(self, request: ModelRequest) -> AsyncIterator[Piece]:
        """Answer one request; see :class:`~flowdeck.models.requester.ModelRequester`."""
        requester = self.plugin(RequestPrompt(request), self._settings)
        data = requester.generate_request_data()
        data = await data if isawaitable(data) else data
        meta: dict[str, Any] = {}
        said: list[str] = []
        whole: str | None = None
        async for kind, given in requester.broadcast_response(requester.request_model(data)):
            if kind == "error":
                raise given if isinstance(given, Exception) else ModelProtocolError(f"{self.name}: {given}")

            if kind in ("delta", "reasoning_delta"):
                said += [given] if kind == "delta" else []
                yield kind, str(given)
            elif kind == "tool_calls":
                yield "tool_calls", [_call(index, call) for index, call in enumerate(given or ())]
            elif kind == "meta" and isinstance(given, Mapping):
                meta.update(given)
            elif kind == "done":
                whole = str(given)

        if whole and not said:
            yield "delta", whole

        known: dict[str, Any] = {
            "finish_reason": "stop",
            "usage": {},
            "model": self.name,
            "provider": self.name,
            "id": None,
        }
        yield "meta", {**known, **meta}


def _call(index: int, call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or call
    return {
        "index": call.get("index", index),
        "id": call.get("id") or "",
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "",
    }


class PluginManager:
    """The plugins of a runtime: requesters of models. Others of the reference's plugin types are not there."""

    def __init__(self, host: Runtime, settings: Any) -> None:
        self._host = host
        self._settings = settings
        self._plugins: dict[str, type[Any]] = {}

    def register(self, plugin_type: str, plugin_class: type[Any], *, activate: bool = True) -> PluginManager:
        """Register a requester; the active one answers for every agent that names no model of its own. Chainable.

        Raises:
            NotImplementedError: another type of plugin.
        """
        if plugin_type != "ModelRequester":
            raise NotImplementedError(
                f"plugin type {plugin_type!r}: there is ModelRequester; for the others see: flowdeck docs compatibility"
            )

        plugin = RequesterPlugin(plugin_class, self._settings)
        self._plugins[plugin.name] = plugin_class
        registered = getattr(plugin_class, "_on_register", None)
        if callable(registered):
            registered()

        if activate:
            self._host.settings[MODEL_SETTING] = plugin

        return self

    def unregister(self, plugin_type: str, plugin: str | type[Any]) -> PluginManager:
        """Take a requester back; chainable."""
        name = plugin if isinstance(plugin, str) else str(getattr(plugin, "name", plugin.__name__))
        found = self._plugins.pop(name, None)
        gone = getattr(found, "_on_unregister", None)
        if callable(gone):
            gone()

        active = self._host.settings.get(MODEL_SETTING)
        if isinstance(active, RequesterPlugin) and active.plugin is found:
            del self._host.settings[MODEL_SETTING]

        return self

    def get_plugin_list(self, plugin_type: str = "ModelRequester") -> list[str]:
        """Return the names of what is registered."""
        return list(self._plugins) if plugin_type == "ModelRequester" else []
