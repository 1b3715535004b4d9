"""The trajectory grammar: what must have happened, in which order, how often, how fast.

:func:`compile_path` turns the clauses of ``expect.path`` into closures, once per case. A clause returns ``None`` when
it holds, else why not, with the prefix that matched, the step that was not found and the nearest events. Source: the
evals reference, §3.6, where the grammar stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from flowdeck_evals.comparing import short
from flowdeck_evals.happenings import Happening, paused_us
from flowdeck_evals.steps import ANY, Captured, Step, Track, compile_pattern

__all__ = ["Clause", "compile_path"]

# -- clauses -----------------------------------------------------------------------------------------------------------

Clause = Callable[[Track], str | None]


def compile_path(clauses: Iterable[Mapping[str, Any]]) -> list[tuple[str, Clause]]:
    """Return each clause with a name that tells it apart, such as ``never call.* tool.email.*``."""
    out: list[tuple[str, Clause]] = []
    for body in clauses:
        word = next(name for name in _MAKERS if name in body)
        out.append((_title(word, body[word]), _MAKERS[word](body[word], body)))

    return out


def _title(word: str, given: Any) -> str:
    if isinstance(given, list):
        texts = [_text(step) for step in given if isinstance(step, str | Mapping)]
        shown = ", ".join(texts[:2]) + (", …" if len(texts) > 2 else "")
    elif isinstance(given, Mapping):
        shown = " -> ".join(_text(given[key]) for key in ("event", "of", "from", "followed_by", "to") if key in given)
    else:
        shown = str(given)

    return f"{word} {shown}".strip()[:120]


def _text(step: Any) -> str:
    return step if isinstance(step, str) else str(step.get("event", next(iter(step), "")))


def _in_order(steps: Any, body: Mapping[str, Any]) -> Clause:
    compiled = [Step(step) for step in steps]

    def clause(track: Track) -> str | None:
        position = -1
        captured: Captured = {}
        matched: list[Step] = []
        for number, step in enumerate(compiled, 1):
            low, high = step.times or (1, 1)
            taken = 0
            for index in step.all(track, captured):
                if index <= position:
                    continue

                if taken == high or (taken >= low and _next_is_nearer(compiled, number, track, captured, position)):
                    break

                position, taken = index, taken + 1
                if step.name:
                    captured[step.name] = track.events[index]

            if taken < low:
                return _not_found(track, step, number, matched, position, taken, low)

            matched.append(step)

        return None

    return clause


def _next_is_nearer(compiled: list[Step], number: int, track: Track, captured: Captured, position: int) -> bool:
    """Whether the next step comes before this one comes again: then a range ends."""
    if number >= len(compiled):
        return False

    again = next((i for i in compiled[number - 1].all(track, captured) if i > position), None)
    after = next((i for i in compiled[number].all(track, captured) if i > position), None)
    return after is not None and (again is None or after < again)


def _not_found(track: Track, step: Step, number: int, matched: list[Step], position: int, taken: int, low: int) -> str:
    prefix = f"after {' > '.join(map(str, matched))}" if matched else "from the beginning"
    count = f" ({taken} of {low} times)" if low > 1 else ""
    elsewhere = [i for i in step.all(track) if i <= position]
    where = f"; it came earlier, as event {elsewhere[-1] + 1}" if elsewhere else ""
    return f"step {number}, {step}, was not found{count} {prefix}{where}; {_nearest(track, step)}"


def _nearest(track: Track, step: Step) -> str:
    """Name up to three kinds of event that are nearest to what was looked for."""
    names: dict[str, int] = {}
    for event in track.events:
        name = str(event)
        names[name] = names.get(name, 0) + 1

    if not names:
        return "there is no event at all"

    target = step.pattern.text
    same = [
        f"{event} ({_fields(event, step)})" if step.fields else f"{event}"
        for event in track.events
        if step.pattern.matches(event)
    ][:3]
    found = same or difflib.get_close_matches(target, list(names), 3, 0.2) or list(names)[:3]
    return "nearest: " + "; ".join(found)


def _fields(event: Happening, step: Step) -> str:
    return ", ".join(f"{path} {short(event.field(path), 40)}" for path in step.fields)


def _exactly(steps: Any, body: Mapping[str, Any]) -> Clause:
    compiled = [Step(step) for step in steps]
    over = compile_pattern(body.get("over", "call.*"))

    def clause(track: Track) -> str | None:
        indexes = track.matching(over)
        captured: Captured = {}
        position = 0
        for number, step in enumerate(compiled, 1):
            low, high = step.times or (1, 1)
            taken = 0
            while taken < high and position < len(indexes):
                event = track.events[indexes[position]]
                if not (step.pattern.matches(event) and step.fits(event, captured)):
                    break

                if step.name:
                    captured[step.name] = event

                position, taken = position + 1, taken + 1

            if taken < low:
                found = str(track.events[indexes[position]]) if position < len(indexes) else "nothing more"
                return f"step {number} of {over.text}: {found} instead of {step}"

        if position < len(indexes):
            return f"{len(indexes) - position} more than expected, the first: {track.events[indexes[position]]}"

        return None

    return clause


def _any_order(steps: Any, body: Mapping[str, Any]) -> Clause:
    compiled = [Step(step) for step in steps]

    def clause(track: Track) -> str | None:
        # Each wanted step needs an event of its own: a matching, so that a greedy choice cannot block another.
        wanted = [step for step in compiled for _ in range((step.times or (1, 1))[0])]
        owner: dict[int, int] = {}

        def place(number: int, seen: set[int]) -> bool:
            for index in wanted[number].all(track):
                if index not in seen:
                    seen.add(index)
                    if index not in owner or place(owner[index], seen):
                        owner[index] = number
                        return True

            return False

        for number, step in enumerate(wanted):
            if not place(number, set()):
                return f"{step} was not found{' once more' if step.all(track) else ''}; {_nearest(track, step)}"

        return None

    return clause


def _never(given: Any, body: Mapping[str, Any]) -> Clause:
    step = Step(given)

    def clause(track: Track) -> str | None:
        found = step.all(track)
        return f"event {found[0] + 1} is {track.events[found[0]]}" + _more(len(found)) if found else None

    return clause


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""


def _after(given: Any, body: Mapping[str, Any]) -> Clause:
    first = Step(given["event"])
    never, must = (Step(given[word]) if word in given else None for word in ("never", "must"))

    def clause(track: Track) -> str | None:
        begins = first.all(track)
        if not begins:
            return f"{first} did not happen; {_nearest(track, first)}" if must is not None else None

        captured = {first.name: track.events[begins[0]]} if first.name else {}
        if never is not None:
            found = [i for i in never.all(track, captured) if i > begins[0]]
            if found:
                return f"event {found[0] + 1} is {track.events[found[0]]}{_more(len(found))}, after {first}"

        if must is not None and not any(i > begins[0] for i in must.all(track, captured)):
            return f"{must} did not come after {first}; {_nearest(track, must)}"

        return None

    return clause


def _between(given: Any, body: Mapping[str, Any]) -> Clause:
    first, last = Step(given["from"]), Step(given["to"])
    never = Step(given["never"]) if "never" in given else None
    counted = _counter(given["count"]) if "count" in given else None

    def clause(track: Track) -> str | None:
        spans = _spans(track, first, last)
        if not spans:
            return f"there is no {first} followed by {last}"

        for begin, end, captured in spans:
            if never is not None:
                found = [i for i in never.all(track, captured) if begin < i < end]
                if found:
                    return f"event {found[0] + 1} is {track.events[found[0]]}, between {first} and {last}"

            if counted is not None:
                problem = counted(track, begin, end)
                if problem:
                    return problem

        return None

    return clause


def _spans(track: Track, first: Step, last: Step) -> list[tuple[int, int, Captured]]:
    """Return every ``first`` with the ``last`` that follows it."""
    out = []
    for begin in first.all(track):
        captured = {first.name: track.events[begin]} if first.name else {}
        end = next((i for i in last.all(track, captured) if i > begin), None)
        if end is not None:
            out.append((begin, end, captured))

    return out


def _counter(given: Mapping[str, Any]) -> Callable[[Track, int, int], str | None]:
    step = Step(given["of"])
    low = given.get("eq", given.get("at_least", 0))
    high = given.get("eq", given.get("at_most", ANY[1]))

    def count(track: Track, begin: int, end: int) -> str | None:
        found = sum(begin < i < end for i in step.all(track))
        if low <= found <= high:
            return None

        wanted = f"exactly {low}" if low == high else f"at least {low}" if found < low else f"at most {high}"
        return f"{step} came {found} times, {wanted} wanted"

    return count


def _count(given: Any, body: Mapping[str, Any]) -> Clause:
    counter = _counter(given)
    return lambda track: counter(track, -1, len(track.events))


def _within(given: Any, body: Mapping[str, Any]) -> Clause:
    first, last, most = Step(given["from"]), Step(given["to"]), float(given["at_most"])
    clock = given.get("clock", "wall")

    def clause(track: Track) -> str | None:
        spans = _spans(track, first, last)
        if not spans:
            return f"there is no {first} followed by {last}"

        for begin, end, _ in spans:
            one, other = track.events[begin], track.events[end]
            took = (other.time_us - one.time_us) / 1e6
            if clock == "virtual" and one.virtual_us is not None and other.virtual_us is not None:
                took = (other.virtual_us - one.virtual_us) / 1e6
            elif clock == "work":
                took -= paused_us(track.events[begin : end + 1]) / 1e6

            if took > most:
                return f"{took:.6g} s from {first} to {last} (events {begin + 1} and {end + 1}), at most {most:g} s"

        return None

    return clause


def _each(given: Any, body: Mapping[str, Any]) -> Clause:
    first, last = Step(given["of"]), Step(given["followed_by"])
    same = given.get("same", [])

    def clause(track: Track) -> str | None:
        free = last.all(track)
        for begin in first.all(track):
            event = track.events[begin]
            end = next(
                (i for i in free if i > begin and all(track.events[i].field(f) == event.field(f) for f in same)), None
            )
            if end is None:
                fields = f" of the same {', '.join(same)}" if same else ""
                return f"event {begin + 1}, {event}, has no {last}{fields} after it"

            free.remove(end)

        return None

    return clause


def _either(given: Any, body: Mapping[str, Any]) -> Clause:
    paths = [compile_path(path) for path in given]

    def clause(track: Track) -> str | None:
        reasons = []
        for number, path in enumerate(paths, 1):
            reason = _first_problem(path, track)
            if reason is None:
                return None

            reasons.append(f"({number}) {reason}")

        return "none holds: " + " ".join(reasons)

    return clause


def _not(given: Any, body: Mapping[str, Any]) -> Clause:
    path = compile_path(given)
    return lambda track: None if _first_problem(path, track) is not None else "all its clauses hold"


def _first_problem(path: list[tuple[str, Clause]], track: Track) -> str | None:
    return next((f"{name}: {reason}" for name, clause in path if (reason := clause(track)) is not None), None)


_MAKERS: Final[dict[str, Callable[[Any, Mapping[str, Any]], Clause]]] = {
    "in_order": _in_order,
    "exactly": _exactly,
    "any_order": _any_order,
    "never": _never,
    "after": _after,
    "between": _between,
    "count": _count,
    "within": _within,
    "each": _each,
    "either": _either,
    "not": _not,
}
