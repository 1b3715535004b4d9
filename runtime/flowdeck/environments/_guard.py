"""Run as a script between the owner and a command: ends the command's whole family when the owner is gone.

    python -I -S _guard.py <pipe> <owner pid> <command> …

``<pipe>`` is the read end of a pipe whose write end only the owner holds. It reads as ended when the owner closes it or
dies in any way, ``kill -9`` included, on Linux and macOS alike. Linux adds two things: the guard adopts orphans of the
command (child subreaper), so that a daemonised grandchild is found; and the command is killed when the guard is.

Exits with the command's status, or 128 + the signal that ended it. Uses nothing but the standard library, as it starts
once for every command.
"""

import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"


def prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants() -> list[int]:
    """Return the children of this process; with a subreaper, orphaned grandchildren are among them."""
    if not LINUX:
        return []

    try:
        with open("/proc/self/task/" + str(os.getpid()) + "/children", encoding="ascii") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except (OSError, ValueError):
        return []


def kill_family(group: int) -> None:
    """Kill the command's process group, and whatever of its family has left the group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass

    for _ in range(1000):  # each round may orphan the next generation to this process
        left = descendants()
        if not left:
            return

        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def main() -> int:
    pipe, owner, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(pipe, False)
    woken_read, woken_write = os.pipe()
    os.set_blocking(woken_write, False)
    signal.set_wakeup_fd(woken_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)

            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            os.execvp(command[0], command)
        except OSError as problem:
            os.write(2, ("cannot run " + command[0] + ": " + str(problem) + "\n").encode())
        finally:
            os._exit(127)

    try:
        os.setpgid(child, child)
    except OSError:
        pass  # it has done so itself

    for stream in (0, 1, 2):  # the command's own; holding them would keep its readers waiting
        os.close(stream)

    if os.getppid() != owner:
        kill_family(child)
        return 137

    while True:
        readable, _, _ = select.select([pipe, woken_read], [], [])
        if woken_read in readable:
            os.read(woken_read, 4096)

        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            kill_family(child)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code

        if pipe in readable:
            kill_family(child)
            return 137


if __name__ == "__main__":
    os._exit(main())
