"""Agents: a name with a model, a conversation, a workspace and actions. See :mod:`flowdeck.agents.agent`."""

from flowdeck.agents.agent import Agent
from flowdeck.agents.request import AgentRequest
from flowdeck.agents.response import ModelResponse
from flowdeck.agents.session import Session
from flowdeck.agents.session_store import FileSessions, SessionStore
from flowdeck.agents.turn import AgentExecution
from flowdeck.errors import ModelError, SessionError

__all__ = [
    "Agent",
    "AgentExecution",
    "AgentRequest",
    "FileSessions",
    "ModelError",
    "ModelResponse",
    "Session",
    "SessionError",
    "SessionStore",
]
