"""Which families of events a console shows, and how much of each.

A profile is written ``"simple"``, or with exceptions: ``"simple+model=detail+tool=off"``. Families: ``model``
(requests, prompts, agent turns), ``action``, ``tool``, ``trigger_flow`` (executions and chunks) and ``runtime``
(everything else, the user's own events included). ``action`` and ``tool`` are two names of nearly one thing: whichever
is not given follows the other. Source: the compatible API's console settings ``runtime.show_*_logs`` and ``debug``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

__all__ = ["CONSOLE_SETTINGS", "FAMILIES", "MODES", "Profiles", "debug_mode", "family_of", "spec_of_settings"]

MODES: Final = ("off", "simple", "detail")
FAMILIES: Final = ("model", "action", "tool", "trigger_flow", "runtime")
CONSOLE_SETTINGS: Final = {f"runtime.show_{family}_logs": family for family in FAMILIES}
"""The compatible API's setting of each family."""
_PREFIXES: Final = {
    "model": "model",
    "request": "model",
    "prompt": "model",
    "agent_turn": "model",
    "action": "action",
    "execution_environment": "action",
    "tool": "tool",
    "triggerflow": "trigger_flow",
    "trigger_flow": "trigger_flow",
    "workflow": "trigger_flow",
    "chunk": "trigger_flow",
}
_TWINS: Final = {"action": "tool", "tool": "action"}


def family_of(event_type: str) -> str:
    """Return the family an event type belongs to."""
    return _PREFIXES.get(event_type.partition(".")[0], "runtime")


class Profiles:
    """A mode for every family. Immutable; made by :meth:`parse`."""

    __slots__ = ("_modes", "spec")

    def __init__(self, spec: str, modes: dict[str, str]) -> None:
        self.spec = spec
        self._modes = modes

    @staticmethod
    def parse(spec: str) -> Profiles:
        """Read ``"mode"``, ``"family=mode"`` or several of them, joined by ``+`` or a comma.

        Raises:
            ValueError: there is no such mode or family.
        """
        return _parse(spec)

    def mode_of(self, event_type: str) -> str:
        """Return ``off``, ``simple`` or ``detail``."""
        return self._modes[family_of(event_type)]

    @property
    def silent(self) -> bool:
        """Whether nothing is shown at all."""
        return set(self._modes.values()) == {"off"}

    def __repr__(self) -> str:
        return f"Profiles({self.spec!r})"


@lru_cache(maxsize=128)
def _parse(spec: str) -> Profiles:
    default: str | None = None
    given: dict[str, str] = {}
    for part in spec.replace(",", "+").split("+"):
        family, equals, mode = (text.strip() for text in part.partition("="))
        if not equals:
            family, mode = "", family

        if mode not in MODES:
            raise ValueError(f"console mode must be one of {', '.join(MODES)}, not {mode!r}")

        if not family:
            default = mode
        elif family in FAMILIES:
            given[family] = mode
        else:
            raise ValueError(f"console family must be one of {', '.join(FAMILIES)}, not {family!r}")

    # Naming families alone is asking for these.
    base = default or "off"
    modes = {
        family: given.get(family) or given.get(_TWINS.get(family, "")) or base
        for family in FAMILIES
    }  # fmt: skip
    return Profiles(spec, modes)


def debug_mode(value: Any) -> str:
    """Return the mode the compatible setting ``debug`` stands for.

    Raises:
        ValueError: it is none of ``False``, ``True``, ``"off"``, ``"simple"`` and ``"detail"``.
    """
    if value is True or value is False:
        return "simple" if value else "off"

    if value in MODES:
        return str(value)

    raise ValueError(f'debug must be False, True, "off", "simple" or "detail", not {value!r}')


def spec_of_settings(get: Callable[[str], Any]) -> str | None:
    """Return the profile that settings ask for, ``None`` when none of them is set.

    Raises:
        ValueError: one of them is none of the modes.
    """
    debug = get("debug")
    parts = [] if debug is None else [debug_mode(debug)]
    for name, family in CONSOLE_SETTINGS.items():
        mode = get(name)
        if mode is None:
            continue

        if mode not in MODES:
            raise ValueError(f"{name} must be one of {', '.join(MODES)}, not {mode!r}")

        parts.append(f"{family}={mode}")

    return "+".join(parts) or None
