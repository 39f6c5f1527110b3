"""Descriptors that are passed over Unix sockets."""

from __future__ import annotations

import os
import socket

import pytest

from kata_runtime.unix_socket import receive_descriptors, send_descriptors


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def test_descriptors_arrive_with_the_data(kind: int) -> None:
    """Copies of the descriptors arrive in their order, with the data that was sent with them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        readable, writable = os.pipe()
        try:
            send_descriptors(ours, b"two", [readable, writable])
            data, received = receive_descriptors(theirs, 16, 2)
            os.write(received[1], b"through")
            assert (data, os.read(received[0], 16)) == (b"two", b"through")
        finally:
            for descriptor in (readable, writable, *received):
                os.close(descriptor)


def test_no_descriptors() -> None:
    """Data without descriptors, and the end of the stream, come with none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(b"none")
        assert receive_descriptors(theirs, 16, 2) == (b"none", [])
        ours.close()
        assert receive_descriptors(theirs, 16, 2) == (b"", [])


def test_surplus_descriptors_are_closed() -> None:
    """Of more descriptors than are expected those beyond them do not stay open in this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_descriptors(ours, b"three", [0, 1, 2])
        before = len(os.listdir("/proc/self/fd"))
        data, received = receive_descriptors(theirs, 16, 1)
        try:
            assert (data, len(received), len(os.listdir("/proc/self/fd"))) == (b"three", 1, before + 1)
        finally:
            os.close(received[0])
