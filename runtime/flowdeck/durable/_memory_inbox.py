"""The inbox of a store in memory: what is asked of its executions, and what is refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flowdeck.durable._requests import strict_json
from flowdeck.durable._rows import AnswerResult
from flowdeck.durable._shelf import Held, Shelf, inbox_row
from flowdeck.events.ids import new_id
from flowdeck.execution.control import InboxRow
from flowdeck.execution.json_schema import check, same_json

__all__ = ["MemoryInbox"]


class MemoryInbox:
    """The part of :class:`~flowdeck.durable.memory.MemoryStore` that takes requests."""

    shelf: Shelf
    owner: str
    _now_us: Callable[[], int]

    def put_inbox(
        self,
        kind: str,
        execution_id: str,
        target: str | None,
        payload: Any,
        actor: str | None,
        dedup_key: str | None = None,
    ) -> AnswerResult:
        try:
            value = json.loads(strict_json(payload))
        except (TypeError, ValueError, RecursionError) as error:
            return AnswerResult(None, "rejected", f"the value is not JSON: {error}")

        key = dedup_key or new_id()
        with self.shelf.lock:
            refused = self._refusal(kind, execution_id, target, value, key)
            if refused is not None:
                return refused

            row = self.shelf.request(
                execution_id, key, kind=kind, target=target, payload=value, actor=actor, us=self._now_us()
            )
            known = self.shelf.question(execution_id, target or "")
            if kind == "resume" and known is not None:
                known["answer"] = row["id"]

            held = self.shelf.held.get(execution_id)
            handle = held.handle if held is not None and held.owner == self.owner else None

        if handle is not None:
            handle.deliver(inbox_row(row))

        return AnswerResult(row["id"], None)

    def _refusal(self, kind: str, execution_id: str, target: str | None, value: Any, key: str) -> AnswerResult | None:
        row = self.shelf.requests.get(execution_id, {}).get(key)
        if row is not None:
            if (row["kind"], row["target"]) == (kind, target) and same_json(row["payload"], value):
                return AnswerResult(row["id"], "duplicate", "the same request was accepted before")

            return AnswerResult(None, "conflict", f"the dedup key {key!r} was used for another request")

        held = self.shelf.held.get(execution_id)
        if kind == "start":
            known = f"execution {execution_id} was started before"
            return None if held is None else AnswerResult(None, "conflict", known)

        if held is None:
            return AnswerResult(None, "unknown", f"no execution {execution_id!r} is registered")

        asked = held.questions.get(target or "") if kind == "resume" else None
        refused = None if asked is None else self._refused_answer(target, asked, value)
        if refused is None and held.finished:
            return AnswerResult(None, "rejected", f"execution {execution_id} is already {held.status}")

        return refused

    def _refused_answer(self, target: str | None, known: dict[str, Any], value: Any) -> AnswerResult | None:
        expires = known["expires_us"]
        if known["status"] == "expired" or (
            known["status"] == "waiting" and expires is not None and expires <= self._now_us()
        ):
            return AnswerResult(None, "expired", f"interrupt {target} has expired")

        if known["answer"] is not None or known["status"] == "resumed":
            return AnswerResult(None, "conflict", f"interrupt {target} was already answered")

        if known["status"] != "waiting":
            return AnswerResult(None, "conflict", f"interrupt {target} is {known['status']}")

        schema = known["record"].get("schema")
        errors = check(value, schema).errors if schema is not None else []
        return AnswerResult(None, "rejected", "; ".join(errors)) if errors else None

    def read_inbox(self, execution_id: str) -> list[InboxRow]:
        with self.shelf.lock:
            rows = self.shelf.requests.get(execution_id, {}).values()
            return [inbox_row(row) for row in rows if row["outcome"] in (None, "early")]

    def _deliver_pending(self, held: Held) -> None:
        for row in self.read_inbox(held.id):
            held.handle.deliver(row)
