"""Queue pairs of a NIC in the guest: the memory that they need, and enabling them."""

from __future__ import annotations

from kata_runtime.errors import GuestError, LimitError
from kata_runtime.netlink.ethtool import FAMILY_NAME, set_channels
from kata_runtime.netlink.exchange import call
from kata_runtime.netlink.generic import find_family
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.netlink.transport import Transport

# Measured with Debian's 6.1 kernel: 64 pairs, used or not, take 30 MiB of the guest's memory.
_PAIRS_PER_MIB = 2
_SPARE_MIB = 32
# Digits of a number in meminfo: 2^64 has twenty. int() of a hostile guest's thousands of digits would raise.
_DIGITS = 20


def require_memory(channel: AgentChannel, queues: int) -> None:
    """Make sure that the guest has memory for the queue pairs: its OOM killer would end processes otherwise.

    :raise LimitError: it has not enough.
    :raise GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    needed = queues // _PAIRS_PER_MIB + _SPARE_MIB
    available = _available_mib(channel.run(["cat", "/proc/meminfo"]).stdout)
    if available < needed:
        raise LimitError(
            f"{queues} queue pairs need {needed} MiB of the container's memory, and {available} MiB are left",
            limit=available,
            hint="ask for fewer, or start it with more default_memory",
        )


def _available_mib(meminfo: bytes) -> int:
    """MemAvailable of /proc/meminfo (proc(5)), which is in KiB."""
    for line in meminfo.splitlines():
        name, _, rest = line.partition(b":")
        value = rest.split()
        if name == b"MemAvailable" and value and value[0].isdigit() and len(value[0]) <= _DIGITS:
            return int(value[0]) // 1024
    raise GuestError("the container's kernel does not report how much memory is left")


def use_queues(transport: Transport, index: int, queues: int, vcpus: int) -> int:
    """Enable the ``queues`` queue pairs of interface ``index``, but at most one for each vCPU; returns their number.

    Further pairs would not have a processor of their own.

    :raise KernelError: the guest's kernel has no ethtool netlink, or refuses.
    :raise GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    usable = min(queues, vcpus)
    family = find_family(transport, FAMILY_NAME)
    call(transport, Family.GENERIC, set_channels(family, index, usable))
    return usable
