"""The pages that lead newcomers through the source name what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]
PACKAGES = ["runtime/flowdeck", "sinks/flowdeck_sinks", "evals/flowdeck_evals", "devtools/flowdeck_devtools"]
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


def lines(page: Path) -> Iterator[list[str]]:
    """Yield what stands in backticks in each line, drawings and examples left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for line in text.splitlines():
        yield re.findall(r"`([^`]+)`", line)


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
    """A path is one from the root, from one of the four packages, or inside a room that the same line names."""
    missing, seen = [], 0
    for names in lines(page):
        folders = [ROOT, *(ROOT / package for package in PACKAGES)]
        folders += [ROOT / name for name in names if "/" in name and (ROOT / name).is_dir()]
        for name in names:
            if re.fullmatch(r"[\w./-]+", name) and ("/" in name or name.endswith(".py")):
                seen += 1
                if not any((folder / name).exists() for folder in folders):
                    missing.append(name)

    assert missing == []
    assert seen > 5


def test_the_methods_the_architecture_names_exist() -> None:
    """Each ``Class.method`` is an attribute of a class of that name."""
    known = modules_by_class()
    methods = {name for names in lines(PAGES[0]) for name in names if re.fullmatch(r"[A-Z]\w+\.[a-z_]\w*", name)}
    missing = []
    for name in sorted(methods):
        owner, _, attribute = name.partition(".")
        classes = [getattr(import_module(module), owner) for module in known.get(owner, ())]
        if not any(hasattr(each, attribute) for each in classes):
            missing.append(name)

    assert missing == []
    assert len(methods) > 20
