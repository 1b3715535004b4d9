"""What a provider's failures are called here, without whatever in them could be a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from flowdeck.errors import (
    ModelAuthenticationFailed,
    ModelError,
    ModelNotConfigured,
    ModelProtocolError,
    ModelRateLimited,
    ModelRequestRefused,
    ModelServerFailed,
    ModelStreamCut,
    ModelTimeout,
    ModelUnreachable,
)
from flowdeck.events.redaction import MASK
from flowdeck.models.config import ModelConfig

__all__ = ["named", "scrub"]

_LIMIT: Final = 2_000


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` without the secrets, at most 2,000 characters of it."""
    for secret in secrets:
        text = text.replace(secret, MASK)

    return text[:_LIMIT]


def named(problem: Exception, config: ModelConfig) -> ModelError:
    """Return the error of ours that says what a provider's failure was."""
    kinds = {each.__name__ for each in type(problem).__mro__}
    status = getattr(problem, "status_code", None)
    said = scrub(_said(problem), config.secrets)
    at = f"model {config.name!r}"

    def made(kind: type[ModelError], how: str) -> ModelError:
        text = f"{at} {how}" + (f" (HTTP {status})" if status is not None else "") + (f": {said}" if said else "")
        return kind(text, status, _retry_after(problem), config.name)

    if isinstance(status, int):
        if status in (401, 403):
            return made(ModelAuthenticationFailed, "does not accept the key")

        if status == 429:
            return made(ModelRateLimited, "wants fewer requests")

        if status == 408:
            return made(ModelTimeout, "took too long")

        return made(ModelServerFailed, "failed") if status >= 500 else made(ModelRequestRefused, "refuses the request")

    if kinds & {"ModelRequestTimeout", "ModelTimeoutError", "TimeoutError", "APITimeoutError"}:
        return made(ModelTimeout, "took too long")

    if kinds & {"ModelConnectionError", "APIConnectionError", "TransportError", "ConnectionError"}:
        cut = _in_body(problem)
        return made(
            ModelStreamCut if cut else ModelUnreachable, "stopped in the middle" if cut else "cannot be reached"
        )

    if kinds & {"UserError"}:
        return made(ModelNotConfigured, "cannot be asked")

    if kinds & {"ContentFilterError"}:
        return made(ModelRequestRefused, "refuses to answer")

    return made(ModelProtocolError, "sent what is no answer")


def _in_body(problem: BaseException) -> bool:
    """Whether the connection was lost after the answer had begun."""
    here: BaseException | None = problem
    seen = 0
    while here is not None and seen < 8:
        if type(here).__name__ in ("ReadError", "RemoteProtocolError", "StreamClosed", "IncompleteRead"):
            return True

        if type(here).__name__ in ("ConnectError", "ConnectTimeout", "gaierror"):
            return False

        here, seen = here.__cause__ or here.__context__, seen + 1

    return False


def _said(problem: Exception) -> str:
    body: Any = getattr(problem, "body", None)
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, Mapping) else inner
        if message:
            return str(message)

    return str(problem) or type(problem).__name__


def _retry_after(problem: Exception) -> float | None:
    """Return the seconds the provider asks to wait, from the exception or its ``Retry-After`` header."""
    given = getattr(problem, "retry_after", None)
    headers = getattr(problem, "headers", None)
    if given is None and isinstance(headers, Mapping):
        milliseconds = headers.get("retry-after-ms")
        given = headers.get("retry-after")
        if milliseconds is not None:
            given = _number(milliseconds, 1000.0)

    return _number(given, 1.0)


def _number(given: Any, per: float) -> float | None:
    try:
        value = float(given) / per
    except (TypeError, ValueError):
        return None

    return value if 0 <= value < 1e6 else None
