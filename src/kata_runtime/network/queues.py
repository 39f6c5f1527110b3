"""Queue pairs of a NIC in the guest."""

from __future__ import annotations

from kata_runtime.netlink.ethtool import FAMILY_NAME, set_channels
from kata_runtime.netlink.generic import find_family
from kata_runtime.netlink.request import call
from kata_runtime.netlink.transport import Family, Transport


def use_queues(transport: Transport, index: int, queues: int, vcpus: int) -> int:
    """Switch interface ``index`` to its ``queues`` queue pairs, but to no more than one for each vCPU; how many.

    A pair beyond those would have no processor of its own to serve it.

    :raise KernelError: the guest's kernel has no ethtool netlink, or refuses.
    :raise GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    usable = min(queues, vcpus)
    family = find_family(transport, FAMILY_NAME)
    call(transport, Family.GENERIC, set_channels(family, index, usable))
    return usable
