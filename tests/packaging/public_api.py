"""The public API as text: ``python -m tests.packaging.public_api`` writes it down anew, on purpose."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

__all__ = ["SNAPSHOT", "described"]

SNAPSHOT = Path(__file__).parent / "public_api.txt"

MODULES = (
    "flowdeck",
    "flowdeck.compat",
    "flowdeck.durable",
    "flowdeck.web",
    "flowdeck.product",
    "flowdeck.interaction",
    "flowdeck_sinks.store",
    "flowdeck_evals",
)


def described() -> str:
    """Return every public name of the documented modules with its parameters, a line each."""
    lines: list[str] = []
    for name in MODULES:
        module = import_module(name)
        for public in sorted(module.__all__):
            value = getattr(module, public)
            lines.append(f"{name}.{public}{_parameters(value)}")
            if inspect.isclass(value) and (value.__module__ or "").startswith("flowdeck"):
                lines += sorted(_members(f"{name}.{public}", value))

    return "\n".join(lines) + "\n"


def _members(place: str, kind: type) -> list[str]:
    lines = []
    for name in dir(kind):
        if name.startswith("_"):
            continue

        member = inspect.getattr_static(kind, name)
        home = next((c for c in kind.__mro__ if name in vars(c)), kind)
        if not (home.__module__ or "").startswith("flowdeck"):
            continue

        inner = getattr(member, "__func__", member)
        lines.append(f"{place}.{name}{_parameters(inner) if inspect.isfunction(inner) else ''}")

    return lines


def _parameters(value: object) -> str:
    """The parameters' names, kinds and whether they may be left out; not their defaults, which are no promise."""
    if not callable(value):
        return ""

    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return ""

    shown = []
    for parameter in signature.parameters.values():
        text = re.sub(r"[:=].*", "", str(parameter)).strip()
        shown.append(text if parameter.default is inspect.Parameter.empty else f"{text}=…")

    return f"({', '.join(shown)})"


if __name__ == "__main__":
    SNAPSHOT.write_text(described(), encoding="utf-8")
