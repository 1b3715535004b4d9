"""Commands are bounded in time and output, and nothing of them outlives its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flowdeck.environments import ExecutionEnvironmentError, ExecutionEnvironmentTimeout
from flowdeck.environments.process import run_command

pytestmark = pytest.mark.anyio
OWNER = str(Path(__file__).with_name("process_owner.py"))
LINUX = sys.platform == "linux"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False

    if LINUX:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"

    return True


def family_of(file: Path, seconds: float = 20) -> list[int]:
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, "the family never started"
        time.sleep(0.01)

    return [int(each) for each in file.read_text().split()]


def gone(pids: list[int], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(each) for each in pids):
        if time.monotonic() > deadline:
            return False

        time.sleep(0.01)

    return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_its_owner(tmp_path: Path, how: signal.Signals) -> None:
    """Kill the owner, with -9 too: the command, its child and its daemonised child all end."""
    owner = subprocess.Popen([sys.executable, OWNER, str(tmp_path / "pids")], stderr=subprocess.DEVNULL)
    pids = family_of(tmp_path / "pids")
    assert all(alive(each) for each in pids)
    owner.send_signal(how)
    owner.wait(20)
    assert gone(pids if LINUX else pids[:2])


def test_killing_the_guard_kills_the_command(tmp_path: Path) -> None:
    """On Linux the command does not outlive even its guard."""
    if not LINUX:
        pytest.skip("needs PR_SET_PDEATHSIG")

    owner = subprocess.Popen([sys.executable, OWNER, str(tmp_path / "pids")], stderr=subprocess.DEVNULL)
    pids = family_of(tmp_path / "pids")
    guard = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    assert gone(pids[:1])
    for pid in (*pids, owner.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    owner.wait(20)


async def test_a_timeout_kills_the_whole_family(tmp_path: Path) -> None:
    """After its time the command and its children are dead, and the error has what it said so far."""
    code = (
        "import os, subprocess, sys, time; p = subprocess.Popen(['sleep', '600']);"
        f"print('so far', flush=True); open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{p.pid}}');"
        "time.sleep(600)"
    )
    with pytest.raises(ExecutionEnvironmentTimeout, match=r"took longer than 1\.5 s and was killed") as caught:
        await run_command([sys.executable, "-c", code], cwd=tmp_path, timeout=1.5)

    assert "so far" in str(caught.value.payload["stdout"])
    assert gone(family_of(tmp_path / "pids"))


async def test_cancelling_kills_it_too(tmp_path: Path) -> None:
    """A cancelled caller leaves no process behind."""
    code = f"import os, time; open({str(tmp_path / 'pids')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    task = asyncio.create_task(run_command([sys.executable, "-c", code], cwd=tmp_path, timeout=60))
    pids = await asyncio.to_thread(family_of, tmp_path / "pids")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert gone(pids)


async def test_output_is_bounded_and_counted(tmp_path: Path) -> None:
    """A flood is read to its end and kept up to the limit."""
    ended = await run_command(
        [sys.executable, "-c", "import sys; sys.stdout.write('x' * 3_000_000)"], cwd=tmp_path, max_output_bytes=1000
    )
    assert (len(ended.stdout), ended.stdout_bytes, ended.truncated, ended.ok) == (1000, 3_000_000, True, True)


async def test_how_it_ended(tmp_path: Path) -> None:
    """Exit status and signals as a shell tells them; a command that is not there says so."""
    assert (await run_command([sys.executable, "-c", "raise SystemExit(3)"], cwd=tmp_path)).returncode == 3
    killed = await run_command([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], cwd=tmp_path)
    assert (killed.ok, killed.returncode) == (False, 137)
    missing = await run_command(["no-such-command-here"], cwd=tmp_path)
    assert missing.returncode == 127 and "cannot run no-such-command-here" in missing.stderr
    with pytest.raises(ExecutionEnvironmentError, match="could not be started"):
        await run_command(["ls"], cwd=tmp_path / "nowhere")


async def test_no_secrets_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's variables are path and locale, not whatever this process has."""
    monkeypatch.setenv("SHOP_API_KEY", "s3cret")
    ended = await run_command([sys.executable, "-c", "import os; print(dict(os.environ))"], cwd=tmp_path)
    assert "s3cret" not in ended.stdout and "PATH" in ended.stdout


def test_it_works_from_a_thread_that_ends(tmp_path: Path) -> None:
    """The guard watches the process, not the thread that started it."""

    results: list[int] = []

    def work() -> None:
        ended = asyncio.run(run_command([sys.executable, "-c", "print(1)"], cwd=tmp_path))
        results.append(ended.returncode)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert results == [0]
