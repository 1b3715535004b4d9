"""Whether an answer is good enough: needed keys, and validators of the user's own.

Source: behaviour, Appendix D ("Request options on results").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Final, Literal

__all__ = ["Checks", "Refusal", "Validator", "missing_keys"]

Validator = Callable[[Any, dict[str, Any]], Any]
"""``validator(result, context) -> bool or mapping``, plain or async.

The mapping: ``{"ok": bool, "reason", "payload", "no_retry", "stop", "raise", "validator_name"}``.
"""
_PART: Final = re.compile(r"\[(\*|\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an answer is not good enough."""

    reason: str
    """``parse``, ``schema``, ``ensure_keys`` or ``validation``."""
    text: str
    retry: bool = True
    stop: bool = False
    validator: str = ""
    payload: Any = None
    problem: BaseException | None = None
    """What the validator raised, or wants raised."""
    is_error: bool = False
    """The validator itself failed, or answered something that is no verdict."""
    raises: bool = False

    @property
    def retry_reason(self) -> str:
        """What ``model.retrying`` calls it."""
        return "validation" if self.reason == "validation" else "output_constraints"

    def as_payload(self) -> dict[str, Any]:
        """Return what ``model.retrying`` says of it."""
        said: dict[str, Any] = {"validation_reason": self.text}
        if self.reason == "validation":
            said |= {
                "validator_name": self.validator,
                "validation_stop": self.stop,
                "validation_no_retry": not self.retry,
                "validation_payload": self.payload,
            }

        return said


@dataclass(frozen=True, slots=True)
class Checks:
    """What an answer must pass, and how often it may be tried again."""

    ensure_keys: tuple[str, ...] = ()
    validators: tuple[Validator, ...] = ()
    key_style: Literal["dot", "slash"] = "dot"
    max_retries: int = 3
    raise_failure: bool = True
    """Whether an answer that is not good enough after the last attempt is an error, or is returned as it is."""
    given: frozenset[str] = field(default_factory=frozenset)

    @staticmethod
    def of(
        ensure_keys: str | Iterable[str] | None = None,
        validate_handler: Validator | Iterable[Validator] | None = None,
        key_style: Literal["dot", "slash"] = "dot",
        max_retries: int = 3,
        raise_ensure_failure: bool = True,
    ) -> Checks:
        """Read the options of a request.

        Raises:
            ValueError: a style or a number that is none.
        """
        if key_style not in ("dot", "slash"):
            raise ValueError(f"key_style={key_style!r}: expected 'dot' or 'slash'")

        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise ValueError(f"max_retries={max_retries!r}: expected a whole number from 0")

        keys = [ensure_keys] if isinstance(ensure_keys, str) else list(ensure_keys or ())
        handlers = [validate_handler] if callable(validate_handler) else list(validate_handler or ())
        return Checks(tuple(keys), tuple(handlers), key_style, max_retries, raise_ensure_failure)

    def __bool__(self) -> bool:
        return bool(self.ensure_keys or self.validators)

    def over(self, other: Checks) -> Checks:
        """Return both: these options, and the keys and validators of both."""
        return Checks(
            tuple(dict.fromkeys((*other.ensure_keys, *self.ensure_keys))),
            tuple(dict.fromkeys((*other.validators, *self.validators))),
            self.key_style,
            self.max_retries,
            self.raise_failure,
        )

    async def look(self, result: Any, context: dict[str, Any]) -> Refusal | None:
        """Return why ``result`` is not good enough, ``None`` when it is."""
        missing = missing_keys(result, self.ensure_keys, self.key_style)
        if missing:
            return Refusal("ensure_keys", f"these keys are missing: {', '.join(missing)}")

        for validator in self.validators:
            name = getattr(validator, "__name__", type(validator).__name__)
            try:
                verdict = validator(result, {**context, "validator_name": name})
                if isawaitable(verdict):
                    verdict = await verdict
            except Exception as problem:
                text = f"validator {name!r} raised {type(problem).__name__}: {problem}"
                return Refusal("validation", text, validator=name, problem=problem, is_error=True)

            refusal = _refusal(verdict, name)
            if refusal is not None:
                return refusal

        return None


def _refusal(verdict: Any, name: str) -> Refusal | None:
    if verdict is True:
        return None

    if verdict is False:
        return Refusal("validation", f"validator {name!r} refuses it", validator=name)

    if not isinstance(verdict, Mapping) or not isinstance(verdict.get("ok"), bool):
        text = f"validator {name!r} returned {verdict!r:.200}; expected a bool or a mapping with 'ok'"
        return Refusal("validation", text, validator=name, is_error=True)

    if verdict["ok"]:
        return None

    raised = next((verdict[key] for key in ("raise", "error", "exception") if verdict.get(key)), None)
    problem = raised() if isinstance(raised, type) and issubclass(raised, BaseException) else raised
    stop = bool(verdict.get("stop"))
    return Refusal(
        "validation",
        str(verdict.get("reason") or f"validator {name!r} refuses it"),
        retry=not (verdict.get("no_retry") or stop or raised is not None),
        stop=stop,
        validator=str(verdict.get("validator_name") or name),
        payload=verdict.get("payload"),
        problem=problem if isinstance(problem, BaseException) else None,
        raises=raised is not None,
    )


def missing_keys(data: Any, keys: Iterable[str], style: str = "dot") -> list[str]:
    """Return the ``keys`` that ``data`` has nothing under; ``null`` is nothing. ``[*]`` (``*``) is every member."""
    return [key for key in keys if not _has(data, _steps(key, style))]


def _steps(key: str, style: str) -> list[str]:
    if style == "slash":
        return [step for step in key.strip("/").split("/") if step]

    return [index or name for index, name in _PART.findall(key)]


def _has(here: Any, steps: list[str]) -> bool:
    if not steps:
        return here is not None

    step, rest = steps[0], steps[1:]
    if isinstance(here, Mapping):
        return step in here and _has(here[step], rest)

    if isinstance(here, list):
        if step == "*":
            return all(_has(each, rest) for each in here)

        return step.isdecimal() and int(step) < len(here) and _has(here[int(step)], rest)

    return False
