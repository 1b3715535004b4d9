"""Writing records and reading them back."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.workspace.conftest import Collector

from flowdeck import Runtime
from flowdeck.errors import (
    WorkspaceConfigurationError,
    WorkspaceContentError,
    WorkspacePolicyError,
    WorkspaceRecordNotFound,
)
from flowdeck.workspace import Workspace
from flowdeck.workspace.content import _Incoming

pytestmark = pytest.mark.anyio


async def test_a_record_is_a_small_object_that_finds_its_content(workspace: Workspace, tmp_path: Path) -> None:
    """Ingest returns id, path, hash, size, labels and a uri; the content lies in a file of its own."""
    ref = await workspace.ingest(
        content="第一版\n正文", collection="artifacts", kind="draft report", summary="first", scope={"task_id": "t"},
        source="writer", meta={"version": 1},
    )  # fmt: skip
    assert ref["id"].startswith("rec_")
    assert ref["path"] == f"artifacts/{ref['id']}-draft-report.txt"
    assert (ref["size"], ref["summary"]) == (16, "first")
    assert ref["sha256"] == hashlib.sha256("第一版\n正文".encode()).hexdigest()
    assert (ref["scope"], ref["source"], ref["meta"]) == ({"task_id": "t"}, {"name": "writer"}, {"version": 1})
    assert ref["uri"] == f"workspace://{workspace.id}/{ref['id']}"
    file = tmp_path / "ws" / "content" / ref["path"]
    assert file.read_text() == "第一版\n正文"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    json.dumps(ref)  # fits execution state
    for name in (ref, ref["id"], ref["path"], ref["uri"], f"workspace://{ref['id']}", f"workspace://{ref['path']}"):
        assert await workspace.get(name) == "第一版\n正文"
        assert await workspace.record(name) == ref


@dataclass
class Finding:
    clause: int
    at: datetime


async def test_every_kind_of_content(workspace: Workspace, tmp_path: Path) -> None:
    """Text, bytes, files, iterators and values all come back as they were."""
    (tmp_path / "a.pdf").write_bytes(b"\x00\xff%PDF")

    async def pieces() -> AsyncIterator[str | bytes]:
        yield "one "
        yield b"two"

    async def put(content: Any) -> dict[str, Any]:
        return await workspace.put(content, collection="artifacts")

    assert await workspace.get_bytes(await put(tmp_path / "a.pdf")) == b"\x00\xff%PDF"
    assert (await put(tmp_path / "a.pdf"))["path"].endswith(".pdf")
    assert await workspace.get(await put(pieces())) == "one two"
    assert await workspace.get(await put(iter(["a", b"b"]))) == "ab"
    assert await workspace.get(await put(io.BytesIO(b"file"))) == "file"
    assert await workspace.get_data(await put({"a": [1, None, "ü"]})) == {"a": [1, None, "ü"]}
    assert await workspace.get_data(await put(Finding(4, datetime(2026, 1, 2, tzinfo=UTC)))) == {
        "clause": 4,
        "at": "2026-01-02T00:00:00+00:00",
    }
    assert (await put({"a": 1}))["path"].endswith(".json")
    assert (await put("x" * 1000))["summary"] == "x" * 240
    with pytest.raises(WorkspaceContentError, match="not text; use get_bytes"):
        await workspace.get(await put(tmp_path / "a.pdf"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(object(), "holds a object"), ({"a": float("nan")}, "cannot be stored"), ("\ud800", "half a character"),
     (iter([1]), "text or bytes, not int")],
)  # fmt: skip
async def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    workspace: Workspace, content: Any, said: str
) -> None:
    """The error names what is wrong; there is no record, no file."""
    with pytest.raises(WorkspaceContentError, match=said):
        await workspace.put(content, collection="artifacts")

    assert await workspace.search() == []
    assert [path for path in workspace.content_root.rglob("*") if path.is_file()] == []


async def test_a_stream_that_breaks_off_leaves_nothing(workspace: Workspace) -> None:
    """The source's own error reaches the caller."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await workspace.put(broken(), collection="artifacts")

    assert [path for path in workspace.content_root.rglob("*") if path.is_file()] == []


async def test_labels_must_be_json(workspace: Workspace) -> None:
    """A live object in scope, source or meta is refused by name."""
    with pytest.raises(WorkspaceContentError, match="scope must be JSON"):
        await workspace.put("x", collection="artifacts", scope={"task": object()})


async def test_a_key_makes_ingestion_happen_once(workspace: Workspace) -> None:
    """Steps that run again after a crash, also at the same time, get the first record."""
    made = await asyncio.gather(*(workspace.put(f"{n}", collection="artifacts", key="report:1") for n in range(8)))
    assert len({ref["id"] for ref in made}) == 1
    assert len(await workspace.search()) == 1
    assert (await workspace.audit(None, verify=True))[0]["problems"] == [
        "no source", "no summary", "no scope", "no link",
    ]  # fmt: skip


async def test_collections_and_kinds_never_name_a_path(workspace: Workspace) -> None:
    """Whatever is asked for, files stay in their place."""
    for name in ("../../etc", "/abs", "..", ".", "a/b", "审查 记录", "x" * 500, "é" * 300, "-", ""):
        ref = await workspace.put("x", collection=name, kind=name)
        assert ref["path"].count("/") == 1
        assert (workspace.content_root / ref["path"]).resolve().is_relative_to(workspace.content_root.resolve())
        assert await workspace.get(ref) == "x"
        assert ref in await workspace.search(filters={"collection": name})


async def test_paths_that_lead_out(workspace: Workspace, tmp_path: Path, events: Collector) -> None:
    """Dots, absolute paths and symbolic links are refused and told; what is not there is not found."""
    (tmp_path / "secret").write_text("secret")
    ref = await workspace.put("x", collection="artifacts")
    (workspace.files_root / "link").symlink_to(tmp_path / "secret")
    (workspace.files_root / "folder").symlink_to(tmp_path)
    (workspace.files_root / "ok").mkdir()
    (workspace.files_root / "ok" / "a.txt").write_text("fine")
    os.mkfifo(workspace.files_root / "pipe")
    for bad in (
        "../secret", "/etc/passwd", "artifacts/../../secret", "a\0b", "workspace://../secret",
        "workspace://files/../../secret", "workspace://files/link", "workspace://files/folder/secret",
        "workspace://files/ok", "workspace://files/pipe",
    ):  # fmt: skip
        with pytest.raises(WorkspacePolicyError):
            await workspace.get(bad)

    assert {record.payload["operation"] for record in events.of("workspace.refused")} == {"get"}
    assert await workspace.get("workspace://files/ok/a.txt") == "fine"
    assert await workspace.resolve("workspace://files/ok/a.txt") == workspace.files_root / "ok/a.txt"
    for missing in ("rec_0", "artifacts/none.txt", "workspace://files/none", "workspace://ws_0/rec_1"):
        with pytest.raises(FileNotFoundError):
            await workspace.get(missing)

    with pytest.raises(WorkspaceConfigurationError, match="names no record"):
        await workspace.get(7)

    file = workspace.content_root / ref["path"]
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    with pytest.raises(WorkspacePolicyError, match="symbolic link"):
        await workspace.get(ref)

    (workspace.content_root / "evil").symlink_to(tmp_path)
    with pytest.raises(WorkspacePolicyError, match="symbolic link"):
        await workspace.put("x", collection="evil")


async def test_a_changed_content_is_noticed(workspace: Workspace) -> None:
    """Evidence that was altered or removed on the disk is not handed out as what was ingested."""
    changed = await workspace.put("original", collection="artifacts")
    gone = await workspace.put("original", collection="artifacts")
    (workspace.content_root / changed["path"]).write_text("altered!")
    (workspace.content_root / gone["path"]).unlink()
    (workspace.content_root / "artifacts" / "stray.txt").write_text("x")
    with pytest.raises(WorkspaceContentError, match="was changed after it was ingested"):
        await workspace.get(changed)

    with pytest.raises(WorkspaceRecordNotFound):
        await workspace.get(gone)

    found = {each["id"] or each["summary"]: each["problems"][-1] for each in await workspace.audit(verify=True)}
    assert found == {
        changed["id"]: "content changed",
        gone["id"]: "content missing",
        "artifacts/stray.txt": "no record",
    }
    context = await workspace.build_context(goal="original")
    assert context["omitted"] == [{"reason": "unreadable", "count": 1}]


async def test_read_only(workspace: Workspace, reopened: Callable[..., Workspace], events: Collector) -> None:
    """Everything can be read, nothing written, and nothing on the disk changes."""
    ref = await workspace.put("content", collection="artifacts")
    await workspace.close()
    before = _contents(workspace)
    reader = reopened(mode="read_only")
    assert await reader.get(ref) == "content"
    assert await reader.search("content") == [ref]
    for write in (
        lambda: reader.ingest(content="x", collection="artifacts"),
        lambda: reader.checkpoint("r", {}),
        lambda: reader.link(ref, ref, "same"),
    ):
        with pytest.raises(WorkspacePolicyError, match="opened read-only"):
            await write()

    await reader.close()
    assert _contents(workspace) == before
    refused = {record.payload["operation"] for record in events.of("workspace.refused")}
    assert refused == {"ingest", "checkpoint", "link"}


def _contents(workspace: Workspace) -> dict[str, bytes]:
    """Every file but SQLite's shared memory, which readers need, too."""
    files = [path for path in workspace.root.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))]
    return {str(path): path.read_bytes() for path in files}


READ_ONLY_DISK = """
import asyncio, os, pathlib, sys
from flowdeck.workspace import WorkspaceManager
root = pathlib.Path(sys.argv[1])
async def main():
    workspace = WorkspaceManager().create(root)
    ref = await workspace.put("content", collection="artifacts")
    await workspace.close()
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        await WorkspaceManager().create(root).put("x", collection="artifacts")
    except Exception as problem:
        print(type(problem).__name__, problem)
    try:
        await workspace.put("x", collection="artifacts")
    except Exception as problem:
        print(type(problem).__name__, problem)
    reader = WorkspaceManager().create(root, mode="read")
    context = await reader.build_context(goal="x")
    print(await reader.get(ref), len(await reader.search("content")), len(context["items"]))
asyncio.run(main())
"""


def test_a_disk_that_takes_nothing() -> None:
    """Writing is one error that names the workspace; read-only mode works on it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "ws"
        command = [sys.executable, "-c", READ_ONLY_DISK, str(root)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for path in [root, *root.rglob("*")]:
            path.chmod(0o700)

    assert lines[0].startswith("WorkspaceConfigurationError") and str(root) in lines[0]
    assert lines[1] == f"WorkspaceError workspace {root} cannot be written: Permission denied"
    assert lines[2] == "content 1 1"


async def test_what_is_no_workspace(host: Runtime, tmp_path: Path) -> None:
    """Each has its own sentence."""
    (tmp_path / "file").write_text("x")
    for name, meta in (("newer", {"format": 2}), ("other", {"schema": "else"}), ("broken", None)):
        made = host.workspace.create(tmp_path / name)
        known = json.loads((made.root / "workspace.meta.json").read_text())
        text = "{" if meta is None else json.dumps({**known, **meta})
        (made.root / "workspace.meta.json").write_text(text)

    for path, options, said in (
        ("none", {"create": False}, "is no workspace"),
        ("none", {"mode": "read"}, "is no workspace"),
        ("none", {"mode": "w"}, "mode='w'"),
        ("file", {}, "is a file"),
        ("newer", {}, "format 2, this version of Flowdeck reads 1"),
        ("other", {}, "schema 'else'"),
        ("broken", {}, "cannot be read"),
        ("file/inner", {}, "cannot be used"),
    ):
        with pytest.raises(WorkspaceConfigurationError, match=said):
            host.workspace.create(tmp_path / path, **options)  # type: ignore[arg-type]

    with pytest.raises(WorkspaceConfigurationError, match="a backend with ingest, get, search"):
        host.workspace.create(object())

    assert not (tmp_path / "none").exists()


KILLED = """
import asyncio, sys
from flowdeck.workspace import WorkspaceManager
async def main():
    workspace = WorkspaceManager().create(sys.argv[1])
    number = 0
    while True:
        ref = await workspace.put(f"record {number}", collection="artifacts", key=str(number))
        print(ref["id"], flush=True)
        number += 1
asyncio.run(main())
"""


def test_kill_leaves_whole_records(tmp_path: Path, host: Runtime) -> None:
    """What was returned is there after kill -9, whole; nothing half is."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "ws")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    seen += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    workspace = host.workspace.create(tmp_path / "ws")

    async def look() -> None:
        for number, record_id in enumerate(seen):
            assert await workspace.get(record_id) == f"record {number}"

        problems = {problem for each in await workspace.audit(None, verify=True) for problem in each["problems"]}
        assert problems <= {"no source", "no summary", "no scope", "no link", "no record"}
        again = await workspace.put("other", collection="artifacts", key="0")
        assert again["id"] == seen[0]

    asyncio.run(look())


def test_two_processes_write_at_once(workspace: Workspace, tmp_path: Path) -> None:
    """Both get all their records in."""
    command = KILLED.replace("while True", "while number < 40").replace("key=str(number)", "key=None")
    processes = [subprocess.Popen([sys.executable, "-c", command, str(tmp_path / "ws")], stdout=-3) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(asyncio.run(workspace.search(limit=1000))) == 80


@pytest.mark.parametrize("size_mb", [64, pytest.param(2048, marks=pytest.mark.slow)])
def test_large_contents_pass_through(tmp_path: Path, size_mb: int) -> None:
    """A content of any size is ingested, read and verified in a few megabytes of memory."""
    big = tmp_path / "big.log"
    with big.open("wb") as file:
        file.write(b"needle in the beginning\n")
        file.truncate(size_mb << 20)

    script = """
import asyncio, pathlib, resource, sys
from flowdeck.workspace import WorkspaceManager
async def main():
    workspace = WorkspaceManager().create(sys.argv[2])
    await workspace.put("warm", collection="logs")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ref = await workspace.put(pathlib.Path(sys.argv[1]), collection="logs")
    size = 0
    async for piece in workspace.stream(ref):
        size += len(piece)
    assert size == ref["size"] and (await workspace.search("needle")) == [ref]
    assert await workspace.audit("none", verify=True) == []
    await workspace.build_context(goal="needle")
    print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(big), str(tmp_path / "ws")], capture_output=True, text=True, check=True
    )
    size, grown = map(int, done.stdout.split())
    assert size == size_mb << 20
    assert grown < (24 << 20 if sys.platform == "darwin" else 24 << 10)


def test_a_full_disk(tmp_path: Path) -> None:
    """A full disk is one error that names the workspace, and leaves nothing."""
    script = """
import asyncio, resource, signal, sys, tempfile
from flowdeck.workspace import WorkspaceManager
async def main():
    workspace = WorkspaceManager().create(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        await workspace.put(b"x" * 1_000_000, collection="artifacts")
    except Exception as problem:
        print(type(problem).__name__, str(problem))
    print([str(path) for path in workspace.content_root.rglob("*") if path.is_file()], await workspace.search())
    print((await workspace.put("small", collection="artifacts"))["size"])
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"WorkspaceError workspace {tmp_path} cannot be written: File too large"), lines
    assert lines[1:] == ["[] []", "5"]


async def test_a_checkpoint_brings_what_was_written_before_to_the_disk(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few contents one by one, many with one call where the system has one; SQLite syncs its own log."""
    synced: list[int] = []
    monkeypatch.setattr("flowdeck.workspace.tree.os.fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    few = [await workspace.put(f"{n}", collection="c") for n in range(3)]
    await workspace.checkpoint("t", {})
    assert {(workspace.content_root / each["path"]).stat().st_ino for each in few} <= set(synced)
    synced.clear()
    for n in range(70):
        await workspace.put(f"{n}", collection="c")

    await workspace.checkpoint("t", {})
    assert len(synced) >= 71 or (sys.platform == "linux" and not synced)


async def test_a_cancelled_reader_is_cancelled(workspace: Workspace, tmp_path: Path) -> None:
    """Cancelled while a worker thread reads, it ends as cancelled, and its file is closed."""
    ref = await workspace.put(iter([b"\0" * (32 << 20)]), collection="c")
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208

    async def read() -> None:
        async for _ in workspace.stream(ref, 32 << 20):
            pass

    for wait in (0.001, 0.003, 0.006):
        reading = asyncio.create_task(read())
        await asyncio.sleep(wait)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    async with asyncio.timeout(5):  # a worker thread may still be opening what nobody reads any more
        while len(os.listdir("/dev/fd")) > before:  # noqa: PTH208, ASYNC110
            await asyncio.sleep(0.001)

    assert len(os.listdir("/dev/fd")) <= before  # noqa: PTH208


def test_a_write_that_comes_after_the_end_goes_nowhere(workspace: Workspace, tmp_path: Path) -> None:
    """A worker thread that is late does not write into the file that has got the descriptor since."""
    incoming = _Incoming(workspace._tree)
    number = incoming._fd
    incoming.drop()
    with (tmp_path / "other").open("wb") as other:
        os.dup2(other.fileno(), number)
        incoming.write(b"late")
        os.close(number)

    assert (tmp_path / "other").read_bytes() == b"" and not list(workspace.content_root.rglob("*-*"))
