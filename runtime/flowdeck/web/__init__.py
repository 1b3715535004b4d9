"""Flows behind HTTP: start them, watch them live, answer what they ask.

    from flowdeck.web import FlowService

    service = FlowService(refund, store=".flowdeck")
    app = service.app()                      # or: app.include_router(service.router)

Needs ``pip install 'flowdeck[web]'``. Names are resolved at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck.web.access import Access, Caller, bearer
    from flowdeck.web.service import FlowService
    from flowdeck.web.webhooks import Webhook

__all__ = ["Access", "Caller", "FlowService", "Webhook", "bearer"]

_HOMES = {
    "Access": "flowdeck.web.access",
    "Caller": "flowdeck.web.access",
    "FlowService": "flowdeck.web.service",
    "Webhook": "flowdeck.web.webhooks",
    "bearer": "flowdeck.web.access",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flowdeck.web' has no attribute {name!r}")

    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("fastapi", "starlette", "uvicorn"):
            raise ModuleNotFoundError(
                f"{error.name} is not installed: pip install 'flowdeck[web]'", name=error.name
            ) from error

        raise
