"""Keeping a stored run as an eval case: its tape, and a case that replays it, in a suite file beside the flow."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdeck_evals.tapes import Tape

__all__ = ["Promoted", "PromotionRefused", "promote"]


class PromotionRefused(ValueError):
    """The run makes no case; the message says why."""


@dataclass(frozen=True, slots=True)
class Promoted:
    """The case that was made."""

    file: Path
    case: str
    tape: Path


def promote(store: Path, run: str, target: str, folder: Path) -> Promoted:
    """Write the run's tape and append a case for it to ``promoted-<flow>.yaml`` in ``folder``.

    The case expects what the run did: its output if it completed, its error if it failed.

    Raises:
        PromotionRefused: the run has not ended, the store has no such run, the case is there already, or evals refuse
            the suite; the file is as it was.
        StoreError: the store cannot be read.
        OSError: the folder cannot be written.
    """
    from flowdeck.errors import EvalError
    from flowdeck_evals import Suite
    from flowdeck_evals.recording import NoSuchRun, record_stored

    try:
        tape = record_stored(store, run, target=target)
    except NoSuchRun as error:
        raise PromotionRefused(str(error)) from None
    if tape.status not in ("completed", "failed"):
        raise PromotionRefused(f"it is {tape.status}: only what ended can be expected again")

    flow = _named(str((tape.root.get("meta") or {}).get("flow_name") or target.partition(":")[2]))
    case = f"{flow}-{run[-10:]}"
    file = folder / f"promoted-{flow}.yaml"
    before = file.read_text() if file.exists() else None
    if before is not None and f"- case: {case}\n" in before:
        raise PromotionRefused(f"{file} holds {case} already")

    tape_file = folder / "tapes" / f"{case}.tape"
    tape_file.parent.mkdir(parents=True, exist_ok=True)
    tape.save(tape_file)
    file.write_text((before or _head(flow, target)) + _case(case, tape, tape_file.name))
    try:
        Suite.load(file)
    except EvalError as error:
        tape_file.unlink()
        file.unlink() if before is None else file.write_text(before)
        raise PromotionRefused(str(error)) from None
    return Promoted(file, case, tape_file)


def _head(flow: str, target: str) -> str:
    return (
        f"# Runs that were kept as cases; tidy them up as you like. Run it: evals run promoted-{flow}.yaml\n"
        f"suite: promoted-{flow}\ntarget: {json.dumps(target)}\n"
        "defaults: {level: recorded, timeout: 60s}\ncases:\n"
    )


def _case(case: str, tape: Tape, tape_name: str) -> str:
    """A case in YAML; values are written as JSON, which is YAML."""
    from flowdeck_evals.history import evidence_of

    found = evidence_of(tape)
    expect: dict[str, Any] = {"path": [{"in_order": ["run.start", "run.completed"]}]}
    if tape.status == "failed":
        expect = {"error": {"type": found.error_type}}
    elif found.output:
        expect = {"output": {"match": found.output}}
    lines = [
        f"  - case: {case}",
        f"    why: promoted from run {tape.root.get('run_id')}, which {tape.status}",
        f"    input: {json.dumps(tape.input, ensure_ascii=False)}",
        f"    tape: tapes/{tape_name}",
        f"    expect: {json.dumps(expect, ensure_ascii=False)}",
    ]
    return "\n".join(lines) + "\n"


def _named(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "flow"
