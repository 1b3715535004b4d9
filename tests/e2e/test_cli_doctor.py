"""`flowdeck doctor` on a machine with faults, and what help and completion say, as a user's shell asks for them."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.e2e.cli_shell import Shell


def test_doctor_names_each_fault_of_the_machine_and_its_mend(shell: Shell, tmp_path: Path) -> None:
    """An old package, a server that is away, a bare terminal, a taken port, all in one go; no password shows."""
    old = tmp_path / "site" / "duckdb-0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: duckdb\nVersion: 0.1\n")
    shell.env |= {
        "PYTHONPATH": str(tmp_path / "site"),
        "TERM": "dumb",
        "FLOWDECK_EXECUTIONS": "postgresql://me:top-secret@127.0.0.1:1/db",
    }
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", 8611))
        taken.listen()
    except OSError:
        pass  # somebody else has it: the same to the doctor
    with taken, shell.terminal("doctor", columns=300, lines=20) as terminal:
        terminal.expect(r"duckdb 0\.1 is installed, .* is needed.*pip install --upgrade 'flowdeck\[")
        terminal.expect(r"postgresql://me@127\.0\.0\.1:1/db: .*refused.*start the server, or correct the URL")
        terminal.expect("TERM is dumb: DevTools cannot draw")
        terminal.expect("export TERM=xterm-256color")
        terminal.expect("the terminal is 300 by 20")
        terminal.expect("port 8611 is not free for flowdeck devtools --serve")
        terminal.expect("EOF|$")
        terminal.wait()
        assert terminal.exitstatus == 1
        assert "top-secret" not in str(terminal.before)


def test_help_tells_whole_sentences_and_completion_finds_commands(shell: Shell) -> None:
    """No sentence of the list of commands is cut off; bash is offered the commands of a command."""
    text = shell.ok("--help")
    assert text.count("...") == 1, "the usage line alone"
    assert {"Run flows:", "Answer and act:", "Keep in order:"} <= set(text.splitlines())
    shell.env |= {"_FLOWDECK_COMPLETE": "complete_bash", "COMP_WORDS": "flowdeck executions re", "COMP_CWORD": "2"}
    assert "resume" in shell.ok().split()
