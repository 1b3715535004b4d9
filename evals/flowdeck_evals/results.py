"""Keeping results: lossless ``eval.*`` events in the store, and a small file per session for what comes next.

The events are the truth (views ``eval_sessions``, ``eval_rounds``, ``eval_checks``). ``<store>/evals/<session>.json``
says what a session was asked and what each case came to, so that ``evals list``, ``--failed-last`` and ``--resume``
need no query over history; it can be deleted without loss of results.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from flowdeck.events.center import EventCenter
from flowdeck.events.ids import new_id
from flowdeck_evals.budgets import model_usage
from flowdeck_evals.case_results import row_of
from flowdeck_evals.gate import Verdict
from flowdeck_evals.outcomes import CaseOutcome, RoundOutcome
from flowdeck_evals.rounds import Round
from flowdeck_evals.session_files import SessionFile, write_session

__all__ = ["Results", "load_rounds"]

FLUSH_SECONDS: Final = 10.0
"""What the disk may take for everything at the end; then the session is incomplete."""
RERUN: Final = ("harness_error",)
"""States that a resumed session does not keep."""


class Results:
    """Writes one session's results; :attr:`journal` takes the events of its flows, too.

    Args:
        store: the store's directory; ``None`` keeps nothing.
        session: a session to go on with.
    """

    def __init__(self, store: str | os.PathLike[str] | None, session: SessionFile | None = None) -> None:
        self.session_id = session.session_id if session is not None else new_id()
        self.journal: Any = None
        self.store: Path | None = None
        self._center = EventCenter()
        self._round = self._center.type("eval.round_finished")
        self.written = 0
        if store is not None:
            from flowdeck_sinks.journal import JournalSink

            self.journal = JournalSink(store, lossless=True, lossless_seconds=FLUSH_SECONDS)
            self.store = self.journal.store
            self._center.add_sink(self.journal)

    def started(self, payload: Mapping[str, Any], session: SessionFile) -> None:
        """Say what is evaluated, before the first round."""
        self._session = session
        self._center.type("eval.session_started").emit(
            {
                "session_id": self.session_id,
                "host": platform.node(),
                "python": platform.python_version(),
                "argv": sys.argv[:50],
                **payload,
            }
        )
        self._save()

    def round(self, round: Round, *, keep_output: bool) -> None:
        """Write one round."""
        if not self._round.sinks:
            return

        evidence = round.evidence
        payload: dict[str, Any] = {
            "session_id": self.session_id,
            "suite": round.suite,
            "case_id": round.case.id,
            "case_hash": round.case.hash,
            "round": round.number,
            "level": round.level,
            "state": round.state,
            "wall_us": evidence.wall_us,
            "work_us": evidence.work_us,
            "checks": [one.to_dict() for one in round.checks],
        }
        if round.case.control:
            payload["control"] = True

        if round.reason:
            payload["reason"] = round.reason

        if evidence.run_id is not None:
            payload["run_id"], payload["execution_id"] = evidence.run_id, evidence.execution_id

        if evidence.virtual_us is not None:
            payload["virtual_us"] = evidence.virtual_us

        tokens, cost = model_usage(evidence)
        if tokens != 0 or cost != 0:
            payload["tokens"], payload["cost_usd"] = tokens, cost

        if round.attempts > 1:
            payload["attempts"] = round.attempts

        if evidence.error_type:
            payload["error"] = {"type": evidence.error_type, "message": evidence.error_message}

        if round.findings:
            payload["findings"] = [one.to_dict() for one in round.findings]

        if keep_output:
            payload["output"] = evidence.output

        self._round.emit(payload)
        self.written += 1

    def copied(self, payload: dict[str, Any]) -> None:
        """Write a round of another session as one of this."""
        self._round.emit({**payload, "session_id": self.session_id, "of_session": payload["session_id"]})
        self.written += 1

    def trouble(self) -> str:
        """Return why results may be lost, as far as is known now; empty when none are."""
        if self.journal is None:
            return ""

        found = self.journal.statistics()
        if found["dropped"]:
            return f"{found['dropped']} events are lost{_because(found)}"

        return f"results cannot be written{_because(found)}" if found["failure"] else ""

    def flush(self) -> str:
        """Wait until everything is on disk. Return what is wrong, empty when nothing is."""
        if self.journal is None:
            return ""

        if not self.journal.flush(FLUSH_SECONDS if not self.journal.statistics()["failure"] else 0.5):
            return self.trouble() or f"results were not on disk after {FLUSH_SECONDS:g} s"

        return self.trouble()

    def verdict(self, verdict: Verdict, outcomes: Iterable[CaseOutcome], payload: Mapping[str, Any]) -> str:
        """Commit the verdict: event, flush, session file. Return what is wrong, empty when nothing is."""
        passed = verdict.totals.get("passed", 0)
        body = {
            "session_id": self.session_id,
            **verdict.to_dict(),
            "passed": passed,
            "failed": sum(verdict.totals.values()) - passed - verdict.totals.get("skipped", 0),
            **payload,
        }
        self._center.type("eval.verdict").emit(body)
        wrong = self.flush()
        self._session.code = verdict.code
        for one in outcomes:
            self._session.cases.setdefault(one.suite, {})[one.case_id] = row_of(one)

        return wrong or self._save()

    def close(self) -> None:
        """Let go of the store."""
        if self.journal is not None:
            self._center.remove_sink(self.journal)
            self.journal.close(2.0)

    def _save(self) -> str:
        if self.store is None:
            return ""

        try:
            write_session(self.store, self._session)
        except OSError as error:
            return f"{error.filename or self.store}: {error.strerror or error}"

        return ""


def _because(found: Mapping[str, Any]) -> str:
    return f": {found['failure']}" if found["failure"] else ""


def load_rounds(store: Path, session_id: str, *, keep: bool = False) -> list[RoundOutcome]:
    """Return the rounds a session has written; those it must run again are left out unless ``keep``.

    Raises:
        StoreError: the store cannot be read, or DuckDB is missing.
    """
    from flowdeck_sinks.store import query

    found = query(
        store,
        "SELECT payload FROM events WHERE event_type = 'eval.round_finished' AND payload ->> '$.session_id' = ? "
        "ORDER BY ts, wseq",
        [session_id],
    )
    latest: dict[tuple[str, str, int], RoundOutcome] = {}
    for (text,) in found:
        body = json.loads(text)
        checks = body.get("checks", [])
        one = RoundOutcome(
            body["suite"],
            body["case_id"],
            body["case_hash"],
            body["round"],
            body["state"],
            body.get("reason", ""),
            body.get("wall_us", 0),
            body.get("run_id"),
            body.get("attempts", 1),
            tuple(c["name"] for c in checks if c.get("ok") is False or c.get("error")),
            body.get("tokens", 0),
            body.get("cost_usd", 0),
            {c["name"]: c["score"] for c in checks if "score" in c and c.get("ok") is None} or None,
        )
        latest[one.suite, one.case_id, one.round] = one

    return [one for one in latest.values() if keep or one.state not in RERUN]
