"""AgentRequest: what one request asks, put together step by step.

    response = agent.input("…").output({"title": str, "tags": [str]}).get_response()
    data = await agent.input("…").output(Report).async_start(ensure_keys=["title"])

Every chain is an object of its own, so two tasks that use one agent at the same time do not mix their requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

from flowdeck.agents.checks import Checks
from flowdeck.agents.turn import AgentExecution
from flowdeck.models.config import ModelConfig
from flowdeck.models.document import LONE, writable
from flowdeck.models.output import OutputFormat
from flowdeck.models.prompt import SLOTS, Prompt
from flowdeck.models.requester import Message, ModelRequest, ModelRequester

if TYPE_CHECKING:
    from flowdeck.agents.agent import Agent
    from flowdeck.agents.response import ModelResponse
    from flowdeck.events.lineage import RunContext
    from flowdeck.execution.data import TriggerFlowRuntimeData
    from flowdeck.execution.ports import Clock
    from flowdeck.execution.services import Services

__all__ = ["AgentRequest", "PromptSlots", "RequestPlan"]


class PromptSlots:
    """The slots of a prompt as chainable methods. Source: behaviour §8.4."""

    if TYPE_CHECKING:  # supplied by the agent and the request

        def _slot(self, name: str, value: Any, mappings: Mapping[str, Any] | None, always: bool) -> Any: ...

    def input(self, value: Any, mappings: Mapping[str, Any] | None = None, *, always: bool = False) -> Any:
        """What is asked: a text, or any data. ``always=True`` gives it to the agent, for all its requests."""
        return self._slot("input", value, mappings, always)

    def output(
        self,
        value: Any,
        mappings: Mapping[str, Any] | None = None,
        *,
        always: bool = False,
        format: OutputFormat | None = None,
    ) -> Any:
        """How the answer shall look, and how it is written: ``"json"`` (the default), in sections (``"flat_markdown"``,
        ``"hybrid"``), or as the values suggest (``"auto"``); see :class:`~flowdeck.models.output.OutputSpec`.

        Without it: plain text.
        """
        chained = self._slot("output", value, mappings, always)
        return chained if format is None else chained._slot("output_format", format, None, always)

    def instruct(self, value: Any, mappings: Mapping[str, Any] | None = None, *, always: bool = False) -> Any:
        """How to go about it."""
        return self._slot("instruct", value, mappings, always)

    def info(self, value: Any, mappings: Mapping[str, Any] | None = None, *, always: bool = False) -> Any:
        """What the model should know for it."""
        return self._slot("info", value, mappings, always)

    def examples(self, value: Any, mappings: Mapping[str, Any] | None = None, *, always: bool = False) -> Any:
        """How it has been done."""
        return self._slot("examples", value, mappings, always)

    def system(self, value: Any, mappings: Mapping[str, Any] | None = None, *, always: bool = False) -> Any:
        """The system message."""
        return self._slot("system", value, mappings, always)

    role = system

    def attachment(self, value: Any, *, always: bool = False) -> Any:
        """Images beside the text: addresses, data URIs, or parts of the chat completions API."""
        return self._slot("attachment", value, None, always)

    files = attachment


@dataclass(slots=True)
class RequestPlan:
    """Everything a turn needs to know, fixed when the turn is made."""

    agent: Agent
    services: Services
    config: ModelConfig
    requester: ModelRequester
    prompt: Prompt
    checks: Checks
    data: TriggerFlowRuntimeData | None = None
    parent: RunContext | None = None
    history: list[Message] | None = None
    """Messages in place of the session's window."""
    messages: Callable[[Prompt], list[Message]] | None = None
    """Makes the messages in place of the prompt."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    work: Callable[[AgentExecution], Awaitable[Any]] | None = None
    """What is done before the model is asked for the answer: the action loop. Its result enters the prompt."""
    remember: bool = True
    planning: bool = False
    """Whether it is a request of the action loop, which is no turn of its own."""

    @property
    def clock(self) -> Clock:
        return self.services.clock

    def request(self, messages: list[Message]) -> ModelRequest:
        """Return the request as it goes through the port: plain data, no key, no header."""
        out: ModelRequest = {"model": self.config.name, "messages": [_sendable(message) for message in messages]}
        if self.tools:
            out["tools"] = self.tools

        options = self.config.settings
        shown = {name: value for name, value in options.items() if name not in ("extra_headers", "extra_body")}
        if shown:
            out["settings"] = shown

        return out


class AgentRequest(PromptSlots):
    """One request under construction; made by the agent's prompt methods and :meth:`Agent.create_request`."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.slots: dict[str, Any] = {}
        self._model: Any = None
        self._settings: dict[str, Any] = {}
        self._checks = Checks()
        self._use_actions = True

    def __repr__(self) -> str:
        return f"<AgentRequest of {self.agent.name!r}: {', '.join(self.slots) or 'empty'}>"

    def _slot(self, name: str, value: Any, mappings: Mapping[str, Any] | None, always: bool) -> Self:
        if always:
            self.agent._slot(name, value, mappings, always)
        else:
            self.slots[name] = filled(value, mappings)

        return self

    def set_request_prompt(self, key: str, value: Any, mappings: Mapping[str, Any] | None = None) -> Self:
        """Set a slot by its name; chainable.

        Raises:
            ValueError: there is no such slot.
        """
        return self._slot(checked_slot(key), value, mappings, always=False)

    def load_prompt(self, slots: Mapping[str, Any], mappings: Mapping[str, Any] | None = None) -> Self:
        """Set several slots from a mapping, as a client may send them; chainable.

        Raises:
            ValueError: there is no slot of a name. Nothing was set.
        """
        for name in slots:
            checked_slot(name)

        for name, value in slots.items():
            self.set_request_prompt(name, value, mappings)

        return self

    def use_model(self, model: Any, **options: Any) -> Self:
        """Ask another model than the agent's, this once; see :meth:`Agent.use_model`. Chainable."""
        self._model = ModelConfig.of(model, **options)
        return self

    def set_model_options(self, **settings: Any) -> Self:
        """Set options of the model for this request: ``temperature``, ``max_tokens`` …; chainable."""
        self._settings.update(settings)
        return self

    def ensure_keys(self, *keys: str) -> Self:
        """Want these keys in the answer; chainable. ``items[*].name`` wants it in every member."""
        self._checks = Checks.of(keys).over(self._checks)
        return self

    def validate(self, *validators: Callable[..., Any]) -> Self:
        """Check the answer with ``validator(result, context)``; chainable. See :mod:`flowdeck.agents.checks`."""
        self._checks = Checks.of(None, validators).over(self._checks)
        return self

    def without_actions(self) -> Self:
        """Answer without the agent's actions, this once; chainable."""
        self._use_actions = False
        return self

    # -- asking ----------------------------------------------------------------------------------------------------

    def create_execution(self, *, data: TriggerFlowRuntimeData | None = None, **checks: Any) -> AgentExecution:
        """Return the turn as a handle: its id, its status, its place in the lineage; nothing is asked yet.

        Args:
            data: the chunk it is made in, so that the model's answers are on the run's tape, and its retries use the
                run's clock.
            checks: ``ensure_keys``, ``validate_handler``, ``key_style``, ``max_retries``, ``raise_ensure_failure``.

        Raises:
            ModelNotConfigured: no model is named.
            ValueError: the output is no specification, or an option is none.
        """
        return AgentExecution(self._plan(data, Checks.of(**checks) if checks else None))

    def get_response(self, *, data: TriggerFlowRuntimeData | None = None, **checks: Any) -> ModelResponse:
        """Return the response: readers of one answer. The model is asked when the first of them reads."""
        from flowdeck.agents.response import ModelResponse

        return ModelResponse(self.create_execution(data=data, **checks))

    get_result = get_response

    def _plan(self, data: TriggerFlowRuntimeData | None, checks: Checks | None) -> RequestPlan:
        agent = self.agent
        services = agent._services_for(data)
        config = self._model if self._model is not None else agent.model_config
        if self._settings:
            config = ModelConfig.of(config, settings=self._settings)

        prompt = Prompt(agent.prompt, self.slots)
        wanted = self._checks.over(agent.checks)
        if prompt.output.ensured:
            wanted = Checks.of(prompt.output.ensured).over(wanted)

        if checks is not None:
            wanted = checks.over(wanted)

        return RequestPlan(
            agent,
            services,
            config,
            requester_of(config),
            prompt,
            wanted,
            data=data,
            work=agent._work if self._use_actions and agent._has_work() else None,
        )

    async def async_start(self, *, data: TriggerFlowRuntimeData | None = None, **checks: Any) -> Any:
        """Ask, and return the answer's data: what :meth:`output` asked for, else the text."""
        return await self.get_response(data=data, **checks).async_get_data()

    def start(self, **checks: Any) -> Any:
        """Synchronous twin of :meth:`async_start`."""
        return self.get_response(**checks).get_data()

    async_get_data = async_start
    get_data = start

    async def async_get_data_object(self, *, data: TriggerFlowRuntimeData | None = None, **checks: Any) -> Any:
        """Ask, and return the answer as an object; see :meth:`ModelResponse.async_get_data_object`."""
        return await self.get_response(data=data, **checks).async_get_data_object()

    def get_data_object(self, **checks: Any) -> Any:
        """Synchronous twin of :meth:`async_get_data_object`."""
        return self.get_response(**checks).get_data_object()

    async def async_get_text(self, **options: Any) -> str:
        """Ask, and return the answer's text."""
        return await self.get_response(**options).async_get_text()

    def get_text(self, **options: Any) -> str:
        """Synchronous twin of :meth:`async_get_text`."""
        return self.get_response(**options).get_text()

    async def async_get_meta(self, **options: Any) -> dict[str, Any]:
        """Ask, and return what the provider said of the answer."""
        return await self.get_response(**options).async_get_meta()

    def get_meta(self, **options: Any) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_get_meta`."""
        return self.get_response(**options).get_meta()

    def get_async_generator(
        self, type: str = "delta", *, data: TriggerFlowRuntimeData | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """Ask, and stream; see :meth:`ModelResponse.get_async_generator`."""
        return self.get_response(data=data).get_async_generator(type, **options)

    def get_generator(self, type: str = "delta", **options: Any) -> Iterator[Any]:
        """Synchronous twin of :meth:`get_async_generator`."""
        return self.get_response().get_generator(type, **options)


def _sendable(message: Message) -> Message:
    """Return a message that can be written as UTF-8: what people paste may hold halves of characters."""
    content = message.get("content")
    if type(content) is str and (content.isascii() or LONE.search(content) is None):
        return message

    return cast("Message", writable(message))


def requester_of(config: ModelConfig) -> ModelRequester:
    """Return what answers for a model."""
    if config.requester is not None:
        return config.requester

    from flowdeck.models.pydantic_ai import PydanticAIRequester

    return PydanticAIRequester(config)


def checked_slot(name: str) -> str:
    """Return the name of a slot.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in SLOTS:
        raise ValueError(f"prompt slot {name!r}: there are {', '.join(SLOTS)}")

    return name


def filled(value: Any, mappings: Mapping[str, Any] | None) -> Any:
    """Return ``value`` with ``${name}`` replaced from ``mappings``, in every text of it."""
    if not mappings:
        return value

    if isinstance(value, str):
        for name, text in mappings.items():
            mark = f"${{{name}}}"
            if value == mark:
                return text

            value = value.replace(mark, str(text))

        return value

    if isinstance(value, Mapping):
        return {filled(key, mappings): filled(item, mappings) for key, item in value.items()}

    if isinstance(value, list | tuple):
        return type(value)(filled(item, mappings) for item in value)

    return value
