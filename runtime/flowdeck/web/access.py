"""Who may do what: one dependency per kind of route, and whose work a run is."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from fastapi import HTTPException
from fastapi.requests import HTTPConnection

from flowdeck.web.problems import Problem

__all__ = ["OPEN", "Access", "Caller", "bearer", "caller_of", "check_origin", "dependency_for", "is_loopback"]

Access = Literal["start", "read", "answer", "intervene", "cancel"]
"""The kinds of routes. Webhooks have their signatures instead."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks. An auth dependency returns one; it goes into the lineage of what is started and done."""

    user_id: str | None = None
    """Also the actor of answers, interventions and cancellations."""
    tenant_id: str | None = None
    """Runs of other tenants do not exist for a caller with one."""


OPEN: Final = Caller()

Auth = Callable[..., Any] | Mapping[str, Callable[..., Any]] | None


async def _anybody() -> Caller:
    return OPEN


def dependency_for(auth: Auth, access: Access) -> Callable[..., Any]:
    """Return the dependency that guards routes of a kind.

    Raises:
        ValueError: ``auth`` names a kind there is not, or leaves one out.
    """
    if auth is None:
        return _anybody

    if callable(auth):
        return auth

    kinds = get_args(Access)
    wrong = set(auth) - set(kinds)
    missing = set(kinds) - set(auth)
    if wrong or missing:
        raise ValueError(
            f"auth: expected one dependency for each of {', '.join(kinds)}"
            + (f"; {', '.join(sorted(missing))} missing" if missing else "")
            + (f"; {', '.join(sorted(wrong))} unknown" if wrong else "")
        )

    return auth[access]


def caller_of(given: Any) -> Caller:
    """Take what an auth dependency returned: a :class:`Caller`, a user's name, or nothing."""
    if isinstance(given, Caller):
        return given

    return OPEN if given is None else Caller(user_id=str(given))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(connection: HTTPConnection, allowed: frozenset[str]) -> None:
    """Refuse what a page of another origin sends: browsers do not apply CORS to WebSockets and simple forms.

    Raises:
        Problem: 403.
    """
    origin = connection.headers.get("origin")
    if origin is None or origin in allowed:
        return

    if urlsplit(origin).netloc != connection.headers.get("host", ""):
        raise Problem(403, "Another origin", f"pages of {origin} may not use this service; allow it with origins=[...]")


def bearer(token: str, caller: Caller = OPEN) -> Callable[..., Any]:
    """Return a dependency that lets in whoever knows ``token``: ``Authorization: Bearer``, or ``?token=`` for pages.

    An ``EventSource`` cannot send headers; an address with a token belongs into no log.
    """
    wanted = token.encode()

    async def known(connection: HTTPConnection) -> Caller:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = connection.query_params.get("token", "")

        if not hmac.compare_digest(given.encode(), wanted):
            raise HTTPException(401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})

        return caller

    return known
