"""Events from files and pipes, and a finished run played once more."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pytest
from tests.devtools.deck import QuickApp, press, running, screen_text, until
from tests.devtools.scene import START_US, Scene
from tests.devtools.terminal import Terminal, wait_until

from flowdeck.layout import Layout
from flowdeck_devtools.core.clock import ReplayClock
from flowdeck_devtools.core.live import LiveStore
from flowdeck_devtools.core.session import Session
from flowdeck_devtools.core.sources import Source, SourceError, open_file, open_lines, open_pipe, remove_left_behind
from flowdeck_devtools.core.wire import head
from flowdeck_sinks.store.maintenance import export

pytestmark = pytest.mark.anyio


def journal(scene: Scene) -> bytes:
    return scene.layout.segment_path(scene.writer, 1).read_bytes()


def app_on(source: Source) -> QuickApp:
    live = LiveStore(source.store, clock=source.clock, words=lambda: source.words)
    return QuickApp(Session(source.store, clock=source.clock, live=live, actor="ana"))


async def test_a_file_is_shown_as_it_ended(busy: Scene, tmp_path: Path) -> None:
    """Runs, tree and events of an exported file, times held at its last event, bad lines shown and not lost."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(journal(busy) + b"not json\n" + journal(busy).splitlines()[-1] + b"\n")
    with open_file(path) as source:
        folder = source.store.parent
        app = app_on(source)
        async with running(app) as pilot:
            text = screen_text(app)
            assert "▸ file" in text
            assert "refund-agent" in text
            await press(pilot, "j", "j", "enter")
            await until(pilot, lambda: "upstream 504 after 3 tries" in screen_text(app), "the failed step")
            await press(pilot, "5")
            await until(pilot, lambda: "unreadable line" in screen_text(app), "the bad line")
            assert source.clock.now_us() == START_US + 51_300_000
    assert not folder.exists()


def test_a_database_and_a_pipe_hold_the_same_lines(busy: Scene, tmp_path: Path) -> None:
    """A table ``events`` of an export, and a pipe as it is written."""
    target = tmp_path / "x.duckdb"
    export(Layout.open(busy.store), target)
    written = sum(1 for line in journal(busy).splitlines()[1:])
    with open_file(target) as source:
        kept = source._layout.segment_path("w0000000000000source", 1).read_bytes().splitlines()[1:]
        assert len(kept) == written
        assert [head(line).wseq for line in kept] == list(range(1, written + 1))
    with duckdb.connect(str(tmp_path / "other.duckdb")) as empty:
        empty.execute("CREATE TABLE unrelated (a INT)")
    with pytest.raises(SourceError, match="events"):
        open_file(tmp_path / "other.duckdb")
    ends = os.pipe()
    with os.fdopen(ends[0], "rb") as reading, open_pipe(reading) as source:
        with os.fdopen(ends[1], "wb", buffering=0) as writing:
            writing.write(journal(busy))
            wait_until(lambda: source._number == written, 5.0, "the lines")
        wait_until(lambda: source.words == "pipe ended", 5.0, "the end")


@pytest.mark.parametrize(
    ("name", "words"), [("none.jsonl", "does not exist"), ("empty.jsonl", "no events"), ("x.png", "kind")]
)
def test_what_is_no_file_of_events_is_refused_in_words(tmp_path: Path, name: str, words: str) -> None:
    """Missing, empty, of another kind; no folder stays behind."""
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(SourceError, match=words):
        open_file(tmp_path / name)


def test_a_replay_keeps_the_rhythm_and_skips_silence(scene: Scene) -> None:
    """Ten times as fast, a pause of an hour passed over, times those of then."""
    run = scene.execution("old", at=0.0)
    run.step("a", "a", at=0.5, lasts=0.5)
    run.finish(at=3_600.0)
    lines = journal(scene).splitlines()
    with open_lines(lines, speed=10.0) as source:
        begun = time.monotonic()
        assert isinstance(source.clock, ReplayClock)
        wait_until(lambda: source._number == 6, 10.0, "all lines")
        took = time.monotonic() - begun
        assert took > 0.09
        wait_until(lambda: source.clock.now_us() == START_US + 3_600_000_000, 2.0, "the clock to stand still")


_KILLED = """
import os, signal, sys
from pathlib import Path
from flowdeck_devtools.core.sources import open_file
source = open_file(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_window_left_is_removed_by_the_next(
    busy: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder, and no other: not one that is in use, nor what only looks like one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    copied, mine = tmp_path / "events.jsonl", tmp_path / "mine"
    copied.write_bytes(journal(busy))
    told = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    assert subprocess.run([sys.executable, "-c", _KILLED, str(copied)], env=told).returncode == -9
    (left,) = (tmp_path / "temporary").iterdir()
    mine.mkdir()
    (mine / "kept").touch()
    link = tmp_path / "temporary" / "flowdeck-file-link"
    link.symlink_to(mine)
    with open_file(copied) as used:
        assert left.exists()  # so new that its owner may not have locked it yet
        for folder in (left, used.store.parent, mine):
            os.utime(folder, (1.0, 1.0))
        remove_left_behind()
        assert (left.exists(), used.store.is_dir(), (mine / "kept").exists(), link.is_symlink()) == (
            False, True, True, True,
        )  # fmt: skip


_PIPED = """
import os, sys
ends = os.pipe()
lines = open(sys.argv[1], "rb").read()
if os.fork() == 0:
    os.close(ends[0])
    os.write(ends[1], lines)
    os._exit(0)
os.close(ends[1])
os.dup2(ends[0], 0)
from flowdeck_devtools.cli import main
main(["devtools", "-"])
"""


def test_a_pipe_on_stdin_leaves_the_keyboard_to_the_window(busy: Scene) -> None:
    """``… | flowdeck devtools -`` in a real terminal: events from the pipe, keys from the terminal."""
    terminal = Terminal(busy.layout.segment_path(busy.writer, 1), code=_PIPED)
    try:
        terminal.wait_for("refund-agent")
        terminal.wait_for("pipe ended")
        terminal.press("5")
        terminal.wait_for("FOLLOW")
        terminal.press("\x11")
        assert terminal.wait_exit() == 0
    finally:
        terminal.close()
