"""Functions of the C library, called with their real effects."""

from __future__ import annotations

import errno
import os

import pytest

from kata_runtime.c_library import c_function


def test_a_success(tmp_path: os.PathLike[str]) -> None:
    """Bytes and integers arrive as the function takes them."""
    made = os.path.join(tmp_path, "made")
    assert c_function("mkdir")(made.encode(), 0o700) == 0
    assert os.stat(made).st_mode == 0o40700


def test_a_result() -> None:
    """What a function returns that is no failure is the result."""
    assert c_function("getpid")() == os.getpid()


def test_a_refusal() -> None:
    """A function that fails raises its errno, and the text for it."""
    with pytest.raises(OSError, match="No such file or directory") as caught:
        c_function("rmdir")(b"/nowhere/at all")
    assert caught.value.errno == errno.ENOENT


def test_no_pointer() -> None:
    """None is passed as NULL, which the kernel refuses with EFAULT."""
    with pytest.raises(OSError, match="Bad address") as caught:
        c_function("chdir")(None)
    assert caught.value.errno == errno.EFAULT


def test_no_such_function() -> None:
    """A name that the C library does not have is an error at once."""
    with pytest.raises(OSError, match="no_such_function"):
        c_function("no_such_function")
