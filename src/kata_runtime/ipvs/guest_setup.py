"""Prepares a guest for IPVS: loads the module and sets three sysctls (docs/ipvs.md)."""

from __future__ import annotations

import errno

from kata_runtime.errors import GuestError, KataError, KernelError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.ipvs.codec import FAMILY_NAME
from kata_runtime.netlink.generic import ask_family, find_family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.netlink.generic import GenericFamily

_CONNTRACK = "net/ipv4/vs/conntrack"
_SYSCTLS = (
    # Replies of servers behind address translation pass through the container.
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    # Balanced connections are visible to connection tracking, so that cleanup can drop them. Set last: when it is
    # set, the others are, too.
    (_CONNTRACK, "1"),
)


def ask_number(channel: AgentChannel) -> Callable[[], int]:
    """Ask for the number of IPVS's netlink family; what is returned takes it, and loads IPVS where it is missing.

    Nothing else of the guest changes. GuestError: the guest's kernel has no IPVS.
    """
    take = ask_family(channel, FAMILY_NAME)

    def number() -> int:
        found = _number(take)
        return _load(channel) if found is None else found

    return number


def _load(channel: AgentChannel) -> int:
    # Connection tracking sees packets only where something asks for it: a firewall rule, or this parameter
    # (net/netfilter/nf_conntrack_standalone.c, since Linux 5.14). IPVS asks for FTP only.
    channel.run(["modprobe", "nf_conntrack", "enable_hooks=1"])
    done = channel.run(["modprobe", "ip_vs"])
    number = _number(lambda: find_family(channel, FAMILY_NAME))
    if number is None:
        reason = done.stderr.decode(errors="replace").strip() or "it cannot be loaded"
        raise GuestError(f"the container's kernel has no IPVS: {reason}")
    return number


def ask_sysctls(channel: AgentChannel) -> Callable[[], Sequence[str | KernelError]]:
    """Ask for the sysctls that ``enable`` may set; what is returned takes their values."""
    return channel.ask_sysctls([(name, None) for name, _ in _SYSCTLS])


def enable(channel: AgentChannel, before: Sequence[str | KernelError]) -> None:
    """Let the guest forward what it balances; all sysctls are set, or none. ``before`` are their values.

    Called when something was added to the table, so that refused rules change nothing, and not for a listing: a guest
    that forwards IPv6 drops its default routes from router advertisements.

    :raise KernelError, GuestError: one cannot be set.
    """
    previous: list[tuple[str, str | None]] = []
    for (name, _), found in zip(_SYSCTLS, before, strict=True):
        if isinstance(found, KernelError):
            # A kernel without IPv6 has nothing to forward.
            if name == _CONNTRACK or found.errno != errno.ENOENT:
                raise found
            continue
        previous.append((name, found))
    if (_CONNTRACK, "1") in previous:
        return
    there = dict(previous)
    wanted = [(name, value) for name, value in _SYSCTLS if there.get(name, value) != value]
    try:
        for some in (wanted[:-1], wanted[-1:]):
            for answer in channel.sysctls(some):
                if isinstance(answer, KernelError):
                    raise answer
    except BaseException:
        for name, value in reversed(previous):
            # The failure that is being handled is the one to report.
            with suppress(KataError):
                channel.sysctls([(name, value)])
        raise


def _number(take: Callable[[], GenericFamily]) -> int | None:
    try:
        return take().id
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
