"""Find installed distributions and read what they say about their licence.

Only files are looked at: nothing of the audited environment is imported or run. What is wrong with a
distribution (no METADATA, no permission, a broken encoding) becomes part of its facts, so one bad package
never stops an audit.
"""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import TypedDict

from .texts import recognise

__all__ = [
    "AuditError",
    "Facts",
    "Found",
    "LicenceFile",
    "decode_strict",
    "detect_encoding",
    "discover",
    "read_facts",
]

_MAX_METADATA = 4 << 20
_MAX_LICENCE = 1 << 20
_MAX_FILES = 20
_INFO_SUFFIXES = (".dist-info", ".egg-info")
_LICENCE_NAME = re.compile(r"^(licen[sc]e|copying|unlicense)", re.IGNORECASE)
_METADATA_NAMES = {".dist-info": ("METADATA",), ".egg-info": ("PKG-INFO", "METADATA")}

Decode = Callable[[bytes], tuple[str, str]]
"""From bytes to ``(text, name of the encoding)``."""


class AuditError(Exception):
    """The audit cannot start. The message names the folder and the mend."""


class Found(TypedDict):
    """One distribution, as its metadata folder names it."""

    name: str
    version: str
    folder: str
    """The ``.dist-info`` or ``.egg-info``."""
    copies: list[str]
    """Further folders with the same name and version, which are not audited again."""


class LicenceFile(TypedDict):
    """What a licence file turned out to be. Its text is not kept: events and reports stay small."""

    name: str
    encoding: str
    licences: list[str]


class Facts(TypedDict):
    """What one distribution says about itself, before anybody judges it."""

    name: str
    version: str
    folder: str
    expression: str
    licence_field: str
    classifiers: list[str]
    files: list[LicenceFile]
    remarks: list[str]
    """What a reviewer should know besides: unreadable files, guessed encodings, copies."""
    failure: str
    """Why nothing can be said at all, or an empty string."""


def discover(paths: Sequence[str] = ()) -> list[Found]:
    """Return the distributions in ``paths`` (site-packages folders or virtual environments), sorted by name.

    Without ``paths`` the folders this interpreter imports from are searched.

    Raises:
        AuditError: a path is missing, is no folder, cannot be read, or nothing is installed in any of them.
    """
    if paths:
        folders = [folder for path in paths for folder in _site_packages(Path(path))]
    else:
        folders = [Path(entry) for entry in sys.path if entry and _is_folder(Path(entry))]

    found: dict[tuple[str, str], Found] = {}
    for info in (info for folder in dict.fromkeys(folders) for info in _infos(folder, strict=bool(paths))):
        name, version = _named_by(info)
        key = (re.sub(r"[-_.]+", "-", name).lower(), version)
        if key not in found:
            found[key] = Found(name=name, version=version, folder=str(info), copies=[])
        elif str(info) not in (found[key]["folder"], *found[key]["copies"]):
            found[key]["copies"].append(str(info))

    if not found:
        places = ", ".join(map(str, folders)) or "the import path"
        raise AuditError(
            f"no installed distributions in {places}: name a site-packages folder or a virtual environment"
        )

    return [found[key] for key in sorted(found)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # what this user may not even look at holds nothing it could import
        return False


def _site_packages(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            kind = "is not a folder" if path.exists() else "does not exist"
            raise AuditError(f"{path} {kind}: name a site-packages folder or a virtual environment")

        if (path / "pyvenv.cfg").is_file():
            return sorted(path.glob("lib*/python*/site-packages"))
    except PermissionError:
        raise AuditError(f"{path} cannot be read: Permission denied") from None

    return [path]


def _infos(folder: Path, *, strict: bool) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        if strict:
            raise AuditError(f"{folder} cannot be read: {error.strerror or error}") from None

        return []  # An unreadable folder of sys.path holds nothing Python could import either.

    infos = [entry for entry in entries if entry.name.endswith(_INFO_SUFFIXES)]
    for link in (entry for entry in entries if entry.suffix == ".egg-link"):
        infos += _linked(link)

    return infos


def _linked(link: Path) -> list[Path]:
    """Follow the ``.egg-link`` of an old editable install to the metadata in its source folder."""
    try:
        source = Path(link.read_text(errors="replace").splitlines()[0].strip())
        return sorted(source.glob("*.egg-info"))
    except (OSError, IndexError, ValueError):
        return []


def _named_by(info: Path) -> tuple[str, str]:
    name, _, rest = _clean(info.stem).partition("-")
    return name or "(no name)", rest.split("-py")[0]


def decode_strict(data: bytes) -> tuple[str, str]:
    """Decode as the standard demands. Raises UnicodeDecodeError when ``data`` is not UTF-8."""
    return data.decode("utf-8-sig"), "utf-8"


def detect_encoding(data: bytes) -> tuple[str, str]:
    """Decode by the likeliest encoding; the name says which. Never raises."""
    try:
        return decode_strict(data)
    except UnicodeDecodeError:
        pass

    try:
        from charset_normalizer import from_bytes
    except ImportError:  # the audit works without the `demo` extra, only with a plainer guess
        return data.decode("latin-1"), "latin-1, assumed"

    best = from_bytes(data).best()
    if best is None:
        return data.decode("latin-1"), "latin-1, assumed"

    return str(best), f"{best.encoding}, detected"


def read_facts(found: Found, decode: Decode = decode_strict) -> Facts:
    """Read the metadata and licence files of one distribution.

    Raises:
        UnicodeDecodeError: from ``decode``. Every other defect becomes a remark or the ``failure`` of the
        facts.
    """
    info = Path(found["folder"])
    facts = Facts(
        name=found["name"],
        version=found["version"],
        folder=found["folder"],
        expression="",
        licence_field="",
        classifiers=[],
        files=[],
        remarks=[f"another copy is installed in {Path(copy).parent}" for copy in found["copies"]],
        failure="",
    )
    try:
        headers = _headers(info, decode, facts)
    except OSError as error:
        facts["failure"] = _why(error, info)
        return facts

    facts["name"] = _clean(headers.get("Name", "")) or found["name"]
    facts["version"] = _clean(headers.get("Version", "")) or found["version"]
    facts["expression"] = _clean(headers.get("License-Expression", ""))
    facts["licence_field"] = _clean(headers.get("License", ""))
    facts["classifiers"] = [
        classifier
        for classifier in map(_clean, headers.get_all("Classifier", []))
        if classifier.startswith("License ::")
    ]
    if _is_editable(info):
        facts["remarks"].append("installed as editable: its source folder may say more")

    for path in _licence_files(info, headers.get_all("License-File", []), facts):
        _read_licence(path, decode, facts)

    return facts


def _headers(info: Path, decode: Decode, facts: Facts) -> Message:
    # An egg-info may be one file that is the metadata itself.
    names: Iterable[Path] = [info] if info.is_file() else [info / name for name in _METADATA_NAMES[info.suffix]]
    missing: OSError | None = None
    for path in names:
        try:
            data = _read_regular(path, _MAX_METADATA)
        except FileNotFoundError as error:
            missing = missing or error
            continue

        text, encoding = decode(data)
        if encoding != "utf-8":
            facts["remarks"].append(f"{path.name} is not UTF-8 ({encoding})")

        return HeaderParser().parsestr(text)

    raise missing or FileNotFoundError(2, "No such file", str(info))


def _licence_files(info: Path, declared: Sequence[str], facts: Facts) -> list[Path]:
    """Return the licence files of the distribution itself; those of vendored code lie deeper."""
    if info.is_file():
        return []

    found: dict[Path, None] = {}
    for folder in (info, info / "licenses", info / "license_files"):
        try:
            entries = [path for path in sorted(folder.iterdir()) if _LICENCE_NAME.match(path.name)]
            found.update((entry, None) for entry in entries if not entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            facts["remarks"].append(f"{folder.name} cannot be read: {error.strerror or error}")

    named = {path.name for path in found}
    for name in declared:
        # A name of the metadata may not lead out of the metadata folder.
        if name in named or "/" in name or not _LICENCE_NAME.match(name):
            continue

        facts["remarks"].append(f"the declared licence file {_clean(name)} is missing")

    return list(found)[:_MAX_FILES]


def _read_licence(path: Path, decode: Decode, facts: Facts) -> None:
    try:
        data = _read_regular(path, _MAX_LICENCE)
    except OSError as error:
        facts["remarks"].append(f"{_clean(path.name)} cannot be read: {error.strerror or error}")
        return

    text, encoding = decode(data)
    name = _clean(path.name)
    if encoding != "utf-8":
        facts["remarks"].append(f"{name} is not UTF-8 ({encoding})")

    facts["files"].append(LicenceFile(name=name, encoding=encoding, licences=recognise(text)))


def _read_regular(path: Path, limit: int) -> bytes:
    """Read at most ``limit`` bytes. A pipe or device would block, so it counts as unreadable."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(22, "not a regular file", str(path))

    with path.open("rb") as file:
        return file.read(limit)


def _is_editable(info: Path) -> bool:
    if info.is_file():
        return False

    try:
        origin = json.loads(_read_regular(info / "direct_url.json", _MAX_LICENCE))
        return bool(origin["dir_info"]["editable"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _why(error: OSError, info: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"it has no metadata: {info.name} holds no {_METADATA_NAMES[info.suffix][0]}"

    return f"its metadata cannot be read: {error.strerror or error}"


def _clean(text: str) -> str:
    """Drop what a terminal would obey; metadata is written by strangers."""
    return "".join(char if char.isprintable() else " " for char in str(text)).strip()
