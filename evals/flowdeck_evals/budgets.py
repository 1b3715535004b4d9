"""What a round used, and whether that was too much: wall, work, tokens, cost and steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowdeck_evals.rounds import CheckResult, Evidence

__all__ = ["check_budget", "metrics_of", "model_usage"]

_IN: Final = ("input_tokens", "prompt_tokens")
_OUT: Final = ("output_tokens", "completion_tokens")
_UNITS: Final = {"wall": "s", "work": "s", "cost_usd": "USD", "tokens": "tokens", "steps": "steps"}


def metrics_of(evidence: Evidence) -> dict[str, float]:
    """Return what is known: ``wall`` and ``work`` in seconds, ``tokens``, ``cost_usd``, ``steps``.

    Tokens and cost come from the ``usage`` of model events; they are 0 where no model was asked, and left out where
    one was asked and told nothing.
    """
    out: dict[str, float] = {"wall": evidence.wall_us / 1e6}
    if evidence.work_us is not None:
        out["work"] = evidence.work_us / 1e6

    steps = asked = 0
    tokens = cost = 0.0
    told = priced = False
    for event in evidence.events:
        if event.kind == "node.start":
            steps += 1
        elif event.type == "model.request_started":
            asked += 1
        elif event.type.startswith("model."):
            usage = _usage(event.payload)
            if usage:
                told = True
                tokens += _first(usage, ("total_tokens",)) or _first(usage, _IN) + _first(usage, _OUT)
                if "cost_usd" in usage:
                    priced, cost = True, cost + _first(usage, ("cost_usd",))

    out["steps"] = steps
    if told or not asked:
        out["tokens"] = tokens

    if priced or not asked:
        out["cost_usd"] = cost

    return out


def model_usage(evidence: Evidence) -> tuple[float | None, float | None]:
    """Return tokens and cost; ``None`` for what models were asked and did not tell."""
    if not any(event.type.startswith("model.") for event in evidence.events):
        return 0, 0

    found = metrics_of(evidence)
    return found.get("tokens"), found.get("cost_usd")


def check_budget(evidence: Evidence, budget: Mapping[str, float]) -> list[CheckResult]:
    """Return one result per limit. A limit on something unknown does not pass: it has no verdict."""
    found = metrics_of(evidence)
    out = []
    for name, most in budget.items():
        unit = _UNITS[name]
        if name not in found:
            out.append(CheckResult(f"budget {name}", error=f"{name} is not known: no event tells it"))
        else:
            used = found[name]
            detail = "" if used <= most else f"{used:.6g} {unit}, at most {most:g}"
            out.append(CheckResult(f"budget {name}", used <= most, score=used, detail=detail))

    return out


def _usage(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = payload.get("meta")
    found = payload.get("usage") or (meta.get("usage") if isinstance(meta, Mapping) else None)
    return found if isinstance(found, Mapping) else {}


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> float:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int | float):
            return float(value)

    return 0.0
