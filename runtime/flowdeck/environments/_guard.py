"""Run as a script between the owner and a command: ends the command's whole family when the owner is gone.

    python -I -S _guard.py <pipe> <owner pid> <network> <command> …

``<pipe>`` is the read end of a pipe whose write end only the owner holds, as a descriptor or as the path of a FIFO. It
reads as ended when the owner closes it or dies in any way, ``kill -9`` included, on Linux and macOS alike. Linux adds
two things: the guard adopts orphans of the command (child subreaper), so that a daemonised grandchild is found; and the
command is killed when the guard is.

``<network>`` is ``inherit`` or ``disabled``: then the command lives in a network of its own with nothing in it (Linux).
Without a command the guard only says whether that can be had: status 0, else 125.

Exits with the command's status, or 128 + the signal that ended it. Uses nothing but the standard library, as it starts
once for every command.
"""

import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
NO_NETWORK_CONTROL = 125
LINUX = sys.platform == "linux"


def prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def leave_network() -> None:
    """Move into an empty network namespace; a user namespace of its own lets any user do so. Raises OSError."""
    if not LINUX:
        raise OSError(0, "only Linux can take a command's network away")

    import ctypes

    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open("/proc/self/" + name, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text)


def opened_fifo(path: str) -> int:
    """Open the owner's FIFO, and remove it: nothing of it is left when the owner is killed."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.unlink(path)  # noqa: PTH108 - pathlib takes too long to import
        os.rmdir(os.path.dirname(path))  # noqa: PTH106, PTH120
    except OSError:
        pass

    return fd


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
    where, owner, network, command = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    pipe = int(where) if where.isdigit() else opened_fifo(where)
    if network == "disabled":
        try:
            leave_network()
        except OSError as problem:
            os.write(2, f"cannot take the network away: {problem}\n".encode())
            return NO_NETWORK_CONTROL

    if not command:
        return 0

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(pipe, False)
    woken_read, woken_write = os.pipe()
    os.set_blocking(woken_write, False)
    signal.set_wakeup_fd(woken_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
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

        if pipe in readable or terminated:
            kill_family(child)
            return 137


if __name__ == "__main__":
    os._exit(main())
