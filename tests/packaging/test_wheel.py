"""The wheel and the sdist, installed into clean environments of every Python on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")

HELLO = """
from flowdeck import TriggerFlow
flow = TriggerFlow(name="hello")
flow.to(lambda data: data.set_state("said", f"hello {data.input}"))
assert flow.start("world") == {"said": "hello world"}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist made from the tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return folder


def python(version: str) -> str | None:
    found = shutil.which(f"python{version}")
    if found is None:
        return None

    probe = [found, "-c", "import ensurepip, ssl, sqlite3"]
    return found if subprocess.run(probe, capture_output=True).returncode == 0 else None


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs_and_runs_in_a_clean_environment(built: Path, tmp_path: Path, version: str) -> None:
    """The base install runs a flow; a missing extra is one line that names it; the command starts."""
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"there is no usable python{version} on this machine")

    subprocess.run([interpreter, "-m", "venv", str(tmp_path / "v")], check=True)
    bin_ = tmp_path / "v" / "bin"
    wheel = next(built.glob("flowdeck-*.whl"))
    subprocess.run([bin_ / "python", "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    subprocess.run([bin_ / "python", "-c", HELLO], check=True, cwd=tmp_path)
    lacking = subprocess.run([bin_ / "flowdeck", "runs"], capture_output=True, text=True, cwd=tmp_path)
    assert lacking.returncode == 2 and "pip install 'flowdeck[devtools]'" in lacking.stderr
    subprocess.run([bin_ / "python", "-m", "pip", "install", "--quiet", f"{wheel}[devtools]"], check=True)
    shown = subprocess.run([bin_ / "flowdeck", "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout.startswith("flowdeck "), shown.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_their_types(built: Path) -> None:
    """Four packages, each with `py.typed`, the pages of `flowdeck docs`, and nothing of the tests."""
    names = zipfile.ZipFile(next(built.glob("flowdeck-*.whl"))).namelist()
    for package in ("flowdeck", "flowdeck_sinks", "flowdeck_evals", "flowdeck_devtools"):
        assert f"{package}/py.typed" in names

    pages = {path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")}
    assert {name for name in names if "/docs/" in name} == {f"flowdeck_devtools/{page}" for page in pages}

    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]
