"""Random flows for the simulation: every operator the core routes, with handlers that are scripts."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.plan import Plan, compile_plan
from flowdeck.definition.process import Process

HOW = ("answer", "answer", "answer", "race", "race", "race", "late", "event", "cancel", "fail")
"""What becomes of a question: somebody answers; an answer races an expiry with the same value; nobody answers in
time, and the branch ends, goes to an event, or fails the run; an operator cancels it."""


@dataclass(frozen=True)
class Pause:
    """The question a script asks as its last effect."""

    target: Any
    """``resume_to``."""
    how: str
    event: str = ""
    """Where it goes when it expires, for ``how="event"``."""
    own_id: bool = False
    """It waits under the chunk's name, so that it can be answered before it is asked."""

    def answer(self, chunk: str, value: Any) -> str:
        """Return the one right answer."""
        return f"answer({chunk})" if self.own_id else f"answer({chunk},{text(value)})"

    def on_expire(self, chunk: str, value: Any) -> Any:
        """Return the ``on_expire`` of the question, or ``None`` when it never expires."""
        choices: dict[str, Any] = {"late": "cancel", "fail": "fail", "event": {"event": self.event}}
        return {"value": self.answer(chunk, value)} if self.how == "race" else choices.get(self.how)


@dataclass
class Script:
    """What a chunk does: effects in order, then what it returns."""

    name: str
    effects: list[tuple[str, str]] = field(default_factory=list)
    """``("log", "")``, ``("count", "")``, ``("emit" | "nowait" | "catch" | "outside", event)``, ``("reply", "")``.

    The last two wait for what is not the handler's own, and so lend its place: a signal it sends through the handle,
    and the right answer to somebody's question.
    """
    pause: Pause | None = None
    split: int = 0
    fails: bool = False
    flaky: bool = False
    """Its first attempt fails before it does anything."""
    ghost: bool = False
    """It may be stopped at any moment, so nothing it does counts."""

    def __call__(self, data: object) -> None:
        raise AssertionError("scripts are run by the simulation, not called")

    def result(self, value: Any, notes: str) -> Any:
        """Return what the chunk returns."""
        said = f"{self.name}({text(value)}{notes})"
        return [f"{said}.{i}" for i in range(self.split)] if self.split else said


@dataclass
class Flow:
    """A random flow."""

    plan: Plan
    scripts: dict[str, Script]
    skip: bool
    """Its executions have ``skip_exceptions``."""


def text(value: Any) -> str:
    """Return a short text that stands for a value."""
    said = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return said if len(said) < 80 else f"{said[:24]}~{zlib.crc32(said.encode())}"


class Even:
    """A condition that holds for half of all values."""

    def __call__(self, value: Any) -> bool:
        return not zlib.crc32(text(value).encode()) & 1


class Always:
    """A condition that always holds."""

    def __call__(self, value: Any) -> bool:
        return True


def build(seed: int) -> Flow:
    """Return the random flow of a seed."""
    return _Builder(random.Random(seed)).flow()


class _Builder:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.blueprint = Blueprint("sim")
        self.scripts: dict[str, Script] = {}
        self.events = 0
        self.count = 0
        self.skip = rng.random() < 0.2

    def flow(self) -> Flow:
        rng = self.rng
        start = Process(self.blueprint)
        branches = [self.chain(start, 0, rng.choice((1, 2, 3))) for _ in range(rng.choice((1, 1, 2)))]
        meeting = rng.random()
        if meeting < 0.2:
            branches.append(self.chain(start, 0, 1))
            for nth, branch in enumerate(branches):
                met = branch.collect("c", f"b{nth}", mode=rng.choice(("filled_and_update", "filled_then_empty")))

            self.chain(met, 1, 1)
        elif meeting < 0.4:
            names = [f"G{n}" for n in range(len(branches) + 1)]
            for branch, name in zip([start, *branches], names, strict=True):
                script = self.script()
                script.effects.append((rng.choice(("emit", "nowait")), name))
                branch.to((script.name, script))

            self.chain(start.when({"event": names}), 1, 1)

        return Flow(compile_plan(self.blueprint), self.scripts, self.skip)

    def script(self, **options: Any) -> Script:
        self.count += 1
        script = Script(f"c{self.count}", **options)
        self.scripts[script.name] = script
        return script

    def chunk(self, level: int, inside: bool, *, ghost: bool = False, plain: bool = False) -> tuple[str, Script]:
        """Return a chunk.

        Args:
            level: how many events deep its chain stands; 0 runs once at most.
            inside: it stands in a block.
            plain: it neither pauses nor fails, and returns a list.
        """
        rng = self.rng
        script = self.script(ghost=ghost, flaky=rng.random() < 0.08)
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            kind = rng.choice(("log", "log", "count", "emit", "nowait", "catch"))
            if kind in ("log", "count"):
                script.effects.append((kind, ""))
            elif level < 2:
                script.effects.append((kind, self.caught(level) if kind == "catch" else self.event(level, ghost)))

        if rng.random() < 0.15:
            outside = level < 2 and rng.random() < 0.4
            script.effects.append(("outside", self.event(level, ghost)) if outside else ("reply", ""))

        if plain:
            script.split = rng.choice((0, 1, 2, 3))
        elif rng.random() < 0.25:
            script.pause = self.pause(level, inside, ghost)
        elif self.skip and rng.random() < 0.1:
            script.fails = True

        return (script.name, script)

    def pause(self, level: int, inside: bool, ghost: bool) -> Pause:
        rng = self.rng
        how = rng.choice(HOW)
        if how == "cancel" and (level or ghost):
            how = "answer"  # it would end the block the event came from as well, in whatever state that is by then

        if how == "fail" and ghost:
            how = "late"

        target: Any = rng.choice(("next", "next", "self", "event"))
        if target == "event":
            target = {"event": self.event(level, ghost)}

        event = self.event(level, ghost) if how == "event" else ""
        once = not level and not inside and not ghost and target != "self"
        return Pause(target, how, event, own_id=once and how in ("answer", "race") and rng.random() < 0.5)

    def event(self, level: int, ghost: bool) -> str:
        """Declare a chain behind a new event."""
        self.events += 1
        name = f"E{self.events}"
        self.chain(Process(self.blueprint).when(name), level + 1, self.rng.choice((1, 1, 2)), ghost=ghost)
        return name

    def caught(self, level: int) -> str:
        """Declare an event whose handler fails, and a chain beside it which is stopped by that."""
        self.events += 1
        name = f"E{self.events}"
        script = self.script(fails=True, ghost=True)
        start = Process(self.blueprint).when(name)
        start.to((script.name, script))
        if self.rng.random() < 0.5:
            self.chain(start, level + 1, self.rng.choice((1, 2)), ghost=True)

        return name

    def chain(
        self, at: Process, level: int, length: int, depth: int = 0, inside: bool = False, ghost: bool = False
    ) -> Process:
        rng = self.rng
        for _ in range(length):
            kind = rng.choice(("to", "to", "to", "side", "for_each", "batch", "match", "all"))
            if depth >= 2 and kind in ("for_each", "batch", "match", "all"):
                kind = "to"

            if kind == "to":
                at = at.to(self.chunk(level, inside, ghost=ghost))
            elif kind == "side":
                at = at.side_branch(self.chunk(level, inside, ghost=ghost))
            elif kind == "for_each":
                at = at.to(self.chunk(level, inside, ghost=ghost, plain=True))
                at = at.for_each(concurrency=rng.choice((None, 1, 2)), name=f"each{self.count}")
                at = self.chain(at, level, rng.choice((1, 2)), depth + 1, True, ghost).end_for_each()
            elif kind == "batch":
                members = (self.chunk(level, True, ghost=ghost), self.chunk(level, True, ghost=ghost))
                at = at.batch(*members, concurrency=rng.choice((None, 1)), name=f"batch{self.count}")
            else:
                at = at.match(mode="hit_all" if kind == "all" else "hit_first", name=f"match{self.count}")
                at = self.chain(at.case(Even()), level, 1, depth + 1, True, ghost)
                if kind == "all":
                    at = self.chain(at.case(Always()), level, 1, depth + 1, True, ghost)
                elif rng.random() < 0.6:
                    at = self.chain(at.case_else(), level, 1, depth + 1, True, ghost)

                at = at.end_match()

        return at
