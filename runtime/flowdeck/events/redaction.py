"""Secrets never leave the process: values under known secret keys are replaced before an event is encoded.

The rule is an explicit list of key names, compared without case and separators (``api_key``, ``X-Api-Key`` and
``APIKEY`` are one name). A compound key is secret when it *ends* with a listed name (``OPENAI_API_KEY``,
``db_password``). Usage counters (``input_tokens``, ``max_tokens``) are plural and never match; the few singular
names that only look secret are exempt by name.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MASK", "add_secret_keys", "is_secret_key", "redact"]

MASK: Final = "[redacted]"
"""What stands in place of a secret value."""

_NAMES: set[str] = {
    "accesskey",
    "accesskeyid",
    "apikey",
    "authorization",
    "clientsecret",
    "connectionstring",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "encryptionkey",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "secrets",
    "sessionkey",
    "setcookie",
    "signingkey",
    "token",
}
_EXEMPT: Final = frozenset(
    {
        "bostoken",
        "completiontoken",
        "continuationtoken",
        "eostoken",
        "firsttoken",
        "fencingtoken",
        "inputtoken",
        "lasttoken",
        "maxtoken",
        "nexttoken",
        "outputtoken",
        "padtoken",
        "pagetoken",
        "pertoken",
        "prompttoken",
        "septoken",
        "stoptoken",
        "totaltoken",
        "unktoken",
    }
)
_SEPARATORS: Final = str.maketrans("", "", "-_ .:/")
# The last few letters of every listed name: one C call rules nearly every key out.
_endings: tuple[str, ...] = tuple(sorted({name[-3:] for name in _NAMES}))
_suffixes: tuple[str, ...] = tuple(sorted(_NAMES))

# Keys found clean, so that a dict is checked by one set operation. Bounded; emptied when full.
_clean: set[str] = set()
_CLEAN_LIMIT: Final = 8192
_is_clean: Final = _clean.issuperset
"""Whether all keys of a dict are known to be clean. The set is emptied at times, never replaced: import this freely."""


def is_secret_key(key: object) -> bool:
    """Return whether a value under ``key`` must not be written. Only text keys can be secret."""
    if not isinstance(key, str) or not key:
        return False

    folded = key.lower().rstrip("-_ .:/")
    if not folded.endswith(_endings):
        return False

    folded = folded.translate(_SEPARATORS)
    return folded.endswith(_suffixes) and folded not in _EXEMPT


def add_secret_keys(*names: str) -> None:
    """Treat values under ``names`` (and keys that end with them) as secrets, in every event from now on.

    Raises:
        ValueError: a name is shorter than three letters; it would match half the alphabet.
    """
    global _endings, _suffixes
    folded = [name.lower().translate(_SEPARATORS) for name in names]
    for name, text in zip(names, folded, strict=True):
        if len(text) < 3:
            raise ValueError(f"secret key {name!r} is too short: give at least three letters")

    _NAMES.update(folded)
    _endings = tuple(sorted({name[-3:] for name in _NAMES}))
    _suffixes = tuple(sorted(_NAMES))
    _clean.clear()


def has_unclean_key(mapping: dict[Any, Any]) -> bool:
    """Return whether a key of ``mapping`` (this level only) is secret or no text. Learns clean keys as it goes."""
    if _is_clean(mapping):
        return False

    if len(_clean) + len(mapping) > _CLEAN_LIMIT:
        _clean.clear()

    learn = len(mapping) <= 256  # a dict keyed by user ids must not push the everyday keys out
    for key in mapping:
        if type(key) is not str or is_secret_key(key):
            return True

        if learn:
            _clean.add(key)

    return False


def redact(value: Any) -> Any:
    """Return a copy of ``value`` with secrets masked; containers only, other values are returned as they are.

    Cycles and nesting deeper than 64 are cut with ``{"$cut": "depth"}``.
    """
    return _redact(value, 64)


def _redact(value: Any, room: int) -> Any:
    if isinstance(value, dict):
        if room == 0:
            return {"$cut": "depth"}

        return {
            key: MASK if item is not None and is_secret_key(key) else _redact(item, room - 1)
            for key, item in value.items()
        }

    if isinstance(value, (list, tuple)):
        if room == 0:
            return {"$cut": "depth"}

        return [_redact(item, room - 1) for item in value]

    return value
