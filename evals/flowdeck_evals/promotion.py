"""A stored run as a case: its tape, and a case that replays it and expects what the run did, in a suite file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdeck.errors import EvalError

if TYPE_CHECKING:
    from flowdeck_evals.tapes import Tape

__all__ = ["KeptRun", "RunNotKept", "keep_run", "name_of"]


class RunNotKept(EvalError, ValueError):
    """The run makes no case; the message says why, and no file was changed."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """The case that was made."""

    file: Path
    case: str
    tape: Path


def keep_run(
    tape: Tape,
    folder: Path,
    *,
    prefix: str = "promoted",
    target: str = "",
    case: str = "",
    why: str = "",
    tags: Sequence[str] = (),
) -> KeptRun:
    """Write a run's tape and append a case for it to ``<prefix>-<flow>.yaml`` in ``folder``.

    The case expects what the run did: its output if it completed, its error if it failed. One suite has one target.

    Args:
        target: ``module:flow``; what the tape says when omitted.
        case: its name; the flow's and a hash of the run's id when omitted.

    Raises:
        RunNotKept: the run has not ended, nobody knows its target, the case is there already, or the suite would be
            wrong; the files are as they were.
        OSError: the folder cannot be written.
    """
    from flowdeck_evals.suite import Suite

    if tape.status not in ("completed", "failed"):
        raise RunNotKept(f"it is {tape.status}: only what ended can be expected again")

    target = target or str(tape.header.get("target") or "")
    if not re.fullmatch(r"[\w.]+:[\w.]+", target):
        raise RunNotKept("nobody told where its flow is; name it: --target module:flow")

    flow = name_of(str((tape.root.get("meta") or {}).get("flow_name") or target.partition(":")[2]))
    run = str(tape.root.get("run_id") or "")
    case = case or f"{flow}-{hashlib.blake2b(run.encode(), digest_size=5).hexdigest()}"
    file = folder / f"{prefix}-{flow}.yaml"
    before = file.read_text(encoding="utf-8") if file.exists() else None
    if before is not None and f"- case: {case}\n" in before:
        raise RunNotKept(f"{file} holds {case} already")

    tape_file = folder / "tapes" / f"{case}.tape"
    tape_file.parent.mkdir(parents=True, exist_ok=True)
    tape.save(tape_file)
    text = (before or _head(f"{prefix}-{flow}", target)) + _case(case, tape, tape_file.name, why, tags)
    file.write_text(text, encoding="utf-8")
    try:
        Suite.load(file)
    except EvalError as error:
        tape_file.unlink()
        file.unlink() if before is None else file.write_text(before, encoding="utf-8")
        raise RunNotKept(str(error)) from None

    return KeptRun(file, case, tape_file)


def name_of(text: str) -> str:
    """Return text as the name of a suite or case: lower case with dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "flow"


def _head(suite: str, target: str) -> str:
    return (
        f"# Runs that were kept as cases; tidy them up as you like. Run it: evals run {suite}.yaml\n"
        f"suite: {suite}\ntarget: {json.dumps(target)}\n"
        "defaults: {level: recorded, timeout: 60s}\ncases:\n"
    )


def _case(case: str, tape: Tape, tape_name: str, why: str, tags: Sequence[str]) -> str:
    """A case in YAML; values are written as JSON, which is YAML."""
    from flowdeck_evals.history import evidence_of

    found = evidence_of(tape)
    expect: dict[str, Any] = {"path": [{"in_order": ["run.start", "run.completed"]}]}
    if tape.status == "failed":
        expect = {"error": {"type": found.error_type}}
    elif found.output:
        expect = {"output": {"match": found.output}}

    why = why or f"promoted from run {tape.root.get('run_id')}, which {tape.status}"
    lines = [
        f"  - case: {case}",
        f"    why: {json.dumps(why, ensure_ascii=False)}",
        *([f"    tags: {json.dumps(list(tags))}"] if tags else []),
        f"    input: {json.dumps(tape.input, ensure_ascii=False)}",
        f"    tape: tapes/{tape_name}",
        f"    expect: {json.dumps(expect, ensure_ascii=False)}",
    ]
    return "\n".join(lines) + "\n"
