"""Putting the parts of a session together (``evals run --shard i/n`` on several machines), or refusing to.

A part that is missing, there twice, unfinished, of another commit or of other cases makes the whole untrustworthy, so
nothing is judged then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowdeck.errors import EvalError
from flowdeck_evals.baselines import Baseline
from flowdeck_evals.gate import INTERRUPTED, judge
from flowdeck_evals.outcomes import RoundOutcome, gather
from flowdeck_evals.reports import Summary
from flowdeck_evals.results import Results, load_rounds
from flowdeck_evals.runner import Options
from flowdeck_evals.session_files import SessionFile, read_session
from flowdeck_evals.suite import Suite

__all__ = ["NotWhole", "find_part", "merge"]


class NotWhole(EvalError):
    """The parts do not make one session; ``problems`` says why, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Part:
    """One part and the store it is in."""

    store: Path
    file: SessionFile

    @property
    def name(self) -> str:
        shard = self.file.shard
        return f"part {shard[0]}/{shard[1]} ({self.store})" if shard else f"session {self.file.session_id}"


def find_part(given: str, store: Path) -> Part:
    """Return a part: the newest session of a store's directory, or one of ``store`` by its id.

    Raises:
        NotWhole: there is none.
    """
    folder = Path(given)
    try:
        if (folder / "evals").is_dir():
            return Part(folder, read_session(folder, None))

        return Part(store, read_session(store, given))
    except EvalError as error:
        raise NotWhole([f"{given}: {error}"]) from None


def merge(
    parts: Sequence[Part], suites: Sequence[Suite[Any, Any]], baselines: dict[str, Baseline], store: Path
) -> Summary:
    """Write the parts' rounds into ``store`` as one session, judge it and commit the verdict.

    Raises:
        NotWhole: the parts do not make one session.
        StoreError: a store cannot be read or written.
    """
    _refuse(parts)
    first = parts[0].file
    cases = _cases(parts, suites)
    rounds: dict[tuple[str, str], list[RoundOutcome]] = {}
    stored = [(part, load_rounds(part.store, part.file.session_id, keep=True)) for part in parts]
    for _, found in stored:
        for one in found:
            rounds.setdefault((one.suite, one.case_id), []).append(one)

    outcomes = gather(cases, rounds)
    by_name = {suite.name: suite for suite in suites}
    verdict = judge(
        [
            (name, by_name[name].gate, [one for one in outcomes if one.suite == name])
            for name in dict.fromkeys(one.suite for one in outcomes)
        ],
        baselines=baselines,
        without_baseline=first.baseline == "none",
    )
    results = Results(store)
    try:
        names = ",".join(first.suites)
        file = SessionFile(
            results.session_id,
            min(part.file.started_us for part in parts),
            first.suites,
            first.level,
            first.rounds,
            first.select,
            first.baseline,
            git=first.git,
            case_list=first.case_list,
        )
        merged = [part.file.session_id for part in parts]
        results.started({"suite": names, "level": first.level, "git_sha": first.git, "merged": merged}, file)
        for part, _ in stored:
            _copy(part, results)

        payload = {"suite": names, "level": first.level, "baseline": first.baseline, "rounds": results.written}
        wrong = results.verdict(verdict, outcomes, payload)
        if wrong:
            raise NotWhole([wrong])
    finally:
        results.close()

    seconds = time.time() - file.started_us / 1e6
    return Summary(results.session_id, verdict, outcomes, seconds, first.level)


def _refuse(parts: Sequence[Part]) -> None:
    problems = [
        f"{part.name}: it is no part of a session; run it with --shard" for part in parts if part.file.shard is None
    ]
    if not parts or problems:
        raise NotWhole(problems or ["there is no part to merge"])

    problems += [
        f"{part.name}: it did not finish (code {part.file.code})"
        for part in parts
        if part.file.code in (None, 2, 3, INTERRUPTED)
    ]
    first = parts[0]
    for what, index in (("number of parts", 0), ("commit", 1), ("list of cases and their hashes", 2), ("asking", 3)):
        expected = _identity(first.file)[index]
        problems += [
            f"{part.name}: its {what} ({found}) is not that of {first.name} ({expected})"
            for part in parts[1:]
            if (found := _identity(part.file)[index]) != expected
        ]

    shard = first.file.shard
    assert shard is not None
    numbers = [part.file.shard[0] for part in parts if part.file.shard is not None]
    problems += [f"part {n}/{shard[1]} is missing" for n in range(1, shard[1] + 1) if n not in numbers]
    problems += [f"part {n}/{shard[1]} is there {numbers.count(n)} times" for n in set(numbers) if numbers.count(n) > 1]
    if problems:
        raise NotWhole(problems)


def _identity(file: SessionFile) -> tuple[str, str, str, str]:
    """What the parts of one session have in common."""
    asked = f"level {file.level}, rounds {file.rounds}, baseline {file.baseline}, {file.select}"
    return str(file.shard[1] if file.shard else 0), str(file.git), file.case_list, asked


def _cases(parts: Sequence[Part], suites: Sequence[Suite[Any, Any]]) -> list[tuple[str, Any, bool, int]]:
    """Return the cases to judge, in the suites' order.

    Raises:
        NotWhole: one is in two parts or in none, or is not what the suite says now.
    """
    found: dict[tuple[str, str], tuple[Part, list[Any]]] = {}
    problems = []
    for part in parts:
        for name, rows in part.file.cases.items():
            for case_id, row in rows.items():
                other = found.setdefault((name, case_id), (part, row))
                if other[0] is not part:
                    problems.append(f"case {name}/{case_id} is in {other[0].name} and in {part.name}")

    out = []
    first = parts[0].file
    asked = Options(tags=tuple(first.select.get("tags", ())), cases=tuple(first.select.get("cases", ())))
    for suite in suites:
        for case in suite.cases:
            known = found.pop((suite.name, case.id), None)
            if known is None and suite.name in first.suites and asked.selects(suite.name, case):
                problems.append(f"case {suite.name}/{case.id} is in no part")
            elif known is not None:
                if known[1][0] != case.hash:
                    problems.append(f"case {suite.name}/{case.id} is not as it was when {known[0].name} ran")

                out.append((suite.name, case, bool(known[1][5]), first.rounds or case.rounds))

    problems += [f"case {name}/{case_id} is in no suite here" for name, case_id in found]
    if problems:
        raise NotWhole(problems)

    return out


def _copy(part: Part, results: Results) -> None:
    from flowdeck_sinks.store import query

    found = query(
        part.store,
        "SELECT payload FROM events WHERE event_type = 'eval.round_finished' AND payload ->> '$.session_id' = ? "
        "ORDER BY ts, wseq",
        [part.file.session_id],
    )
    for (text,) in found:
        results.copied(json.loads(text))
