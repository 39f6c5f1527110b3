"""A host whose disk, memory or limits let any system call fail."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from tests.system.killing.plans import plans, prepared, starting_point
from tests.system.killing.subject import Subject

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

# What a full, broken or read-only disk, a lack of descriptors, of memory or of a partner answers.
_ERRORS = {
    "open": errno.ENOSPC, "write": errno.ENOSPC, "fsync": errno.EIO, "rename": errno.EROFS, "unlink": errno.EROFS,
    "flock": errno.ENOLCK, "connect": errno.EMFILE, "ioctl(TUN)": errno.ENOMEM, "sendmsg": errno.ENOBUFS,
    "sendto": errno.ENOMEM, "setsockopt": errno.ENOMEM, "bind": errno.ENOMEM,
}  # fmt: skip
_DISK = {"open", "write", "fsync", "rename", "unlink", "flock"}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("add-route", _DISK), ("restore", _DISK), ("add-iface", set(_ERRORS)), ("del-iface", set(_ERRORS))],
)
def test_any_call_fails(sandbox: Sandbox, namespace: Namespace, name: str, kinds: set[str]) -> None:
    """Whichever of its calls fails, a command says so in a line, and its change is there whole or not at all."""
    (plan,) = (plan for plan in plans(sandbox.id) if plan.name == name)
    with prepared(sandbox):
        for words in starting_point(plan):
            assert sandbox.cli(*words.words, stdin=words.stdin).stderr == ""
        subject = Subject(sandbox, plan)
        # Not the last: that is the answer on standard output.
        calls = [(at, call) for at, call in enumerate(subject.calls[:-1]) if call in kinds]
        tried = {(at, call): subject.survive_failure(at, _ERRORS[call]) for at, call in calls}
    assert {place: wrong for place, wrong in tried.items() if wrong} == {}
    assert len(tried) >= 12
