"""People played by a script: rules that answer interrupts, and the answers of a tape.

The script is asked once for every interrupt, after it is applied, in the order the run opens them; nothing depends on
wall time. A rule may name the interrupt's kind, its scope and fields of its payload; the first in file order that
matches and is not used up answers. An answer may quote the payload (``${payload.amount}``). ``delay`` and ``timeout``
pass on the virtual clock. Source: the evals reference, §3.7.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flowdeck.execution.ports import Question, Reply
from flowdeck.execution.schema import check_value
from flowdeck_evals.comparing import comparison, get_path
from flowdeck_evals.pinpoint import field_diff
from flowdeck_evals.rounds import Finding
from flowdeck_evals.steps import compile_pattern
from flowdeck_evals.tapes import Answer, Tape, loss_in

__all__ = ["ScriptedPeople", "TapePeople"]

_QUOTE: Final = re.compile(r"\$\{payload((?:\.[^.}]+)*)\}")


class _Rule:
    """One rule of the script, and how often it has answered."""

    def __init__(self, number: int, given: Mapping[str, Any]) -> None:
        self.number = number
        self.given = given
        self.used = 0
        self.on = compile_pattern(str(given.get("on", "*")))
        self.where = [(path, comparison(wanted)) for path, wanted in (given.get("where") or {}).items()]
        self.queue: deque[Any] | None = deque(given["answers"]) if "answers" in given else None
        self.times: int | None = given.get("times", len(self.queue) if self.queue is not None else None)

    def takes(self, question: Question) -> bool:
        """Whether it answers this question."""
        return (
            (self.times is None or self.used < self.times)
            and (self.queue is None or bool(self.queue))
            and self.on.kind(question.kind)
            and (self.on.place is None or self.on.place(question.scope))
            and all(test(get_path(question.payload, path)) for path, test in self.where)
        )

    def reply(self, question: Question) -> Reply | None:
        """Return what it says; ``None``: nothing, so the question expires."""
        self.used += 1
        actor = str(self.given.get("by") or f"rule:{self.number}")
        after = float(self.given.get("delay") or 0.0)
        if "timeout" in self.given:
            return None

        if "decline" in self.given:
            return Reply(actor=actor, after=after, declined=True)

        value = self.queue.popleft() if self.queue is not None else self.given.get("answer")
        return Reply(filled(value, question.payload), actor, after)

    def __str__(self) -> str:
        return f"rule {self.number} (on: {self.on.text})"


class ScriptedPeople:
    """An :class:`~flowdeck.execution.ports.Answerer` made of a case's ``human`` rules; serves one round."""

    def __init__(self, rules: Sequence[Mapping[str, Any]]) -> None:
        self._rules = [_Rule(n, rule) for n, rule in enumerate(rules, 1) if "otherwise" not in rule]
        self._otherwise = next((str(rule["otherwise"]) for rule in rules if "otherwise" in rule), "fail")
        self.findings: list[Finding] = []
        self.unanswered: set[str] = set()
        """Ids of interrupts that no rule answers and no time will."""
        self.notice: Callable[[], None] = lambda: None
        """Called when there is one more of these."""

    def answer(self, question: Question) -> Reply | None:
        """Return what the first rule that matches says."""
        rule = next((rule for rule in self._rules if rule.takes(question)), None)
        if rule is None and self._otherwise == "decline":
            return Reply(actor="script", declined=True)

        if rule is None and self._otherwise == "fail":
            self._nobody(f"no human rule answers interrupt {question.kind!r}", question)
            return None

        reply = rule.reply(question) if rule is not None else None
        if reply is None:
            if question.expires_us is None:
                self._nobody(f"interrupt {question.kind!r} shall time out, but it never expires", question)

            return None

        if not reply.declined and question.schema is not None:
            problem = check_value(question.schema, reply.value)
            if problem:
                self._nobody(f"the answer of {rule} does not fit the schema of {question.kind!r}: {problem}", question)
                return None

        return reply

    def _nobody(self, why: str, question: Question) -> None:
        self.unanswered.add(question.interrupt_id)
        self.notice()
        detail = {"interrupt": question.kind, "payload": question.payload}
        self.findings.append(
            Finding("failed", f"{why} at {question.scope or '(no scope)'}", question.scope, detail=detail)
        )

    def finish(self) -> list[Finding]:
        """Return what was noticed, with the rules that never answered."""
        out = list(self.findings)
        for rule in self._rules:
            if not rule.used:
                must = bool(rule.given.get("must_use"))
                out.append(Finding("failed" if must else "warning", f"human {rule} was never used"))
            elif rule.queue:
                out.append(Finding("warning", f"human {rule} has {len(rule.queue)} answers left over"))

        return out


class TapePeople:
    """Answers interrupts as the people of a tape did, by scope and kind; serves one round.

    Args:
        live_from: a position on the tape from which on ``beyond`` answers what the tape does not (a fork).
        beyond: by default nobody, and that is a failure by name.
        partly: what is left over is nothing to tell.
    """

    def __init__(
        self,
        tape: Tape,
        live_from: int | None = None,
        beyond: ScriptedPeople | TapePeople | None = None,
        *,
        partly: bool = False,
    ) -> None:
        self._cut = live_from
        self._partly = partly
        self._beyond = beyond or ScriptedPeople(())
        self._waiting: defaultdict[tuple[str, str], deque[Answer]] = defaultdict(deque)
        self._recorded: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.notice: Callable[[], None] = lambda: None
        for each in tape.answers:
            if live_from is None or each.position < live_from:
                self._waiting[each.scope, each.kind].append(each)
                self._recorded[each.scope, each.kind] += 1

        self.findings: list[Finding] = []
        self.unanswered: set[str] = set()

    def answer(self, question: Question) -> Reply | None:
        """Return what the person said then."""
        key = (question.scope, question.kind)
        waiting = self._waiting.get(key)
        if not waiting:
            recorded = self._recorded.get(key, 0)
            if self._cut is not None and not recorded:
                reply = self._beyond.answer(question)
                if question.interrupt_id in self._beyond.unanswered:
                    self.unanswered.add(question.interrupt_id)
                    self.notice()

                return reply

            why = (
                f"recorded {recorded}, asked {recorded + 1}"
                if recorded
                else "the tape has no such question at this place"
            )
            self._miss("exhausted" if recorded else "unknown", why, question)
            return None

        entry = waiting.popleft()
        if entry.loss:
            self._miss("lossy", f"its answer is {entry.loss}", question, entry)
            return None

        if entry.payload != question.payload and not loss_in(entry.payload):
            changes = "; ".join(field_diff(entry.payload, question.payload)[:5])
            self._note("changed", f"the question is another one: {changes}", question, entry)

        if entry.status == "expired":
            return None if question.expires_us is not None else Reply(actor="tape", declined=True)

        if entry.status == "open":
            self._miss("unknown", "nobody had answered it when the tape was recorded", question, entry)
            return None

        return Reply(entry.value, entry.actor)

    def _miss(self, cause: str, why: str, question: Question, entry: Answer | None = None) -> None:
        self.unanswered.add(question.interrupt_id)
        self.notice()
        self._note(cause, why, question, entry)

    def _note(self, cause: str, why: str, question: Question, entry: Answer | None) -> None:
        self.findings.append(
            Finding(
                "missing" if cause == "lossy" else "divergence",
                f"{cause}: interrupt {question.kind!r} at {question.scope or '(no scope)'}: {why}",
                scope=question.scope,
                recorded=None if entry is None else entry.payload,
                actual=question.payload,
                detail={"cause": cause, "port": "human", "name": question.kind},
            )
        )

    def finish(self) -> list[Finding]:
        """Return what was noticed, with the answers nobody asked for."""
        left = [] if self._partly else [entry for queue in self._waiting.values() for entry in queue]
        unused = [entry for entry in left if entry.status == "answered"]
        return [
            *self.findings,
            *self._beyond.finish(),
            *(
                Finding(
                    "divergence",
                    f"unused: the answer to {entry.kind!r} at {entry.scope or '(no scope)'} was never asked for",
                    scope=entry.scope,
                    recorded=entry.value,
                    detail={"cause": "unused", "port": "human", "name": entry.kind},
                )
                for entry in sorted(unused, key=lambda entry: entry.position)
            ),
        ]


def filled(value: Any, payload: Any) -> Any:
    """Return ``value`` with ``${payload.path}`` replaced; a text that is only that becomes the value itself."""
    if isinstance(value, Mapping):
        return {k: filled(v, payload) for k, v in value.items()}

    if isinstance(value, list):
        return [filled(v, payload) for v in value]

    if not isinstance(value, str) or "${" not in value:
        return value

    whole = _QUOTE.fullmatch(value)
    if whole:
        return get_path(payload, whole[1].lstrip("."))

    return _QUOTE.sub(lambda found: str(get_path(payload, found[1].lstrip("."))), value)
