"""The agent's relay on this host's kernel, whose netlink is that of the guest's."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.guest.agent import netlink_relay as relay_module
from kata_runtime.guest.agent.netlink_relay import KernelWait, Relay, Step
from kata_runtime.netlink.address import dump_addresses
from kata_runtime.netlink.link import RTM_NEWLINK, dump_links, get_link
from kata_runtime.netlink.message import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    iter_messages,
    pack_message,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_ROUTE, _FIREWALL = 0, 3
_PIECE_MAX = 24 * 1024 + 32 * 1024  # what makes a piece full, and the largest datagram of a dump on top


class Answers:
    """Takes the pieces that a relay makes, the first ``limit`` of them."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.pieces: list[bytes] = []
        self._limit = limit

    def take(self, steps: Generator[Step, None, None]) -> None:
        """Keep what ``steps`` yields and end it."""
        for step in steps:
            assert not isinstance(step, KernelWait)
            self.pieces.append(bytes(step))
            if len(self.pieces) == self._limit:
                break
        steps.close()

    def sequences(self) -> list[tuple[int, bool]]:
        """The sequence number of each message, and whether it is an end."""
        return [(message.sequence, message.type == NLMSG_DONE) for message in iter_messages(b"".join(self.pieces))]


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay, closed at the end."""
    made = Relay()
    yield made
    made.close()


def _dumps(count: int) -> bytes:
    """Dumps of links and addresses in turn, with sequences from 1 on."""
    requests = (dump_links(), dump_addresses())
    return b"".join(
        pack_message(request.type, NLM_F_REQUEST | NLM_F_DUMP, number, request.payload)
        for number, request in ((number, requests[number % 2]) for number in range(1, count + 1))
    )


def _exchange(relay: Relay, count: int, answers: Answers, *, one_by_one: bool = True) -> None:
    answers.take(relay.exchange(_ROUTE, count, _dumps(count), one_by_one=one_by_one))


def test_dumps_one_by_one(relay: Relay) -> None:
    """Two hundred dumps in one block: each is answered wholly, in order, up to its end, in pieces that are bounded."""
    answers = Answers()
    _exchange(relay, 200, answers)
    sequences = answers.sequences()
    assert [number for number, is_end in sequences if is_end] == list(range(1, 201))
    assert [number for number, _ in sequences] == sorted(number for number, _ in sequences)
    assert len(answers.pieces) > 1
    assert max(map(len, answers.pieces)) <= _PIECE_MAX


def _link(relay: Relay, sequence: int) -> list[tuple[int, int]]:
    """Type and sequence of each message that answers a question about lo."""
    answers = Answers()
    asked = pack_message(get_link("lo").type, NLM_F_REQUEST | NLM_F_ACK, sequence, get_link("lo").payload)
    answers.take(relay.exchange(_ROUTE, sequence, asked, one_by_one=False))
    return [(message.type, message.sequence) for message in iter_messages(b"".join(answers.pieces))]


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_a_single_question_afterwards(relay: Relay, limit: int) -> None:
    """After dumps that were wanted wholly or in part, one question has its own answer and nothing else."""
    for one_by_one in (True, False):
        _exchange(relay, 200 if one_by_one else 1, Answers(limit), one_by_one=one_by_one)
        assert _link(relay, 7) == [(RTM_NEWLINK, 7), (NLMSG_ERROR, 7)]


def test_answers_are_the_same_either_way(relay: Relay) -> None:
    """A dump that is alone in its block has the same rows when it is sent as one of one."""
    both = Answers(), Answers()
    for answers, one_by_one in zip(both, (True, False), strict=True):
        _exchange(relay, 1, answers, one_by_one=one_by_one)
    assert both[0].sequences() == both[1].sequences()
    assert both[0].sequences()[-1] == (1, True)


def test_whoever_stops_leaves_nothing_behind(relay: Relay) -> None:
    """After an answer that nobody wanted to the end, the next has its own messages only."""
    _exchange(relay, 200, Answers(limit=1))
    answers = Answers()
    _exchange(relay, 2, answers)
    assert [number for number, is_end in answers.sequences() if is_end] == [1, 2]


@pytest.mark.parametrize("block", [_dumps(1)[:-1], b"\0" * 16, b"short", _dumps(1) + b"\xff" * 16])
def test_what_is_no_message(relay: Relay, block: bytes) -> None:
    """A block that is not made of messages is refused, and the relay goes on working."""
    with pytest.raises(OSError, match="not made of messages") as refusal:
        next(relay.exchange(_ROUTE, 1, block, one_by_one=True))
    assert refusal.value.errno == errno.EBADMSG
    answers = Answers()
    _exchange(relay, 1, answers)
    assert answers.sequences()[-1] == (1, True)


def test_family_that_is_not_relayed(relay: Relay) -> None:
    """Families beyond the three are refused."""
    with pytest.raises(OSError, match="netlink family not relayed") as refusal:
        next(relay.exchange(_FIREWALL, 1, _dumps(1), one_by_one=False))
    assert refusal.value.errno == errno.EAFNOSUPPORT


def test_reading_a_file(relay: Relay) -> None:
    """A file of /proc/net comes whole; one that is not there is ENOENT."""
    answers = Answers()
    answers.take(relay.read("protocols"))
    # Its columns of use change all the time; the names do not.
    names = [line.split()[0] for line in Path("/proc/net/protocols").read_text().splitlines()]
    assert [line.split()[0] for line in b"".join(answers.pieces).decode().splitlines()] == names
    with pytest.raises(FileNotFoundError):
        next(relay.read("nosuch"))


def test_a_large_file_comes_in_pieces(relay: Relay) -> None:
    """A file comes whole in pieces that are bounded, and no further than somebody wants them."""
    whole, cut = Answers(), Answers(limit=1)
    names = [f"relay-{os.getpid()}-{number}".ljust(100, "-") for number in range(400)]
    with ExitStack() as held:
        # Each is a line of the file.
        for name in names:
            held.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0{name}")
        whole.take(relay.read("unix"))
        cut.take(relay.read("unix"))
    text = b"".join(whole.pieces).decode()
    assert sorted(name for name in text.replace("@", " ").split() if name in names) == sorted(names)
    assert len(whole.pieces) > 2
    assert max(map(len, whole.pieces)) <= _PIECE_MAX
    assert len(cut.pieces) == 1


def test_a_kernel_that_gives_no_answer(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block without an answer is awaited, not waited for, and ends at its deadline with ETIMEDOUT."""
    monkeypatch.setattr(relay_module, "_ANSWER_SECONDS", 0.0)
    silent = pack_message(get_link("lo").type, NLM_F_REQUEST, 7, b"")[:8] + b"\0" * 8
    steps = relay.exchange(_ROUTE, 7, silent, one_by_one=False)
    assert isinstance(next(steps), KernelWait)
    with pytest.raises(OSError, match="no answer") as refusal:
        next(steps)
    assert refusal.value.errno == errno.ETIMEDOUT
    assert _link(relay, 8) == [(RTM_NEWLINK, 8), (NLMSG_ERROR, 8)]
