"""The store's directory: what is created, what is refused, and who is alive."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sinks.support import NOBODY, in_child, until

from flowdeck.layout import (
    FORMAT,
    Layout,
    StoreDamaged,
    StoreForeign,
    StoreFull,
    StoreIsFile,
    StoreNotFound,
    StorePermission,
    StoreTooNew,
    StoreTooOld,
    WriterLock,
    is_writer_alive,
    live_writers,
    reap_writers,
    resolve_store,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory other users can reach."""
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="flowdeck-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_store_is_private(tmp_path: Path) -> None:
    """Directories are 0700, files 0600, whatever the umask allows."""
    previous = os.umask(0)
    try:
        layout = Layout.create(tmp_path / "deep" / "store")
    finally:
        os.umask(previous)

    for directory in (layout.root, layout.journal, layout.parts, layout.blobs, layout.writers):
        assert mode(directory) == 0o700
    for file in (layout.store_json, layout.journal / "_.jsonl"):
        assert mode(file) == 0o600


def test_creating_again_changes_nothing(tmp_path: Path) -> None:
    """The id of an existing store stays, and so does its content."""
    first = Layout.create(tmp_path / "store").describe()
    assert Layout.create(tmp_path / "store").describe() == first
    assert first["format"] == FORMAT
    assert first["created_by"].startswith("flowdeck ")


def test_many_processes_create_one_store(tmp_path: Path) -> None:
    """Processes that create the same store at once agree on one id."""
    program = (
        "import sys; from flowdeck.layout import Layout; sys.stdin.readline(); "
        "print(Layout.create(sys.argv[1]).describe()['id'])"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "store")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    ids = {child.communicate(timeout=30)[0].strip() for child in children}
    assert len(ids) == 1
    assert ids.pop()
    assert [path.name for path in (tmp_path / "store").iterdir() if path.name.endswith(".tmp")] == []


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    """Opening what is not there names the path and the ways to create or choose a store."""
    with pytest.raises(StoreNotFound, match=r"none.*--store.*FLOWDECK_STORE"):
        Layout.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreNotFound):
        Layout.open(tmp_path / "empty")


@pytest.mark.parametrize("inside", ["", "sub", "sub/deeper"])
def test_a_file_in_the_way_is_named(tmp_path: Path, inside: str) -> None:
    """A store path that is a file, or lies below one, is refused by create and open, and the file survives."""
    file = tmp_path / "file"
    file.write_text("precious")
    for use in (Layout.create, Layout.open):
        with pytest.raises(StoreIsFile, match=r"file is a file"):
            use(file / inside)
    assert file.read_text() == "precious"


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """A directory that holds something else does not become a store."""
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(StoreForeign, match=r"thesis\.docx"):
        Layout.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_workspaces_of_tasks_may_be_there_before_the_store(tmp_path: Path) -> None:
    """A directory in which a task has opened its workspace still becomes a store."""
    (tmp_path / "runs" / "t-17").mkdir(parents=True)
    assert Layout.create(tmp_path).store_json.exists()


@pytest.mark.parametrize(("number", "error"), [(FORMAT + 1, StoreTooNew), (FORMAT - 2, StoreTooOld)])
def test_formats_out_of_reach_are_refused(tmp_path: Path, number: int, error: type[Exception]) -> None:
    """A newer store names the upgrade, an older one than N-1 the way round, and nothing is written."""
    layout = Layout.create(tmp_path / "store")
    text = json.dumps({"format": number, "id": "x", "created_by": "flowdeck 99.1"})
    layout.store_json.write_text(text)
    layout.journal.joinpath("_.jsonl").unlink()
    for use in (Layout.create, Layout.open):
        with pytest.raises(error, match=f"format {number}"):
            use(layout.root)
    assert layout.store_json.read_text() == text
    assert list(layout.journal.iterdir()) == []


def test_the_version_before_is_read(tmp_path: Path) -> None:
    """Format N-1 opens."""
    layout = Layout.create(tmp_path / "store")
    layout.store_json.write_text(json.dumps({"format": FORMAT - 1, "id": "x"}))
    assert Layout.open(layout.root).describe()["id"] == "x"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1", "id": "x"}', '{"id": "x"}', "null"])
def test_a_damaged_store_json_is_said_so(tmp_path: Path, text: str) -> None:
    """A store.json that cannot be understood is one clear error, not a guess."""
    layout = Layout.create(tmp_path / "store")
    layout.store_json.write_text(text)
    with pytest.raises(StoreDamaged, match=r"store\.json is damaged"):
        Layout.open(layout.root)


@as_root
def test_a_store_of_another_user_is_refused(open_tmp: Path) -> None:
    """Without permission, create and open say so and name the mend."""
    Layout.create(open_tmp / "store")

    def attempt() -> list[str]:
        messages = []
        for use, path in (
            (Layout.create, open_tmp / "store"),
            (Layout.open, open_tmp / "store"),
            (Layout.create, open_tmp / "mine"),
        ):
            try:
                use(path)
            except StorePermission as error:
                messages.append(str(error))
        return messages

    messages = in_child(attempt, uid=NOBODY)
    assert len(messages) == 3
    assert all("permission" in message and "--store" in message for message in messages)


def test_no_room_is_said_so(tmp_path: Path) -> None:
    """A disk without room for store.json leaves no half store behind."""

    def attempt() -> str:
        try:
            Layout.create(tmp_path / "store")
        except StoreFull as error:
            return str(error)
        return ""

    assert "Free some space" in in_child(attempt, file_limit=10)
    assert not (tmp_path / "store" / "store.json").exists()
    Layout.create(tmp_path / "store")


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit path wins over FLOWDECK_STORE, which wins over ./.flowdeck."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWDECK_STORE", raising=False)
    assert resolve_store() == tmp_path / ".flowdeck"
    monkeypatch.setenv("FLOWDECK_STORE", "elsewhere")
    assert resolve_store() == tmp_path / "elsewhere"
    assert resolve_store("given") == tmp_path / "given"


def test_a_writer_lives_as_long_as_its_lock(tmp_path: Path) -> None:
    """A writer is alive while its process holds the lock, in the same process too."""
    layout = Layout.create(tmp_path / "store")
    lock = WriterLock(layout)
    assert is_writer_alive(layout, lock.writer)
    assert live_writers(layout) == [lock.writer]
    lock.release()
    assert not is_writer_alive(layout, lock.writer)
    assert live_writers(layout) == []
    assert not is_writer_alive(layout, "never-was")


def test_a_killed_writer_is_dead_at_once(tmp_path: Path) -> None:
    """The kernel drops a killed process's lock; reaping removes its file and leaves the living."""
    layout = Layout.create(tmp_path / "store")
    mine = WriterLock(layout)
    child = os.fork()
    if not child:
        WriterLock(layout, "wchild")
        os.kill(os.getpid(), 9)

    os.waitpid(child, 0)
    assert layout.lock_path("wchild").exists()
    assert not is_writer_alive(layout, "wchild")
    assert reap_writers(layout) == ["wchild"]
    assert live_writers(layout) == [mine.writer]
    mine.release()


def test_a_forked_child_does_not_keep_its_parent_alive(tmp_path: Path) -> None:
    """The lock is the process's: a child that outlives its parent holds no copy of it."""
    layout = Layout.create(tmp_path / "store")
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        lock = WriterLock(layout, "wparent")
        if os.fork() == 0:
            os.write(writing, b"held" if lock.held else b"free")
            os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])
        os._exit(0)

    os.waitpid(parent, 0)
    assert os.read(reading, 4) == b"free"
    until(lambda: not is_writer_alive(layout, "wparent"), "the parent's lock is free")


def test_a_deleted_lock_is_taken_again(tmp_path: Path) -> None:
    """Whoever deletes the store under a writer does not make it look dead."""
    layout = Layout.create(tmp_path / "store")
    lock = WriterLock(layout)
    shutil.rmtree(layout.root)
    Layout.create(layout.root)
    lock.ensure()
    assert is_writer_alive(layout, lock.writer)
    lock.release()
