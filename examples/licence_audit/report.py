"""Write the audit's results: a report for people and a summary for programs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .metadata import AuditError
from .rules import Verdict
from .spdx import CLASSES

__all__ = ["prepare", "sort_key", "write"]

_TITLES = {
    "permissive": "Permissive",
    "weak_copyleft": "Weak copyleft",
    "strong_copyleft": "Strong copyleft",
    "unknown": "Unknown",
}


def prepare(out: Path) -> None:
    """Make the output folder and prove that it can be written.

    Raises:
        AuditError: it is a file, cannot be made, or its disk is full or read-only.
    """
    probe = out / f".probe-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 512)
        probe.unlink()
    except OSError as error:
        _remove(probe)
        raise _unwritable(out, error) from None


def write(out: Path, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Write ``report.md`` and ``summary.json`` into ``out`` and return the figures and the two paths.

    Raises:
        AuditError: a file cannot be written. The file of an earlier audit then stays as it was.
    """
    ordered = sorted(verdicts, key=sort_key)
    figures = {
        "distributions": len(ordered),
        "verdicts": {name: Counter(one["verdict"] for one in ordered)[name] for name in CLASSES},
        "decisions": dict(sorted(Counter(one["decision"] for one in ordered).items())),
    }
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"made_at": made_at, **figures, "results": ordered}
    try:
        report = _replace(out / "report.md", _markdown(ordered, made_at))
        summary = _replace(out / "summary.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise _unwritable(out, error) from None

    return {**figures, "report": str(report), "summary": str(summary)}


def sort_key(verdict: Verdict) -> tuple[int, str, str]:
    """Order verdicts so that what needs a look stands first."""
    return -CLASSES.index(verdict["verdict"]), verdict["name"].lower(), verdict["version"]


def _unwritable(out: Path, error: OSError) -> AuditError:
    reason = error.strerror or str(error)
    return AuditError(f"cannot write the report to {out}: {reason}; choose another folder")


def _replace(path: Path, text: str) -> Path:
    # Two audits may write the same folder: each file is swapped in whole, so a reader never sees a mixture.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(path)
    except OSError:
        _remove(part)
        raise

    return path


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # The folder itself may be what is wrong; the first error is the one to report.


def _markdown(verdicts: Sequence[Verdict], made_at: str) -> str:
    lines = ["# Licence audit", "", f"{len(verdicts)} distributions, {made_at}.", ""]
    for name in reversed(CLASSES):
        group = [verdict for verdict in verdicts if verdict["verdict"] == name]
        if not group:
            continue

        lines += [f"## {_TITLES[name]} ({len(group)})", ""]
        lines += ["| Distribution | Version | Licence | Decision | Evidence |", "|---|---|---|---|---|"]
        for one in group:
            decided = " ".join(filter(None, (one["decision"], one["actor"] and f"by {one['actor']}")))
            noted = f"{decided}: {one['note']}" if one["note"] else decided
            cells = (one["name"], one["version"], one["licence"], noted, "; ".join(one["evidence"]))
            lines.append(f"| {' | '.join(map(_cell, cells))} |")

        lines.append("")

    return "\n".join(lines)


def _cell(text: str) -> str:
    """Keep a stranger's words from becoming table markup or HTML."""
    words = " ".join(text.split())
    for char, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`"), ("[", "\\[")):
        words = words.replace(char, safe)

    return words
