from __future__ import annotations

import os
import threading

from flowdeck.events.ids import ID_LENGTH, format_id, new_id, next_serial


def test_ids_are_unique_and_ordered() -> None:
    """Ids of one process sort in the order they were made."""
    made = [new_id() for _ in range(10_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(one) for one in made} == {ID_LENGTH}


def test_a_serial_always_formats_the_same() -> None:
    """Formatting can wait: a serial has one id."""
    serial = next_serial()

    assert format_id(serial) == format_id(serial)
    assert new_id() > format_id(serial)


def test_threads_never_share_an_id() -> None:
    """Eight threads drawing at once get different ids."""
    made: list[list[str]] = [[] for _ in range(8)]

    def draw(into: list[str]) -> None:
        into.extend(new_id() for _ in range(2_000))

    threads = [threading.Thread(target=draw, args=(one,)) for one in made]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert len({one for ids in made for one in ids}) == 16_000


def test_a_forked_child_draws_other_ids_and_keeps_old_ones() -> None:
    """After a fork new serials get a new prefix, while serials from before keep the parent's ids."""
    serial = next_serial()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, f"{format_id(serial)} {new_id()}".encode())
        os._exit(0)

    os.close(write)
    with os.fdopen(read) as pipe:
        inherited, own = pipe.read().split()

    os.waitpid(child, 0)

    assert inherited == format_id(serial)
    assert own not in {new_id() for _ in range(100)}
    assert own[:22] != format_id(serial)[:22]
