"""Completions reach the event loop they belong to: together, all of them, whatever one of them raises."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flowdeck.execution.mailbox import mailbox, together


def test_a_loop_is_woken_once_for_a_transaction() -> None:
    """What a thread posts together arrives in one turn of the loop, in order; a failing call takes none with it."""
    got: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        all_there = asyncio.Event()

        def take(number: int) -> None:
            got.append(number)
            if number == 3:
                raise LookupError(number)

            if number == 9:
                all_there.set()

        def write() -> None:
            with together():
                for number in range(10):
                    mailbox(loop).post(take, number)
                    assert not mailbox(loop)._posted, "it would go on with a part of them"

        thread = threading.Thread(target=write)
        thread.start()
        await asyncio.wait_for(all_there.wait(), 5)
        thread.join()
        all_there.clear()
        mailbox(loop).post(take, 9)  # and alone
        await asyncio.wait_for(all_there.wait(), 5)

    asyncio.run(main())
    assert got == [*range(10), 9]


def test_a_loop_that_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    """Its completions are made where they are posted; a waiter nobody can wake any more disturbs neither thread nor
    the others."""
    loop = asyncio.new_event_loop()
    waiter = loop.create_future()
    waiter.add_done_callback(lambda _: None)
    loop.close()
    got: list[int] = []
    with together():
        mailbox(loop).post(waiter.set_result, 1)
        mailbox(loop).post(got.append, 2)

    assert got == [2] and "could not be told" in caplog.text
