"""The simulation is worth something: deliberate bugs in the core are found, each within a few thousand seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.execution import simulated_outside
from tests.execution.simulation import check

from flowdeck.execution.core import Core
from flowdeck.execution.snapshot import load_core
from flowdeck.execution.state import BACKOFF, CANCELLING, PARKED, QUEUED, Interrupt

SEEDS = 20_000

Patch = pytest.MonkeyPatch
Bug = Callable[[Patch], None]
BUGS: list[Bug] = []


def bug(plant: Bug) -> Bug:
    BUGS.append(plant)
    return plant


def around(patch: Patch, name: str, made: Callable[[Any], Any]) -> None:
    """Replace a method of the core by what ``made`` makes of it."""
    patch.setattr(Core, name, made(getattr(Core, name)))


def loaded(patch: Patch, spoil: Callable[[Core], None]) -> None:
    """Let every load lose something."""

    def load(core: Core, state: dict[str, Any]) -> None:
        load_core(core, state)
        spoil(core)

    patch.setattr(simulated_outside, "load_core", load)


# -- answers ---------------------------------------------------------------------------------------------------------


@bug
def a_second_answer_counts(patch: Patch) -> None:
    """An answered interrupt may be answered again."""

    def waiting(core: Core, interrupt_id: str) -> Interrupt:
        return core.interrupts[interrupt_id]

    patch.setattr(Core, "waiting", waiting)


@bug
def an_early_answer_is_lost_in_a_crash(patch: Patch) -> None:
    """Early answers are not taken up."""
    loaded(patch, lambda core: core.early.clear())


@bug
def an_expiry_forgets_its_value(patch: Patch) -> None:
    """on_expire={"value": …} goes on with None."""

    def made(expire: Any) -> Any:
        def spoiled(core: Core, interrupt_id: str, now_us: int) -> int:
            interrupt = core.interrupts[interrupt_id]
            if isinstance(interrupt.on_expire, dict) and "value" in interrupt.on_expire:
                interrupt.on_expire = {"value": None}

            return int(expire(core, interrupt_id, now_us))

        return spoiled

    around(patch, "expire", made)


@bug
def an_answer_is_faster_than_its_handler(patch: Patch) -> None:
    """What is answered before the handler has returned is never resumed."""

    def made(park: Any) -> Any:
        def spoiled(core: Core, task: Any) -> Any:
            interrupt = core.interrupts[task.interrupt]
            status, interrupt.status = interrupt.status, "waiting"
            try:
                return park(core, task)
            finally:
                interrupt.status = status

        return spoiled

    around(patch, "_park", made)


@bug
def a_question_is_asked_again_after_a_crash(patch: Patch) -> None:
    """A re-run does not find the interrupt it had opened."""

    def made(pause: Any) -> Any:
        def spoiled(core: Core, task: Any, tag: str, *args: Any, **options: Any) -> Any:
            if task.tags is not None and tag in task.tags and options["interrupt_id"] is None:
                del task.tags[tag]
                core.interrupts[task.interrupt].status = "resumed"
                task.interrupt = None

            return pause(core, task, tag, *args, **options)

        return spoiled

    around(patch, "pause", made)


# -- joins -----------------------------------------------------------------------------------------------------------


@bug
def a_join_is_in_order_of_arrival(patch: Patch) -> None:
    """Results come as they came, not as the input was."""
    patch.setattr("flowdeck.execution.routing.sorted", list, raising=False)


@bug
def a_join_waits_for_a_member_that_left(patch: Patch) -> None:
    """Nobody notices that a member cannot arrive any more."""

    def made(gone: Any) -> Any:
        def spoiled(core: Core, join: Any, block: Any) -> None:
            block.arrived = True
            gone(core, join, block)

        return spoiled

    around(patch, "_member_gone", made)


@bug
def a_cancelled_member_is_left_out(patch: Patch) -> None:
    """A cancelled interrupt lets the block around it complete."""
    patch.setattr(Core, "poison", lambda core, task: None)


@bug
def a_caught_failure_spoils_the_block_around(patch: Patch) -> None:
    """Found by this simulation: the emitter had caught the error, and its block never completed."""

    def poison(core: Core, task: Any) -> None:
        for block_id in (task.frame, task.lane):
            while block_id:
                block = core.blocks[block_id]
                block.arrived = True
                block_id = block.frame or block.lane

    patch.setattr(Core, "poison", poison)


@bug
def members_not_started_yet_are_lost_in_a_crash(patch: Patch) -> None:
    """A limited for_each forgets the items that wait for a place."""

    def spoil(core: Core) -> None:
        for join in core.joins.values():
            if join.items is not None:
                join.items = [None] * len(join.items)

    loaded(patch, spoil)


# -- effects ---------------------------------------------------------------------------------------------------------


@bug
def an_effect_happens_twice_after_a_crash(patch: Patch) -> None:
    """Committed tags of state effects are not looked up."""

    def mark(core: Core, task: Any, tag: str) -> bool:
        task.tags = {**(task.tags or {}), tag: ["ok"]}
        return True

    patch.setattr(Core, "mark", mark)


@bug
def an_emit_happens_twice_after_a_crash(patch: Patch) -> None:
    """Committed tags of emits are not looked up."""

    def made(emit: Any) -> Any:
        def spoiled(core: Core, task: Any, tag: str, *args: Any) -> Any:
            if task.tags is not None:
                task.tags.pop(tag, None)

            return emit(core, task, tag, *args)

        return spoiled

    around(patch, "emit", made)


@bug
def a_self_resumed_chunk_skips_its_effects(patch: Patch) -> None:
    """The second activation finds the tags of the first."""

    def made(resume: Any) -> Any:
        def spoiled(core: Core, task: Any, *args: Any) -> None:
            tags = {tag: outcome for tag, outcome in (task.tags or {}).items() if tag[0] == "a"}
            resume(core, task, *args)
            task.tags = tags or None

        return spoiled

    around(patch, "_resume_self", made)


# -- crashes and places ----------------------------------------------------------------------------------------------


@bug
def a_waiting_retry_is_forgotten_in_a_crash(patch: Patch) -> None:
    """A task between two attempts does not run again."""

    def made(restart: Any) -> Any:
        def spoiled(core: Core) -> Any:
            for task in core.tasks.values():
                if task.status == BACKOFF:
                    task.status = PARKED

            return restart(core)

        return spoiled

    around(patch, "restart", made)


@bug
def a_queued_task_is_forgotten_in_a_crash(patch: Patch) -> None:
    """A task that waits for a place does not run after a load."""

    def made(restart: Any) -> Any:
        def spoiled(core: Core) -> Any:
            for task in core.tasks.values():
                if task.status == QUEUED:
                    task.status = PARKED

            return restart(core)

        return spoiled

    around(patch, "restart", made)


@bug
def a_meeting_is_forgotten_in_a_crash(patch: Patch) -> None:
    """Values a gate has gathered are not taken up."""
    loaded(patch, lambda core: core.gates.clear())


@bug
def a_parked_branch_keeps_its_place(patch: Patch) -> None:
    """A branch that waits counts under the execution's concurrency."""

    def made(park: Any) -> Any:
        def spoiled(core: Core, task: Any) -> Any:
            following = park(core, task)
            core.running += core.interrupts[task.interrupt].status == "waiting" if task.interrupt else 0
            return following

        return spoiled

    around(patch, "_park", made)


@bug
def an_error_of_a_stopped_handler_fails_the_run(patch: Patch) -> None:
    """Found by this simulation: what a stopped handler had awaited became a failure nobody had caught."""
    patch.setattr(Core, "_forget_awaited", Core._leave_awaited)


@bug
def a_stopped_handlers_work_is_not_stopped(patch: Patch) -> None:
    """Cancelling does not reach what the cancelled await."""

    def cancel(core: Core, roots: list[int], spare: Any) -> None:
        for task in list(core.tasks.values()):
            if task.group in roots and task.rec not in spare and task.status not in (PARKED, CANCELLING, QUEUED):
                core.poison(task)
                task.status = CANCELLING
                core.out.append(("cancel", task.rec))

    patch.setattr(Core, "_cancel", cancel)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Bug, monkeypatch: Patch) -> None:
    """Some seed fails, and says how to see it again."""
    plant(monkeypatch)
    for seed in range(SEEDS):
        try:
            check(seed)
        except AssertionError as exc:
            assert f"see it again: python -m tests.execution.simulation {seed}" in str(exc)
            print(f"{plant.__name__}: found by seed {seed}")
            return

    raise AssertionError(f"{SEEDS} seeds did not find: {plant.__doc__}")
