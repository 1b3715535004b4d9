"""Webhooks: another system answers a named interrupt, and proves by a signature that it is the one.

Two signatures are understood, and any other by a function: Standard Webhooks (``webhook-id``, ``webhook-timestamp``,
``webhook-signature``) and the ``X-Hub-Signature-256`` of GitHub and many others. The delivery's id, where there is one,
makes a repeated delivery a duplicate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowdeck.web.problems import Problem

__all__ = ["TOLERANCE_SECONDS", "Webhook", "sign_standard"]

TOLERANCE_SECONDS: Final = 300
"""How old a delivery may be: an old one may be somebody's recording."""

Verify = Callable[[Mapping[str, str], bytes], "str | None"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Another system that may answer interrupts.

    Args:
        name: its name in the address, and the actor of its answers: ``webhook:NAME``.
        secret: the shared secret; ``whsec_...`` is base64, as Standard Webhooks has it.
        scheme: ``"standard"``, ``"github"``, or a function of headers and body that returns the delivery's id (or
            ``None``) and raises ``ValueError`` when the signature is wrong.
        value: makes the answer from the parsed body; by default the body itself is the answer.
    """

    name: str
    secret: str = ""
    scheme: str | Verify = "standard"
    value: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"webhook name {self.name!r}: expected a name without slashes")

        if self.scheme in ("standard", "github") and not self.secret:
            raise ValueError(f"webhook {self.name!r} needs its secret")

        if not callable(self.scheme) and self.scheme not in ("standard", "github"):
            raise ValueError(f"webhook {self.name!r}: scheme {self.scheme!r}: expected standard, github or a function")

    def verify(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """Return the delivery's id, if it has one.

        Raises:
            Problem: 401, the signature is missing, wrong or old.
        """
        try:
            if callable(self.scheme):
                return self.scheme(headers, body)

            return self._standard(headers, body) if self.scheme == "standard" else self._github(headers, body)
        except ValueError as error:
            raise Problem(401, "The signature is not valid", str(error)) from None

    def _standard(self, headers: Mapping[str, str], body: bytes) -> str:
        delivery = headers.get("webhook-id", "")
        stamp = headers.get("webhook-timestamp", "")
        signatures = headers.get("webhook-signature", "")
        if not (delivery and stamp and signatures):
            raise ValueError("expected the headers webhook-id, webhook-timestamp and webhook-signature")

        if not (stamp.isascii() and stamp.isdigit()) or abs(time.time() - int(stamp[:15])) > TOLERANCE_SECONDS:
            raise ValueError(f"webhook-timestamp is not within {TOLERANCE_SECONDS} s of now")

        wanted = sign_standard(self.secret, delivery, stamp, body)
        if not any(hmac.compare_digest(wanted.encode(), given.encode()) for given in signatures.split(" ")):
            raise ValueError("webhook-signature does not fit")

        return delivery

    def _github(self, headers: Mapping[str, str], body: bytes) -> str | None:
        given = headers.get("x-hub-signature-256", "")
        wanted = "sha256=" + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted.encode(), given.encode()):
            raise ValueError("X-Hub-Signature-256 is missing or does not fit")

        return headers.get("x-github-delivery")


def sign_standard(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the ``webhook-signature`` of Standard Webhooks; for senders and tests."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret[6:], validate=True)
        except binascii.Error:
            raise ValueError("the secret after whsec_ is not base64") from None

    signed = b"%s.%s.%s" % (delivery.encode(), timestamp.encode(), body)
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
