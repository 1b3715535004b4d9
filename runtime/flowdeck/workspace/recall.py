"""Recall: which records a goal is about, found in bounded time however many records there are.

Order of :func:`candidates`::

    terms of the goal  ->  per term the newest records in scope that have it, at most TERM_LIMIT
    a rare term counts more (how rare follows from how far back the list reaches)
    records with all terms are looked up as well, so that old ones are not missed
    no term found anything  ->  the newest records in scope
    weights of the profile; at equal score the newest first

Nothing ever reads all matches: a word that every record has ends its list after the newest few hundred, and says so by
counting next to nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from flowdeck.errors import WorkspaceConfigurationError
from flowdeck.workspace.index import Index, labels_of_filters
from flowdeck.workspace.packing import Budget, pack
from flowdeck.workspace.profiles import RecallProfile
from flowdeck.workspace.text import goal_terms

if TYPE_CHECKING:
    from flowdeck.workspace.reading import WorkspaceReader

__all__ = ["CANDIDATES", "build", "candidates"]

CANDIDATES: Final = 500
"""Records looked at for one context."""
TERM_LIMIT: Final = 250
LINKED: Final = 20
"""Of how many of the best records the links are followed."""
_LINKED_WEIGHT: Final = 0.6


async def build(
    workspace: WorkspaceReader,
    profile: RecallProfile,
    name: str,
    goal: str,
    scope: dict[str, Any],
    budget: Budget,
    asked: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the ContextPack of :meth:`Workspace.build_context`."""
    plan: dict[str, Any] = {"query": goal, "filters": {f"scope.{key}": value for key, value in scope.items()}}
    if profile.planner is not None:
        planned = await _called(profile.planner, goal=goal, scope=scope, budget=dict(asked or {}), workspace=workspace)
        if not isinstance(planned, Mapping):
            raise WorkspaceConfigurationError(f"the planner of {name!r} returned {planned!r}, not a mapping")

        plan |= planned

    links: dict[str, list[dict[str, Any]]] | None = None
    more = False
    if profile.retriever is not None:
        records = list(await _called(profile.retriever, plan=plan, workspace=workspace))
    else:
        labels = labels_of_filters(plan["filters"])
        records, found, more = await asyncio.to_thread(
            candidates, workspace.index, plan["query"], labels, scope, profile
        )
        links = found if profile.follow_links else None

    if profile.context_builder is not None:
        built = await _called(
            profile.context_builder, goal=goal, plan=plan, records=records, budget=dict(asked or {}),
            workspace=workspace,
        )  # fmt: skip
        if not isinstance(built, Mapping):
            raise WorkspaceConfigurationError(f"the context builder of {name!r} returned {built!r}, not a mapping")

        return dict(built)

    packed = await asyncio.to_thread(
        lambda: pack(records, budget, workspace.excerpt, excerpt_chars=profile.excerpt_chars, links=links)
    )
    return {
        "goal": goal,
        "profile": name,
        "items": packed["items"],
        "omitted": packed["omitted"],
        "diagnostics": {
            "planner": "rule" if profile.planner is None else "registered",
            "model_assisted": False,
            "builder": "default",
            "candidate_count": len(records),
            "candidate_limit_reached": more,
            "used_chars": packed["used_chars"],
            "used_tokens": packed["used_tokens"],
            "char_budget": budget.chars,
        },
    }


async def _called(function: Any, **arguments: Any) -> Any:
    result = function(**arguments)
    return await result if isawaitable(result) else result


def candidates(
    index: Index, query: str | None, labels: Sequence[str], scope: Mapping[str, Any], profile: RecallProfile
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]], bool]:
    """Return the records for a goal, the best first.

    Returns:
        The records, the links of each by its id (with ``follow_links``), and whether there were more than
        :data:`CANDIDATES`.
    """
    scores, more = _scored(index, goal_terms(query or ""), labels)
    if not scores:
        newest = index.match(None, labels, CANDIDATES + 1)
        more = len(newest) > CANDIDATES
        scores = dict.fromkeys(newest[:CANDIDATES], 1.0)

    best = sorted(scores, key=lambda number: (-scores[number], -number))
    more = more or len(best) > CANDIDATES
    records = index.records(best[:CANDIDATES])
    weighed = {
        record["id"]: scores[number] * _weight(record, profile) for number, record in zip(best, records, strict=False)
    }
    order = {record["id"]: place for place, record in enumerate(records)}
    records.sort(key=lambda record: (-weighed[record["id"]], order[record["id"]]))
    if not profile.follow_links:
        return records, {}, more

    return *_with_linked(index, records, weighed, scope), more


def _scored(index: Index, terms: Sequence[str], labels: Sequence[str]) -> tuple[dict[int, float], bool]:
    newest = index.newest()
    scores: dict[int, float] = {}
    more = False
    everything = 0.0
    for term in terms:
        found = index.match(term, labels, TERM_LIMIT)
        if not found:
            continue

        # A full list that reaches back only a little way belongs to a word that is everywhere.
        reach = newest - found[-1] + 1 if len(found) == TERM_LIMIT else newest
        worth = math.log1p(reach / len(found)) if len(found) == TERM_LIMIT else math.log1p(newest / len(found))
        more = more or len(found) == TERM_LIMIT
        everything += worth
        for number in found:
            scores[number] = scores.get(number, 0.0) + worth

    if more and 1 < len(terms) <= 12:
        for number in index.match(" AND ".join(terms), labels, TERM_LIMIT):
            scores[number] = everything

    return scores, more


def _weight(record: Mapping[str, Any], profile: RecallProfile) -> float:
    return profile.weights.get(record["collection"], 1.0) * profile.weights.get(record["kind"], 1.0)


def _with_linked(
    index: Index, records: list[dict[str, Any]], weighed: dict[str, float], scope: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Add the records the best ones are linked with, as far as they lie in the same scope."""
    links: dict[str, list[dict[str, Any]]] = {}
    reached: dict[str, float] = {}
    for record in records[:LINKED]:
        for link in index.links(either=record["id"]):
            links.setdefault(record["id"], []).append(link)
            other = link["target_id"] if link["source_id"] == record["id"] else link["source_id"]
            if other not in weighed:
                reached[other] = max(reached.get(other, 0.0), _LINKED_WEIGHT * weighed[record["id"]])

    for record in index.records(list(index.numbers(reached).values())):
        if all(record["scope"].get(key) == value for key, value in scope.items()):
            records.append(record)
            weighed[record["id"]] = reached[record["id"]]

    records.sort(key=lambda record: -weighed[record["id"]])
    return records, links
