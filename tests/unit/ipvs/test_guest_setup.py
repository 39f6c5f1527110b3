"""Sysctls of the guest: set together, or not at all."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime.errors import GuestError, KernelError
from kata_runtime.ipvs.guest_setup import ask_sysctls, enable

if TYPE_CHECKING:
    from collections.abc import Callable

_FORWARD4, _FORWARD6, _CONNTRACK = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/vs/conntrack"


class _Channel:
    """Sysctls; setting ``broken`` fails."""

    def __init__(self, values: dict[str, str], broken: str = "") -> None:
        self.values = values
        self.broken = broken

    def ask_sysctls(self, asked: list[tuple[str, str | None]]) -> Callable[[], list[str | KernelError]]:
        """Their values at this moment."""
        answers = self.sysctls(asked)
        return lambda: answers

    def sysctls(self, asked: list[tuple[str, str | None]]) -> list[str | KernelError]:
        """Read or set some, in their order."""
        answers: list[str | KernelError] = []
        for name, value in asked:
            if name not in self.values:
                answers.append(KernelError(name, errno.ENOENT))
                continue
            if value is not None:
                if name == self.broken:
                    raise GuestError("the connection to the guest broke")
                self.values[name] = value
            answers.append(self.values[name])
        return answers


def test_set() -> None:
    """All become 1, without IPv6 the others."""
    for names in ((_FORWARD4, _FORWARD6, _CONNTRACK), (_FORWARD4, _CONNTRACK)):
        channel: Any = _Channel(dict.fromkeys(names, "0"))
        enable(channel, ask_sysctls(channel)())
        assert channel.values == dict.fromkeys(names, "1")


def test_set_before() -> None:
    """What was set before, and then changed in the container on purpose, is left alone."""
    values = {_FORWARD4: "1", _FORWARD6: "0", _CONNTRACK: "1"}
    channel: Any = _Channel(dict(values))
    enable(channel, ask_sysctls(channel)())
    assert channel.values == values


def test_some_set() -> None:
    """One that has its value already is not written: writing IPv6's would change all interfaces."""
    channel: Any = _Channel({_FORWARD4: "1", _FORWARD6: "1", _CONNTRACK: "0"}, broken=_FORWARD6)
    enable(channel, ask_sysctls(channel)())
    assert channel.values == {_FORWARD4: "1", _FORWARD6: "1", _CONNTRACK: "1"}


def test_half_set() -> None:
    """When one cannot be set, those before it are what they were."""
    values = {_FORWARD4: "0", _FORWARD6: "2", _CONNTRACK: "0"}
    channel: Any = _Channel(dict(values), broken=_CONNTRACK)
    with pytest.raises(GuestError):
        enable(channel, ask_sysctls(channel)())
    assert channel.values == values
