"""What is asked of a vhost-user back end before QEMU is."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.vmm.conftest import peer

from kata_runtime.errors import DeadlineError, HostError, InputError, KataError
from kata_runtime.vmm import vhost_user_socket
from kata_runtime.vmm.vhost_user_socket import examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ME = os.geteuid()
_NOBODY = 65534
_HEADER = struct.Struct("<III")


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a socket may be made: a directory that every user may search."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="vu") as made:
        os.chmod(made, 0o755)
        yield Path(made, "back.sock")


def _back_end(answers: dict[int, int]) -> Callable[[socket.socket], None]:
    """Answers as a back end does, and insists on exactly these questions in this order."""

    def script(connection: socket.socket) -> None:
        for request, value in answers.items():
            assert _HEADER.unpack(connection.recv(12)) == (request, 1, 0)
            answer = _HEADER.pack(request, 5, 8) + struct.pack("<Q", value)
            # A stream may cut anywhere.
            connection.sendall(answer[:7])
            connection.sendall(answer[7:])
        assert connection.recv(1) == b""

    return script


_FULL = {1: 1 << 30 | 1 << 32, 15: 0b1011, 17: 4}
_ONE_PAIR = {1: 1 << 30, 15: 0b1010}
_OLD = {1: 1 << 32}


@pytest.mark.parametrize(
    ("answers", "queues"), [(_FULL, 0), (_FULL, 4), (_ONE_PAIR, 1), (_OLD, 0)], ids=["0", "4 of 4", "1", "old"]
)
def test_a_back_end_that_serves(answers: dict[int, int], queues: int, path: Path) -> None:
    """The three questions find a back end with enough queue pairs; one without the feature has a single pair."""
    with peer(path, _back_end(answers)):
        examine(str(path), queues, user=_ME)


@pytest.mark.parametrize(
    ("answers", "queues", "has"),
    [(_FULL, 5, "4 queue pairs"), (_ONE_PAIR, 2, "1 queue pair"), (_OLD, 2, "1 queue pair")],
)
def test_too_few_queues(answers: dict[int, int], queues: int, has: str, path: Path) -> None:
    """A back end with fewer queue pairs is refused with both numbers."""
    with peer(path, _back_end(answers)), pytest.raises(InputError) as caught:
        examine(str(path), queues, user=_ME)
    assert str(caught.value) == (
        f"the back end at '{path}' has {has}, not {queues}; start it with more, or ask for fewer"
    )
    assert caught.value.field == "queues"


def _says(answer: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        connection.recv(12)
        connection.sendall(answer)

    return script


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        _HEADER.pack(1, 5, 8) + b"1234",
        _HEADER.pack(1, 1, 8) + bytes(8),
        _HEADER.pack(2, 5, 8) + bytes(8),
        _HEADER.pack(1, 5, 0xFFFFFFFF) + bytes(8),
    ],
    ids=["end", "ssh", "half", "no reply", "other request", "huge"],
)
def test_another_language(answer: bytes, path: Path) -> None:
    """Whatever is no reply to the question is refused."""
    with peer(path, _says(answer)), pytest.raises(HostError) as caught:
        examine(str(path), 0, user=_ME)
    assert str(caught.value) == f"what listens at '{path}' does not speak vhost-user"


def _dribbles(connection: socket.socket) -> None:
    connection.recv(12)
    connection.settimeout(0.05)
    for byte in _HEADER.pack(1, 5, 8):
        try:
            connection.sendall(bytes([byte]))
            if not connection.recv(1):
                return
        except TimeoutError:
            continue
        except ConnectionError:
            # It was closed with a byte unread (unix(7): reset), or before this one.
            return


def _waits(connection: socket.socket) -> None:
    assert _HEADER.unpack(connection.recv(12)) == (1, 1, 0)
    assert connection.recv(1) == b""


@pytest.mark.parametrize("script", [_waits, _dribbles])
def test_silence(script: Callable[[socket.socket], None], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A back end that does not answer, or a byte at a time, is given up at the deadline for all of it."""
    monkeypatch.setattr(vhost_user_socket, "ANSWER_SECONDS", 0.2)
    with peer(path, script), pytest.raises(DeadlineError) as caught:
        examine(str(path), 0, user=_ME)
    assert str(caught.value) == f"an answer of the back end at '{path}' did not happen within 0.2 s"


def _file(path: Path) -> None:
    path.touch()


def _dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _missing(_: Path) -> None:
    """There is none."""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (_missing, "there is no socket '{}'; start the back end first"),
        (_file, "vhostUserSocket '{}' is no socket; give the one that the back end listens on"),
        (_dead_socket, "nobody listens at '{}'; start the back end first"),
    ],
)
def test_nobody_there(make: Callable[[Path], None], text: str, path: Path) -> None:
    """A path without a listening socket is refused with what to do."""
    make(path)
    with pytest.raises(InputError) as caught:
        examine(str(path), 0, user=_ME)
    assert (str(caught.value), caught.value.field) == (text.format(path), "vhostUserSocket")


def test_a_long_path(path: Path) -> None:
    """A path that QEMU could not connect to is refused for that, even when it exists."""
    with pytest.raises(InputError) as caught:
        examine("/" + 107 * "x", 0, user=_ME)
    assert str(caught.value) == (
        "vhostUserSocket has 108 bytes; QEMU connects to socket paths of at most 107 bytes; use a shorter one"
    )


@pytest.mark.parametrize("closed", ["socket", "directory"])
def test_permissions_of_qemus_user(closed: str, path: Path) -> None:
    """It is QEMU's user that must be able to connect, whatever root can; the caller is who it was afterwards."""
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        path.chmod(0o600 if closed == "socket" else 0o666)
        path.parent.chmod(0o700 if closed == "directory" else 0o755)
        with pytest.raises(KataError) as caught:
            examine(str(path), 0, user=_NOBODY)
    assert str(caught.value) == (
        f"QEMU's user 65534 may not connect to '{path}'; "
        "let others write to the socket and search its directories, for example by the back end's umask"
    )
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_signal_while_the_user_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal right after the change to QEMU's user leaves the command as the user that it was."""
    real, before = os.seteuid, (os.geteuid(), os.getegid(), os.getgroups())

    def interrupted(user: int) -> None:
        real(user)
        if user != before[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "seteuid", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt), vhost_user_socket._acting_as(65534):
            raise AssertionError
        assert (os.geteuid(), os.getegid(), os.getgroups()) == before
    finally:
        real(before[0])
        os.setegid(before[1])
        os.setgroups(before[2])
