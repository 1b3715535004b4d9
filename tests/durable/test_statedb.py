"""``state.db`` as a file: its creation, its format number, and what is refused."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from tests.durable.support import process, until

from flowdeck.durable import ControlClient, StoreBusy, open_control, statedb
from flowdeck.durable.statedb import FORMAT, connect, connect_readonly, prepare
from flowdeck.layout import Layout, StoreDamaged, StoreError, StoreIsFile, StoreNotFound, StoreTooNew


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_is_private_and_in_wal_mode(path: Path) -> None:
    """The file and its log are readable by their owner only, in WAL mode, with the format number set."""
    prepare(path, 1.0)
    assert pragma(path, "journal_mode") == "wal"
    assert pragma(path, "user_version") == FORMAT
    with closing(connect(path, 1.0)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO executions VALUES ('e','w','running','f',0,0,0,0,0,0,0,0,1,1,1)")
        connection.execute("COMMIT")
        for name in ("state.db", "state.db-wal", "state.db-shm"):
            assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name


def test_many_may_create_it_at_once(path: Path) -> None:
    """Eight threads that prepare one file at the same moment leave one usable file, and none of them fails."""
    gate = threading.Barrier(8)
    failures: list[BaseException] = []

    def create() -> None:
        gate.wait()
        try:
            prepare(path, 5.0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    with closing(connect_readonly(path, 1.0)) as connection:
        assert connection.execute("SELECT count(*) FROM interrupts").fetchone() == (0,)


def test_a_newer_format_is_refused_with_the_mend(tmp_path: Path) -> None:
    """A file of a newer version is refused by owner and client alike, naming the upgrade, and is not touched."""
    layout = Layout.create(tmp_path / "store")
    prepare(layout.state_db, 1.0)
    with closing(connect(layout.state_db, 1.0)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")

    before = layout.state_db.read_bytes()
    for use in (lambda: open_control(layout.root, "w1"), lambda: ControlClient(layout.root)):
        with pytest.raises(StoreTooNew, match=rf"format {FORMAT + 1}.*pip install -U flowdeck"):
            use()

    assert layout.state_db.read_bytes() == before


def test_an_older_format_is_brought_up_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations run from the found format to the present one; one that fails leaves the old format and its data."""
    prepare(path, 1.0)

    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE executions ADD COLUMN epoch INTEGER")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE inbox")
        raise ValueError("half way")

    monkeypatch.setattr(statedb, "FORMAT", FORMAT + 2)
    monkeypatch.setattr(statedb, "MIGRATIONS", {FORMAT: add_column, FORMAT + 1: fail})
    with pytest.raises(ValueError, match="half way"):
        prepare(path, 1.0)
    assert pragma(path, "user_version") == FORMAT

    monkeypatch.setattr(statedb, "MIGRATIONS", {FORMAT: add_column, FORMAT + 1: lambda connection: None})
    prepare(path, 1.0)
    assert pragma(path, "user_version") == FORMAT + 2
    with closing(connect_readonly(path, 1.0)) as connection:
        connection.execute("SELECT epoch FROM executions")
        connection.execute("SELECT id FROM inbox")


@pytest.mark.parametrize("content", [b"not a database, but long enough" * 40, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    """Something else in the place of the file is named, and left as it is."""
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"state\.db.*(Move it away|Mend that)"):
        prepare(path, 1.0)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    """An SQLite file with other tables is not taken over."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
        connection.commit()
    with pytest.raises(StoreDamaged, match="another program"):
        prepare(path, 1.0)


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    """Without a store, owner and client say where they looked and how a store comes to be."""
    for use in (lambda: open_control(tmp_path / "none", "w1"), lambda: ControlClient(tmp_path / "none")):
        with pytest.raises(StoreNotFound, match=r"No Flowdeck store at .*none.*--store"):
            use()
    with pytest.raises(StoreNotFound, match=r"No state\.db"):
        ControlClient(tmp_path / "state.db")

    (tmp_path / "file").write_text("")
    with pytest.raises(StoreIsFile, match="is a file"):
        open_control(tmp_path / "file", "w1")

    (tmp_path / "folder" / "state.db").mkdir(parents=True)
    with pytest.raises(StoreDamaged, match="directory"):
        open_control(tmp_path / "folder", "w1")


def test_a_lock_held_for_too_long_is_named(path: Path) -> None:
    """When another process keeps the file, the error says so instead of hanging."""
    prepare(path, 1.0)
    with process("process_locker.py", path) as locker:
        assert locker.stdout is not None
        assert until(locker.stdout.readline) == "locked\n"
        with pytest.raises(StoreBusy, match="locked by another process"), ControlClient(path, busy_timeout=0.05) as c:
            c.put_inbox("start", "e1", None, None, "ana")
