"""Agents: a name with a conversation, a workspace and actions. See :mod:`flowdeck.agents.agent`."""

from flowdeck.agents.agent import Agent
from flowdeck.agents.session import Session
from flowdeck.agents.session_store import FileSessions, SessionStore
from flowdeck.errors import SessionError

__all__ = ["Agent", "FileSessions", "Session", "SessionError", "SessionStore"]
