"""The page that leads newcomers through the source names what is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]
PACKAGES = ["runtime/flowdeck", "sinks/flowdeck_sinks", "evals/flowdeck_evals", "devtools/flowdeck_devtools"]
_NAMES = re.compile(r"`([^`\n]+)`")
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


def names(page: Path) -> set[str]:
    """What stands in backticks, drawings and examples left out."""
    return set(
        _NAMES.findall(re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE))
    )


def modules_by_class() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for package in map(Path, PACKAGES):
        for file in (ROOT / package).rglob("*.py"):
            module = ".".join(file.relative_to(ROOT / package.parent).with_suffix("").parts)
            for name in _CLASS.findall(file.read_text(encoding="utf-8")):
                found.setdefault(name, []).append(module)

    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_a_page_names_exist(page: Path) -> None:
    """Each name with a slash or the ending .py is a file or a folder, below the root or one of the four packages."""
    paths = {name for name in names(page) if re.fullmatch(r"[\w./-]+", name) and ("/" in name or name.endswith(".py"))}
    folders = [ROOT, *(ROOT / package for package in PACKAGES)]
    assert len(paths) > 4
    assert sorted(path for path in paths if not any((folder / path).exists() for folder in folders)) == []


def test_the_methods_the_architecture_names_exist() -> None:
    """Each ``Class.method`` is an attribute of a class of that name."""
    known = modules_by_class()
    methods = {name for name in names(PAGES[0]) if re.fullmatch(r"[A-Z]\w+\.[a-z_]\w*", name)}
    assert len(methods) > 20
    missing = []
    for name in sorted(methods):
        owner, _, attribute = name.partition(".")
        classes = [getattr(import_module(module), owner) for module in known.get(owner, ())]
        if not any(hasattr(each, attribute) for each in classes):
            missing.append(name)

    assert missing == []
