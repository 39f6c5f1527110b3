"""TAPs of a real kernel, in a network namespace of the test's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import ConflictError, HostError, InputError
from kata_runtime.vmm.tap_device import check_tap, close_all, create_tap, held_taps, open_tap, require_attached

if TYPE_CHECKING:
    from collections.abc import Callable

_MAKE_TAP = "a TAP is made with 'ip tuntap add NAME mode tap'"


def _links(network: Callable[..., str]) -> str:
    return network("-details", "link", "show")


def test_a_frame_goes_through(network: Callable[..., str]) -> None:
    """What is written to the descriptor, a virtio_net_hdr and a frame, is received by the interface."""
    network("tuntap", "add", "tap0", "mode", "tap")
    network("link", "set", "tap0", "addrgenmode", "none", "up")
    opened = open_tap("tap0", 0)
    try:
        assert len(opened) == 1
        frame = bytes(6 * [0xFF]) + bytes.fromhex("02422000000188b5") + bytes(46)
        os.write(opened[0], bytes(10) + frame)
        shown = network("-statistics", "link", "show", "dev", "tap0").splitlines()
        assert shown[3].split()[:2] == ["60", "1"]
        assert os.get_inheritable(opened[0]) is False
    finally:
        close_all(opened)
    assert opened == []


@pytest.mark.parametrize("queues", [1, 2, 5])
def test_a_tap_with_many_queues(queues: int, network: Callable[..., str]) -> None:
    """A multi-queue TAP gives as many descriptors as asked for, and the kernel counts them until they are closed."""
    network("tuntap", "add", "tap0", "mode", "tap", "multi_queue")
    for _ in range(2):
        opened = open_tap("tap0", queues)
        assert len(set(opened)) == queues
        assert f"numqueues {queues} " in _links(network)
        close_all(opened)
    assert "numqueues 0 numdisabled 0" in _links(network)


def test_a_tap_that_was_deleted(network: Callable[..., str]) -> None:
    """Descriptors of a TAP with queues that is there are accepted, those of a deleted one are refused by its name."""
    network("tuntap", "add", "tap0", "mode", "tap", "multi_queue")
    opened = open_tap("tap0", 2)
    try:
        require_attached("tap0", opened)
        assert held_taps(os.getpid()) == {"tap0"}
        network("link", "delete", "tap0")
        with pytest.raises(HostError) as refused:
            require_attached("tap0", opened)
        assert str(refused.value) == "the interface 'tap0' was deleted meanwhile; create it again"
        assert held_taps(os.getpid()) == set()
    finally:
        close_all(opened)


def _bridge(network: Callable[..., str]) -> None:
    network("link", "add", "nic", "type", "bridge")


def _veth(network: Callable[..., str]) -> None:
    network("link", "add", "nic", "type", "veth", "peer", "name", "other")


def _tun(network: Callable[..., str]) -> None:
    network("tuntap", "add", "nic", "mode", "tun")


def _single(network: Callable[..., str]) -> None:
    network("tuntap", "add", "nic", "mode", "tap")


def _nothing(_: Callable[..., str]) -> None:
    """There is none."""


@pytest.mark.parametrize(
    ("make", "queues", "field", "text"),
    [
        (
            _nothing,
            0,
            "device",
            "there is no interface 'nic' in this network namespace; create it with 'ip tuntap add nic mode tap'",
        ),
        (_bridge, 0, "device", f"the interface 'nic' is no TAP but of the kind 'bridge'; {_MAKE_TAP}"),
        (_veth, 0, "device", f"the interface 'nic' is no TAP but of the kind 'veth'; {_MAKE_TAP}"),
        (_tun, 0, "device", f"the interface 'nic' is no TAP but a TUN interface; {_MAKE_TAP}"),
        (
            _single,
            2,
            "queues",
            "the TAP 'nic' has one queue, not 2; create it with 'ip tuntap add nic mode tap multi_queue vnet_hdr'",
        ),
    ],
)
def test_what_is_no_such_tap(
    make: Callable[[Callable[..., str]], None], queues: int, field: str, text: str, network: Callable[..., str]
) -> None:
    """Each is refused by name with the remedy, and the namespace is as it was: no interface came to be."""
    make(network)
    before = _links(network)
    for attempt in (open_tap, check_tap):
        with pytest.raises(InputError) as caught:
            attempt("nic", queues)
        assert (str(caught.value), caught.value.field) == (text, field)
    assert _links(network) == before


def test_loopback_is_no_tap(network: Callable[..., str]) -> None:
    """An interface that is not virtual at all is refused."""
    with pytest.raises(InputError) as caught:
        open_tap("lo", 0)
    assert str(caught.value) == f"the interface 'lo' is no TAP but no virtual interface at all; {_MAKE_TAP}"


@pytest.mark.parametrize("options", [(), ("multi_queue",)], ids=["single", "multi-queue"])
def test_a_tap_that_is_held(options: tuple[str, ...], network: Callable[..., str]) -> None:
    """A TAP that somebody has open is refused, also one with room for more queues, and keeps its holder's alone."""
    network("tuntap", "add", "tap0", "mode", "tap", *options)
    held = open_tap("tap0", 1)
    try:
        before = _links(network)
        for attempt in (open_tap, check_tap):
            with pytest.raises(ConflictError) as caught:
                attempt("tap0", 1)
            assert str(caught.value) == "the TAP 'tap0' is held by another process"
        assert _links(network) == before
    finally:
        close_all(held)
    again = open_tap("tap0", 1)
    close_all(again)


@pytest.mark.parametrize(("options", "queues"), [((), 0), (("multi_queue",), 3)], ids=["single", "multi-queue"])
def test_a_free_tap_is_checked(options: tuple[str, ...], queues: int, network: Callable[..., str]) -> None:
    """A TAP that nobody holds is found free, before and after it was held, and nothing of it changes, up or down."""
    network("tuntap", "add", "tap0", "mode", "tap", *options)
    for state in ("down", "up"):
        network("link", "set", "tap0", state)
        before = _links(network)
        check_tap("tap0", queues)
        assert _links(network) == before
        close_all(open_tap("tap0", queues))
        check_tap("tap0", queues)


@pytest.mark.parametrize("queues", [0, 3])
def test_a_tap_that_is_made(queues: int, network: Callable[..., str]) -> None:
    """A new TAP has a descriptor for each queue pair, goes with the last of them, and never takes another's name."""
    before = _links(network)
    made = create_tap("tap7", queues)
    try:
        assert len(made) == max(queues, 1)
        with pytest.raises(ConflictError) as caught:
            create_tap("tap7", queues)
        assert str(caught.value) == "there is an interface 'tap7' already"
    finally:
        close_all(made)
    assert _links(network) == before
