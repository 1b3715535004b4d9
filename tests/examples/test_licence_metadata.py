"""Reading real, broken and hostile distributions: every defect becomes a fact, none an exception."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples.licence_audit.metadata import (
    AuditError,
    Facts,
    decode_strict,
    detect_encoding,
    discover,
    read_facts,
)
from examples.licence_audit.rules import classify

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy. "
MIT += "The above copyright notice and this permission notice shall be included in all copies."


def install(
    site: Path, name: str, version: str = "1.0", metadata: str | bytes | None = "", **files: str | bytes
) -> Path:
    """Put a distribution's metadata folder into ``site``; ``metadata=None`` leaves METADATA out."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    if metadata is not None:
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        body = head.encode() + (metadata if isinstance(metadata, bytes) else metadata.encode())
        (info / "METADATA").write_bytes(body)

    for file, content in files.items():
        (info / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return info


def read_only(site: Path) -> Facts:
    """The facts of the only distribution in ``site``, read as the second attempt of the flow does."""
    (found,) = discover([str(site)])
    return read_facts(found, detect_encoding)


def test_every_distribution_of_this_environment_gets_a_verdict() -> None:
    """The environment the tests run in holds more than 30 distributions and each is judged."""
    found = discover()
    verdicts = [classify(read_facts(one, detect_encoding)) for one in found]
    assert len(verdicts) > 30
    known = [one for one in verdicts if one["verdict"] != "unknown"]
    assert len(known) > len(verdicts) * 0.9, [one for one in verdicts if one["verdict"] == "unknown"]
    assert {one["name"].lower() for one in verdicts} >= {"pytest", "hypothesis", "pydantic"}


def test_a_virtual_environment_stands_for_its_site_packages(tmp_path: Path) -> None:
    """A folder with pyvenv.cfg is searched where its packages are."""
    (tmp_path / "pyvenv.cfg").write_text("home = /usr\n")
    install(tmp_path / "lib" / "python3.12" / "site-packages", "thing", metadata="License: MIT\n")
    assert [one["name"] for one in discover([str(tmp_path)])] == ["thing"]


def test_the_same_distribution_in_two_folders_is_audited_once(tmp_path: Path) -> None:
    """Copies under another spelling of the name are remarked upon, another version is audited for itself."""
    install(tmp_path / "a", "My.Thing", metadata="License: MIT\n")
    install(tmp_path / "b", "my_thing", metadata="License: MIT\n")
    install(tmp_path / "b", "my_thing", "2.0", metadata="License: MIT\n")
    first, second = discover([str(tmp_path / "a"), str(tmp_path / "b")])
    assert (first["version"], second["version"]) == ("1.0", "2.0")
    assert f"another copy is installed in {tmp_path / 'b'}" in read_facts(first)["remarks"]


def test_naming_a_folder_twice_is_no_copy(tmp_path: Path) -> None:
    """The same folder given twice does not make its distributions copies of themselves."""
    install(tmp_path, "thing", metadata="License: MIT\n")
    (found,) = discover([str(tmp_path), str(tmp_path)])
    assert found["copies"] == []


def test_missing_metadata_is_unknown_with_its_reason(tmp_path: Path) -> None:
    """Without METADATA nothing is known, even if a licence file lies there."""
    install(tmp_path, "thing", metadata=None, LICENSE=MIT)
    verdict = classify(read_only(tmp_path))
    assert (verdict["name"], verdict["version"], verdict["verdict"]) == ("thing", "1.0", "unknown")
    assert "holds no METADATA" in verdict["evidence"][0]


@pytest.mark.parametrize("kind", ["directory", "fifo", "dangling link", "loop"])
def test_metadata_that_is_no_file_is_unknown(tmp_path: Path, kind: str) -> None:
    """A folder, a pipe (which would block a naive reader) and a broken link count as unreadable."""
    info = install(tmp_path, "thing", metadata=None)
    path = info / "METADATA"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else info / "nowhere")

    verdict = classify(read_only(tmp_path))
    assert verdict["verdict"] == "unknown"
    assert verdict["evidence"]


def test_the_strict_reading_refuses_latin_1_and_the_second_detects_it(tmp_path: Path) -> None:
    """Attempt one raises UnicodeDecodeError, attempt two reads on and says so."""
    author = "Author: José Núñez, Łódź\nSummary: déjà vu, façade, naïve, café, élève\nLicense: MIT\n"
    install(tmp_path, "thing", metadata=author.replace("Łódź", "Köln").encode("latin-1"))
    (found,) = discover([str(tmp_path)])
    with pytest.raises(UnicodeDecodeError):
        read_facts(found, decode_strict)

    verdict = classify(read_facts(found, detect_encoding))
    assert verdict["licence"] == "MIT"
    assert any("METADATA is not UTF-8" in remark for remark in verdict["evidence"])


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\x01\x80" * 50, bytes(range(256)), b"\x80", b""])
def test_detection_takes_any_bytes(data: bytes) -> None:
    """Whatever the bytes, detection returns some text and the name of an encoding."""
    text, encoding = detect_encoding(data)
    assert isinstance(text, str)
    assert encoding


def test_a_byte_order_mark_is_no_part_of_the_metadata(tmp_path: Path) -> None:
    """UTF-8 with a byte order mark reads like UTF-8."""
    info = install(tmp_path, "thing", metadata=None)
    (info / "METADATA").write_bytes(b"\xef\xbb\xbfName: thing\nLicense-Expression: MIT\n")
    assert read_only(tmp_path)["expression"] == "MIT"


def test_control_characters_of_strangers_are_dropped(tmp_path: Path) -> None:
    """A name or licence with escape sequences cannot reach a terminal or a report."""
    install(tmp_path, "thing", metadata="License: M\x1b[31mIT\x07\n")
    facts = read_only(tmp_path)
    assert facts["licence_field"].isprintable()


def test_licences_of_vendored_code_are_left_out(tmp_path: Path) -> None:
    """Only the distribution's own licence files count, not those deeper in its licenses folder."""
    info = install(tmp_path, "thing", metadata="License-File: LICENSE\n")
    (info / "licenses" / "vendor").mkdir(parents=True)
    (info / "licenses" / "LICENSE").write_text(MIT)
    (info / "licenses" / "vendor" / "LICENSE").write_text("GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007")
    facts = read_only(tmp_path)
    assert [file["licences"] for file in facts["files"]] == [["MIT"]]
    assert facts["remarks"] == []


def test_a_declared_licence_file_that_is_missing_is_remarked(tmp_path: Path) -> None:
    """License-File names a file nobody shipped."""
    install(tmp_path, "thing", metadata="License-Expression: MIT\nLicense-File: LICENSE.txt\n")
    assert "the declared licence file LICENSE.txt is missing" in read_only(tmp_path)["remarks"]


def test_an_editable_install_is_remarked(tmp_path: Path) -> None:
    """direct_url.json tells an editable install; a broken one tells nothing."""
    url = json.dumps({"url": "file:///src", "dir_info": {"editable": True}})
    install(tmp_path / "a", "thing", metadata="License: MIT\n", **{"direct_url.json": url})
    install(tmp_path / "b", "thing", metadata="License: MIT\n", **{"direct_url.json": "[nonsense"})
    assert any("editable" in remark for remark in read_only(tmp_path / "a")["remarks"])
    assert read_only(tmp_path / "b")["remarks"] == []


def test_an_egg_link_leads_to_the_source_folder(tmp_path: Path) -> None:
    """An old editable install is found through its link; a link to nowhere finds nothing."""
    egg = tmp_path / "src" / "thing.egg-info"
    egg.mkdir(parents=True)
    (egg / "PKG-INFO").write_text("Name: thing\nVersion: 3\nLicense: MIT\n")
    site = tmp_path / "site"
    site.mkdir()
    (site / "thing.egg-link").write_text(f"{tmp_path / 'src'}\n.\n")
    (site / "gone.egg-link").write_text("/nowhere/at/all\n")
    (site / "empty.egg-link").write_text("")
    assert read_only(site)["version"] == "3"


def test_an_egg_info_may_be_a_file(tmp_path: Path) -> None:
    """distutils wrote the metadata as one file."""
    (tmp_path / "thing-1.2-py3.11.egg-info").write_text("Name: thing\nVersion: 1.2\nLicense: ISC license\n")
    facts = read_only(tmp_path)
    assert (facts["version"], classify(facts)["licence"]) == ("1.2", "ISC")


def test_a_huge_licence_is_read_up_to_a_limit(tmp_path: Path) -> None:
    """A licence file of 40 MB costs no 40 MB."""
    info = install(tmp_path, "thing")
    with (info / "LICENSE").open("wb") as file:
        file.write(MIT.encode())
        file.truncate(40 << 20)

    assert [file["licences"] for file in read_only(tmp_path)["files"]] == [["MIT"]]


def test_a_missing_path_is_one_clear_error(tmp_path: Path) -> None:
    """The error names the path and what should stand there."""
    with pytest.raises(AuditError, match="nowhere does not exist: name a site-packages folder"):
        discover([str(tmp_path / "nowhere")])

    file = tmp_path / "file"
    file.touch()
    with pytest.raises(AuditError, match="is not a folder"):
        discover([str(file)])

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AuditError, match="no installed distributions in"):
        discover([str(empty)])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from licence_audit.metadata import AuditError, detect_encoding, discover, read_facts
from licence_audit.rules import classify
detect_encoding(b"x")  # loads the codec while its file can be read
os.setgid(65534); os.setuid(65534)
for found in discover([sys.argv[2]]):
    verdict = classify(read_facts(found, detect_encoding))
    print(verdict["name"], verdict["verdict"], "|".join(verdict["evidence"]), sep=";")
try:
    discover([sys.argv[3]])
except AuditError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_unreadable_files_are_facts_for_another_user(open_folder: Path) -> None:
    """A user without permission gets unknown with the reason, or a remark, or one clear error."""
    site, closed = open_folder / "site", open_folder / "closed"
    install(site, "closed_metadata", metadata="License: MIT\n")
    (site / "closed_metadata-1.0.dist-info" / "METADATA").chmod(0)
    install(site, "closed_folder", metadata="License: MIT\n").chmod(0)
    install(site, "closed_licence", metadata="License-Expression: MIT\n", LICENSE=MIT)
    (site / "closed_licence-1.0.dist-info" / "LICENSE").chmod(0)
    closed.mkdir(0o700)
    examples = str(Path(__file__).parents[2] / "examples")
    done = subprocess.run(
        [sys.executable, "-S", "-c", AS_NOBODY, examples, str(site), str(closed)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("closed_folder;unknown;its metadata cannot be read: Permission denied")
    assert lines[1].startswith("closed_licence;permissive;")
    assert "LICENSE cannot be read: Permission denied" in lines[1]
    assert lines[2].startswith("closed_metadata;unknown;its metadata cannot be read: Permission denied")
    assert lines[3] == f"{closed} cannot be read: Permission denied"
