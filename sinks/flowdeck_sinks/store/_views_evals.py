"""Views of evaluations, ``eval_sessions``, ``eval_rounds``, ``eval_checks`` and ``eval_rules``, over ``eval.*`` events.

Tolerant on purpose: a key that is missing is NULL, one that is new is in ``record``, and a check may stand in its
round's event or in one of its own.
"""

from __future__ import annotations

from typing import Final

from flowdeck_sinks.store._view import View

__all__ = ["EVAL_CHECKS", "EVAL_ROUNDS", "EVAL_RULES", "EVAL_SESSIONS"]

_SESSION: Final = "coalesce(payload ->> '$.session_id', payload ->> '$.session.id', payload ->> '$.session', run_id)"
_CASE: Final = "coalesce(payload ->> '$.case_id', payload ->> '$.case.id', payload ->> '$.case')"
_ROUND: Final = "coalesce(TRY_CAST(coalesce(payload ->> '$.round', payload ->> '$.round_index') AS BIGINT), 1)"
_SUITE: Final = "payload ->> '$.suite'"
_LATEST: Final = "coalesce(epoch_us(ts), 0)::HUGEINT * 4294967296 + coalesce(wseq, 0) % 4294967296"


def _latest(key: str, kind: str = "VARCHAR") -> str:
    """Return the last value reported under a payload key."""
    return f"arg_max(TRY_CAST(payload ->> '$.{key}' AS {kind}), latest) AS {key}"


EVAL_SESSIONS: Final = View(
    "eval_sessions",
    "One row per evaluation run (`evals run`).",
    f"""SELECT of_session AS session_id,
  arg_max(coalesce(payload ->> '$.suite', payload ->> '$.suites'), latest) AS suite,
  min(ts) AS started_at,
  max(ts) FILTER (event_type IN ('eval.session_finished', 'eval.session_completed', 'eval.session.finished',
    'eval.session.completed', 'eval.verdict')) AS finished_at,
  {_latest("verdict")},
  {_latest("code", "BIGINT")},
  {_latest("level")},
  arg_max(coalesce(payload ->> '$.git_sha', payload ->> '$.git'), latest) AS git_sha,
  {_latest("baseline")},
  {_latest("passed", "BIGINT")},
  {_latest("failed", "BIGINT")},
  arg_max(payload, latest) AS record
FROM (
  SELECT *, {_SESSION} AS of_session, {_LATEST} AS latest FROM events
  WHERE starts_with(event_type, 'eval.session') OR event_type = 'eval.verdict'
)
WHERE of_session IS NOT NULL
GROUP BY of_session""",
    {
        "session_id": "The evaluation run.",
        "suite": "Its suite.",
        "started_at": "When it began, UTC.",
        "finished_at": "When its verdict was known; NULL while it runs, or when it was killed.",
        "verdict": "pass, fail, incomplete ...",
        "code": "Exit code.",
        "level": "live, recorded or history.",
        "git_sha": "The code that was evaluated.",
        "baseline": "What it was compared with.",
        "passed": "Cases passed, as reported at its end.",
        "failed": "Cases failed, as reported at its end.",
        "record": "The session as it was last reported.",
    },
)

EVAL_ROUNDS: Final = View(
    "eval_rounds",
    "One row per round: one execution of one case.",
    f"""SELECT session_id, suite, case_id, round, state, run_id, execution_id, started_at, finished_at,
  coalesce(wall_ms, epoch_us(finished_at - started_at) / 1000.0) AS wall_ms, case_hash, error_type, error_message,
  record
FROM (
  SELECT of_session AS session_id, case_id, round,
    of_suite AS suite,
    arg_max(coalesce(payload ->> '$.state', payload ->> '$.status'), latest) AS state,
    arg_max(coalesce(payload ->> '$.run_id', payload ->> '$.observed_run_id'), latest) AS run_id,
    arg_max(payload ->> '$.execution_id', latest) AS execution_id,
    min(ts - to_microseconds(coalesce(TRY_CAST(payload ->> '$.wall_us' AS BIGINT), 0))) AS started_at,
    max(ts) AS finished_at,
    arg_max(coalesce(TRY_CAST(payload ->> '$.wall_ms' AS DOUBLE), TRY_CAST(payload ->> '$.wall_us' AS DOUBLE) / 1000),
      latest) AS wall_ms,
    arg_max(payload ->> '$.case_hash', latest) AS case_hash,
    arg_max(coalesce(error_type, payload ->> '$.error.type', payload ->> '$.error_kind'), latest) AS error_type,
    arg_max(coalesce(error ->> '$.message', payload ->> '$.error.message'), latest) AS error_message,
    arg_max(payload, latest) AS record
  FROM (
    SELECT *, {_SESSION} AS of_session, {_CASE} AS case_id, {_ROUND} AS round, {_SUITE} AS of_suite, {_LATEST} AS latest
    FROM events
    WHERE starts_with(event_type, 'eval.round')
  )
  WHERE of_session IS NOT NULL
  GROUP BY of_session, of_suite, case_id, round
)""",
    {
        "session_id": "The evaluation run.",
        "suite": "Its suite.",
        "case_id": "The case.",
        "round": "1, 2 ...",
        "state": "passed, failed, errored, timed_out, diverged, skipped, unscored or harness_error.",
        "run_id": "The observed run: joins `spans` and `runs`.",
        "execution_id": "The observed execution.",
        "started_at": "When it began, UTC.",
        "finished_at": "Its last event.",
        "wall_ms": "How long it took.",
        "case_hash": "Which version of the case: only equal ones compare.",
        "error_type": "The exception, when there was one.",
        "error_message": "What it said.",
        "record": "The round as it was last reported.",
    },
)

EVAL_CHECKS: Final = View(
    "eval_checks",
    "One row per check of a round.",
    """SELECT of_session AS session_id, of_suite AS suite, case_id, round, check_name,
  bool_and(ok) AS ok, max(score) AS score, any_value(label) AS label, any_value(detail) AS detail, min(ts) AS ts
FROM (
  SELECT of_session, of_suite, case_id, round, ts,
    coalesce(found ->> '$.check', found ->> '$.name', found ->> '$.id') AS check_name,
    TRY_CAST(coalesce(found ->> '$.ok', found ->> '$.passed') AS BOOLEAN) AS ok,
    TRY_CAST(found ->> '$.score' AS DOUBLE) AS score,
    found ->> '$.label' AS label,
    coalesce(found -> '$.detail', found -> '$.error') AS detail
  FROM (
    SELECT ts, """
    + f"{_SESSION} AS of_session, {_CASE} AS case_id, {_ROUND} AS round, {_SUITE} AS of_suite"
    + """,
      unnest(CASE WHEN json_type(payload, '$.checks') = 'ARRAY' THEN from_json(payload -> '$.checks', '["JSON"]')
        WHEN starts_with(event_type, 'eval.check') THEN [coalesce(
          CASE WHEN json_type(payload, '$.check') = 'OBJECT' THEN payload -> '$.check' END, payload)] END) AS found
    FROM events
    WHERE starts_with(event_type, 'eval.round') OR starts_with(event_type, 'eval.check')
  )
  WHERE json_type(found) = 'OBJECT'
)
WHERE of_session IS NOT NULL
GROUP BY of_session, of_suite, case_id, round, check_name""",
    {
        "session_id": "The evaluation run.",
        "suite": "Its suite.",
        "case_id": "The case.",
        "round": "The round.",
        "check_name": "The check.",
        "ok": "Whether it passed; NULL for one that only scores.",
        "score": "Its score.",
        "label": "Its label.",
        "detail": "Why it failed, or how the check itself did.",
        "ts": "When it was checked, UTC.",
    },
)

EVAL_RULES: Final = View(
    "eval_rules",
    "One row per rule of a session's verdict, with the numbers behind it.",
    f"""SELECT DISTINCT session_id, found ->> '$.rule' AS rule,
  coalesce(found ->> '$.measure.state', CASE WHEN found ->> '$.code' = '0' THEN 'ok' ELSE 'failed' END) AS state,
  TRY_CAST(found ->> '$.code' AS BIGINT) AS code,
  found ->> '$.measure.method' AS method,
  TRY_CAST(found ->> '$.measure.n' AS BIGINT) AS n,
  TRY_CAST(found ->> '$.measure.effect' AS DOUBLE) AS effect,
  TRY_CAST(found ->> '$.measure.low' AS DOUBLE) AS ci_low,
  TRY_CAST(found ->> '$.measure.high' AS DOUBLE) AS ci_high,
  TRY_CAST(found ->> '$.measure.p' AS DOUBLE) AS p,
  TRY_CAST(found ->> '$.measure.adjusted_p' AS DOUBLE) AS adjusted_p,
  TRY_CAST(found ->> '$.measure.seed' AS BIGINT) AS seed,
  found ->> '$.message' AS message
FROM (
  SELECT session_id, unnest(list_concat(
    coalesce(from_json(verdict -> '$.rules', '["JSON"]'), []),
    coalesce(from_json(verdict -> '$.reasons', '["JSON"]'), []))) AS found
  FROM (
    SELECT {_SESSION} AS session_id, arg_max(payload, {_LATEST}) AS verdict
    FROM events WHERE event_type = 'eval.verdict' GROUP BY 1
  )
)
WHERE session_id IS NOT NULL AND json_type(found) = 'OBJECT'""",
    {
        "session_id": "The evaluation run.",
        "rule": "sampled.regression, budget.tokens, deterministic.new_failures ...",
        "state": "ok, failed or inconclusive.",
        "code": "The exit code it asks for; 0 when it holds.",
        "method": "The statistics, with the kind of interval.",
        "n": "Cases.",
        "effect": "What was measured: a rate, a difference of rates, a ratio, a sum.",
        "ci_low": "Lower end of its interval.",
        "ci_high": "Upper end.",
        "p": "One-sided.",
        "adjusted_p": "Over all tests of the session (Holm): what is compared with alpha.",
        "seed": "Of what is drawn at random.",
        "message": "The same in words.",
    },
)
