"""The rounds of a session as the store has them, as evidence for checks that were written later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowdeck_evals.cases import Case, Level
from flowdeck_evals.history import evidence_of
from flowdeck_evals.plans import Missing, RoundPlan
from flowdeck_evals.recording import record_many
from flowdeck_evals.rounds import Evidence
from flowdeck_evals.session_files import SessionFile
from flowdeck_evals.suite import Suite

__all__ = ["StoredRounds", "stored_rounds"]


class StoredRounds:
    """Evidence by ``(suite, case id, round)``; a planner for the runner."""

    def __init__(
        self,
        session_id: str,
        found: dict[tuple[str, str, int], Evidence | str],
        deterministic: Mapping[tuple[str, str], bool],
    ) -> None:
        self.session_id = session_id
        self.deterministic = deterministic
        """What each case, by ``(suite, id)``, counted as."""
        self._found = found
        self._suite_of: dict[int, str] = {}

    @property
    def cases(self) -> frozenset[tuple[str, str]]:
        return frozenset((suite, case_id) for suite, case_id, _ in self._found)

    def of(self, suites: list[Suite[Any, Any]]) -> StoredRounds:
        """Learn which case belongs to which suite."""
        self._suite_of = {id(case): suite.name for suite in suites for case in suite.cases}
        return self

    async def plan(self, case: Case[Any, Any], number: int, level: Level) -> RoundPlan:
        """Return the stored round of a case.

        Raises:
            Missing: the store does not have it, or not enough of it.
        """
        found = self._found.get((self._suite_of[id(case)], case.id, number))
        if found is None:
            raise Missing(f"session {self.session_id} has no round {number} of case {case.id!r}")

        if isinstance(found, str):
            raise Missing(found)

        return RoundPlan(evidence=found)


def stored_rounds(store: Path, file: SessionFile) -> StoredRounds:
    """Read all rounds of a session.

    Raises:
        StoreError: the store cannot be read.
    """
    from flowdeck_sinks.store import query

    rows = query(
        store,
        "SELECT payload FROM events WHERE event_type = 'eval.round_finished' AND payload ->> '$.session_id' = ? "
        "ORDER BY ts, wseq",
        [file.session_id],
    )
    bodies = [json.loads(text) for (text,) in rows]
    runs = [body["run_id"] for body in bodies if body.get("run_id")]
    tapes = record_many(store, runs) if runs else {}
    found: dict[tuple[str, str, int], Evidence | str] = {}
    for body in bodies:
        key = body["suite"], body["case_id"], body["round"]
        run = body.get("run_id")
        if run is None:
            found[key] = _of_callable(body)
        elif run in tapes:
            found[key] = evidence = evidence_of(tapes[run])
            evidence.wall_us, evidence.work_us = body["wall_us"], body.get("work_us")
        else:
            found[key] = f"the events of run {run} are no longer in the store"

    counted = {(suite, case_id): bool(row[5]) for suite, cases in file.cases.items() for case_id, row in cases.items()}
    return StoredRounds(file.session_id, found, counted)


def _of_callable(body: dict[str, Any]) -> Evidence | str:
    error = body.get("error") or {}
    if "output" not in body and not error:
        return f"the output of case {body['case_id']!r}, round {body['round']}, was not kept"

    return Evidence(
        output=body.get("output"),
        error_type=error.get("type", ""),
        error_message=error.get("message", ""),
        timed_out=body["state"] == "timed_out",
        wall_us=body["wall_us"],
        work_us=body.get("work_us"),
    )
