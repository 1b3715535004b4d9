"""What holds for every command: help, version, missing extras, unknown options, closed pipes, bad stores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.cli_shell import FLOWDECK, Shell

import flowdeck_devtools.cli._app as app

READERS = (
    ("sql", "select 1"),
    ("runs",),
    ("events",),
    ("interrupts", "list"),
    ("interrupts", "show", "x"),
    ("interrupts", "answer", "x", "--value", "1"),
    ("devtools",),
)


def test_help_names_every_command_and_loads_no_heavy_library(shell: Shell) -> None:
    """Asking for help imports neither DuckDB nor Textual."""
    code = (
        "import sys\n"
        "from flowdeck_devtools.cli._app import run\n"
        "run(['--help'])\n"
        "heavy = {'duckdb', 'textual', 'rich', 'pydantic', 'sqlite3'} & set(sys.modules)\n"
        "print('loaded:', sorted(heavy - {'rich'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=shell.env, timeout=30)
    assert "loaded: []" in done.stdout, done.stdout + done.stderr
    for command in ("demo", "run", "devtools", "interrupts", "sql", "runs", "events"):
        assert f"  {command} " in done.stdout


def test_version(shell: Shell) -> None:
    """--version prints the installed version."""
    from importlib.metadata import version

    assert shell.ok("--version") == f"flowdeck {version('flowdeck')}\n"


@pytest.mark.parametrize(
    "args", [("nonsense",), ("sql", "one", "two"), ("sql", "--nonsense"), ("runs", "--limit", "x")]
)
def test_wrong_arguments_exit_2_with_usage(shell: Shell, args: tuple[str, ...]) -> None:
    """A usage error says what is wrong and how to get help."""
    done = shell.run(*args)
    assert done.returncode == 2
    assert "Usage: flowdeck" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("missing", ["typer", "duckdb", "textual"])
def test_a_missing_extra_is_named_with_its_install_command(shell: Shell, missing: str) -> None:
    """Without one of the extra's packages the command that needs it says what to install, and exits 2."""
    command = {"typer": ["--help"], "duckdb": ["sql", "select 1"], "textual": ["devtools"]}[missing]
    shell.store.mkdir()
    (shell.store / "store.json").write_text('{"format": 1, "id": "a"}')
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "sys.stdin.isatty = sys.stdout.isatty = lambda: True\n"
        "from flowdeck_devtools.cli import main\n"
        f"main({command!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=shell.env, timeout=30)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert missing in line.lower()
    assert "pip install 'flowdeck[" in line


@pytest.fixture
def refused(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process; it must exit 2 with one line, which is returned."""

    def run(*args: str) -> str:
        monkeypatch.setenv("FLOWDECK_STORE", str(shell.store))
        monkeypatch.chdir(shell.folder)
        assert app.run(list(args)) == 2
        written = capsys.readouterr()
        assert written.out == ""
        (line,) = written.err.splitlines()
        return line

    return run


@pytest.mark.parametrize("args", READERS, ids=" ".join)
def test_a_reader_without_a_store_says_how_to_make_one(
    shell: Shell, refused: Callable[..., str], args: tuple[str, ...]
) -> None:
    """Looking into a store that is not there creates nothing and names the path."""
    assert f"No Flowdeck store at {shell.store}" in refused(*args)
    assert not shell.store.exists()


EVERY = (*READERS, ("demo", "--headless"))


@pytest.mark.parametrize("args", EVERY, ids=" ".join)
def test_a_store_path_that_is_a_file_is_refused(
    shell: Shell, refused: Callable[..., str], args: tuple[str, ...]
) -> None:
    """The file stays as it was."""
    shell.store.write_text("precious")
    assert "is a file" in refused(*args)
    assert shell.store.read_text() == "precious"


@pytest.mark.parametrize("args", EVERY, ids=" ".join)
def test_a_store_of_a_newer_version_is_refused(
    shell: Shell, refused: Callable[..., str], args: tuple[str, ...]
) -> None:
    """Nothing in it is read or changed, and the message names the upgrade."""
    shell.store.mkdir()
    about = json.dumps({"format": 99, "id": "a", "created_by": "flowdeck 9.0"})
    (shell.store / "store.json").write_text(about)
    line = refused(*args)
    assert "written by flowdeck 9.0" in line
    assert "pip install -U flowdeck" in line
    assert [path.name for path in shell.store.iterdir()] == ["store.json"]


def test_devtools_without_a_terminal_names_the_commands_for_pipes(shell: Shell) -> None:
    """There is nothing to draw on, so other commands are named."""
    shell.store.mkdir()
    (shell.store / "store.json").write_text('{"format": 1, "id": "a"}')
    for command in ("devtools", "watch"):
        assert "needs a terminal" in shell.fails(command)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


AS_NOBODY = """
import contextlib, io, json, os, sys
import flowdeck_devtools.cli._app as app
commands, warm, closed = json.loads(sys.argv[3]), sys.argv[1], sys.argv[2]

def run(args, store):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = app.run([*args, "--store", store])
    return code, errors.getvalue()

os.chdir(warm)
for args in commands:  # loads what the other user may not be able to read
    run(args, warm + "/store")
os.setgid(65534); os.setuid(65534)
os.chdir("/")
print(json.dumps([run(args, closed) for args in commands]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_store_of_another_user_is_refused(tmp_path: Path, open_folder: Path) -> None:
    """Without permission every command has one line that names the user and the mend."""
    store = open_folder / "store"
    store.mkdir(0o700)
    commands = [("demo", "--headless"), *READERS[:4]]
    program = [sys.executable, "-c", AS_NOBODY, str(tmp_path), str(store), json.dumps(commands)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for command, (code, errors) in zip(commands, json.loads(done.stdout), strict=True):
        assert code == 2, (command, errors)
        (line,) = errors.splitlines()
        assert "may not be used" in line
        assert "65534" in line


def test_a_reader_that_goes_away_ends_the_command_quietly(shell: Shell) -> None:
    """`flowdeck ... | head` neither complains nor hangs."""
    done = subprocess.run(
        f"{' '.join(FLOWDECK)} --help | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        env=shell.env,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "1", "141")


def test_debugging_shows_where_an_error_came_from(shell: Shell) -> None:
    """FLOWDECK_DEBUG=1 is for people who mend flowdeck itself."""
    shell.env["FLOWDECK_DEBUG"] = "1"
    done = subprocess.run(
        [*FLOWDECK, "runs"], capture_output=True, text=True, env=shell.env, cwd=shell.folder, timeout=30
    )
    assert "Traceback" in done.stderr
    assert "StoreNotFound" in done.stderr
