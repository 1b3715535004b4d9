"""What a turn tells: the payloads of its events. No key and no header is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowdeck.models.failures import scrub

if TYPE_CHECKING:
    from flowdeck.agents.agent_events import AgentEvents
    from flowdeck.agents.attempt import Attempt
    from flowdeck.agents.checks import Checks
    from flowdeck.agents.request import RequestPlan
    from flowdeck.events.lineage import RunContext
    from flowdeck.models.requester import ModelRequest

__all__ = ["Telling"]


class Telling:
    """The events of :class:`~flowdeck.agents.turn.AgentExecution`."""

    plan: RequestPlan
    id: str
    checks: Checks
    request_run: RunContext
    _events: AgentEvents
    _scope: str | None
    _first: int

    def _tell(self, name: str, payload: dict[str, Any], run: RunContext, **more: Any) -> None:
        self._events.tell(name, payload, run, scope=self._scope, **more)

    def _started(self, index: int) -> None:
        payload = {"agent_name": self.plan.agent.name, "response_id": self.id, "attempt_index": index}
        self._tell("request.started", payload, self.request_run)

    def _built(self, attempt: Attempt, request: ModelRequest) -> dict[str, Any]:
        prompt = self.plan.prompt
        return {
            "attempt_index": attempt.index,
            "prompt": prompt.request_slots,
            "prompt_messages": request["messages"],
            "output_format": prompt.output.format,
            "ensure_all_keys": list(self.checks.ensure_keys),
            "has_tools": bool(request.get("tools")),
            "chat_history_length": len(prompt.history),
            "attachment_count": len(prompt.attachments),
        }

    def _requesting(self, request: ModelRequest) -> dict[str, Any]:
        """The request without what ``prompt.built`` has said already, and without keys and headers."""
        config = self.plan.config
        settings = {**config.settings, **request.get("settings", {})}
        return {
            "data": {
                "model": config.name,
                "message_count": len(request["messages"]),
                "tool_names": [tool["name"] for tool in request.get("tools", ())],
            },
            "request_options": {k: v for k, v in settings.items() if k not in ("extra_headers", "extra_body")},
            "request_url": config.public_url,
            "provider": config.provider,
            "stream": True,
        }

    def _retrying(self, attempt: Attempt, index: int, reason: str, more: dict[str, Any]) -> None:
        payload = {
            "agent_name": self.plan.agent.name,
            "response_id": attempt.response_id,
            "retry_count": index - self._first + 1,
            "attempt_index": index,
            "next_attempt_index": index + 1,
            "model_run_id": attempt.run.run_id,
            "response_text": attempt.text,
            "ensure_keys": list(self.checks.ensure_keys),
            "key_style": self.checks.key_style,
            "retry_reason": reason,
            **more,
        }
        said = more.get("error") or more.get("validation_reason") or reason
        message = scrub(str(said), self.plan.config.secrets)[:500]
        self._tell("model.retrying", payload, self.request_run, message=message)
