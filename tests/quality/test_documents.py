"""Links, files, tests and make targets that the documents name are there, and docs/reference.md is as the code."""

from __future__ import annotations

import re

import pytest
from scripts import reference_page
from tests.quality.trees import ROOT, tracked_files

_DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in tracked_files() if path.suffix == ".md")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"<(?:img|source)[^>]* src(?:set)?=\"([^\"]+)\"")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|toml|lock|sh|md))(?:::\w+)?`|`((?:[\w.-]+/)+[\w.-]*)`")
_MAKE = re.compile(r"`make ([a-z-]+)")
# Paths in documents are those of the repository, or of the package: network/routes.py.
_ROOTS = (ROOT, ROOT / "src/kata_runtime", ROOT / "docs")
# Files of the reader's own host or system, and what make targets make.
_ELSEWHERE = ("clouds.", "config.", "configuration.toml", "build/")


def _anchors(text: str) -> set[str]:
    """The anchors of headings as the forges make them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_links(document: str) -> None:
    """Each relative link leads to a file of the repository, and to a heading in it where it names one."""
    path = ROOT / document
    text = _BLOCK.sub("", path.read_text())
    wrong = []
    for link in [*_LINK.findall(text), *_IMAGE.findall(text)]:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_named_files(document: str) -> None:
    """Each file and directory that a document names in backquotes is there."""
    text = _BLOCK.sub("", (ROOT / document).read_text())
    files = [file for file, _ in _NAMED.findall(text) if file]
    directories = [
        name for _, name in _NAMED.findall(text) if any((root / name.split("/")[0]).exists() for root in _ROOTS)
    ]
    named = [name for name in files + directories if not name.startswith(_ELSEWHERE)]
    missing = [name for name in named if not any((root / name).exists() for root in _ROOTS)]
    assert missing == []


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_named_targets(document: str) -> None:
    """Each ``make`` target that a document names is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_MAKE.findall((ROOT / document).read_text())) - targets == set()


def test_reference_is_current() -> None:
    """docs/reference.md is what scripts/reference_page.py writes; ``make reference`` renews it."""
    assert reference_page.PAGE.read_text() == reference_page.page(), "run 'make reference' and commit docs/reference.md"
