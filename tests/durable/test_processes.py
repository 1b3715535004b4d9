"""Two processes: how fast an answer wakes the owner, and what a killed owner leaves."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.durable.support import line, process, until

from flowdeck.durable import ControlClient
from flowdeck.layout import Layout

ANSWERS = 40


def test_an_answer_wakes_its_owner_within_a_quarter_second(tmp_path: Path) -> None:
    """Of 40 answers given one after another, 99 % reach the execution in the other process in 250 ms, each once."""
    store = Layout.create(tmp_path / "store").root
    with process("process_owner.py", store, str(ANSWERS)) as owner, ControlClient(store) as client:
        assert line(owner) == "ready"
        delays = []
        for number in range(ANSWERS):
            begin = time.time_ns()
            result = client.answer(f"e1-i{number}", number, "ana")
            assert result.row_id is not None
            target, value, delivered_ns = json.loads(line(owner))
            assert (target, value) == (f"e1-i{number}", number)
            delays.append((delivered_ns - begin) / 1e9)
            assert client.wait_outcome(result.row_id, 5.0).outcome == "applied"

        delays.sort()
        assert delays[int(ANSWERS * 0.99) - 1] <= 0.25, delays
        assert until(lambda: client.list_interrupts() == [])
        assert {row.actor for row in client.list_interrupts(open_only=False)} == {"ana"}
        assert len(client.list_inbox()) == ANSWERS


def test_a_killed_owner_leaves_a_whole_file(tmp_path: Path) -> None:
    """After kill -9 the file is sound, its rows are readable and answerable, and the owner is known to be gone."""
    for round_number in range(5):
        store = Layout.create(tmp_path / f"store-{round_number}").root
        with process("process_owner.py", store, "20") as owner:
            assert line(owner) == "ready"
            with ControlClient(store) as client:
                writer = client.list_executions()[0].writer
                assert client.owner_alive(writer)
                for number in range(round_number * 4):
                    client.answer(f"e1-i{number}", number, "ana")
                owner.kill()
                owner.wait()

                assert not client.owner_alive(writer)
                (execution,) = client.list_executions()
                assert (execution.status, execution.finished_us) == ("waiting", None)
                kept = client.answer("e1-i19", 19, "ana")
                assert kept.outcome is None
                assert client.wait_outcome(kept.row_id or 0, 0.05).outcome is None

        with closing(sqlite3.connect(store / "state.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM interrupts").fetchone() == (20,)
            assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (round_number * 4 + 1,)
