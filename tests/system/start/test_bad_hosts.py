"""Hosts that are short of something while a sandbox starts: it is reported in one line, and nothing stays."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.system.start.conftest import NOTHING, SECONDS

if TYPE_CHECKING:
    from tests.system.start.conftest import Fake

_PAGE = 4096


def test_too_few_descriptors(fake: Fake) -> None:
    """Whichever step meets the limit of descriptors, it is named as the reason; with enough of them the start works."""
    reason = re.compile(r"kata-runtime: cannot [^\n]*: Too many open files\n")
    for limit in range(6, 100, 4):
        argv = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *fake.argv("run", "-d", "web")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode == 0:
            break
        assert (done.returncode, done.stdout, bool(reason.fullmatch(done.stderr))) == (1, "", True), done.stderr
        assert fake.left("web") == NOTHING
    assert limit > 30
    assert fake.cli("delete", "--force", "web") == (0, "", "")


@pytest.mark.parametrize("pages", [1, 2])
def test_full_disk(pages: int, fake: Fake) -> None:
    """A root without room for a record and its successor is reported, and emptied again; two pages are enough."""
    fake.root.mkdir(mode=0o700)
    options = f"size={pages * _PAGE},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(fake.root)], check=True)
    try:
        status = fake.run("web")
        if pages == 1:
            reason = f"kata-runtime: cannot write {fake.root}/web/record.json: No space left on device\n"
            assert status == (1, "", reason)
            assert fake.left("web") == NOTHING
        else:
            assert status == (0, "web\n", "")
            assert fake.cli("delete", "--force", "web") == (0, "", "")
    finally:
        subprocess.run(["umount", str(fake.root)], check=True)


def test_root_that_is_read_only(fake: Fake) -> None:
    """A root that cannot be written to is reported."""
    fake.root.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", str(fake.root)], check=True)
    try:
        told = f"kata-runtime: cannot make {fake.root}/web: Read-only file system\n"
        assert fake.run("web") == (1, "", told)
        assert fake.left("web") == NOTHING
    finally:
        subprocess.run(["umount", str(fake.root)], check=True)
