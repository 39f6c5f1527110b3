"""The common part of endpoints that create a TAP and plug it into a switch of this host.

The TAP is not persistent (tuntap.rst): the kernel deletes it with its last descriptor, which is QEMU's, or this
command's until QEMU has it. So it never outlives the NIC, however command, QEMU or container end.
"""

from __future__ import annotations

import errno

from kata_runtime.errors import HostError, KernelError
from kata_runtime.netlink.exchange import call, call_each
from kata_runtime.netlink.link import get_link, links_of, set_link, without_own_addresses
from kata_runtime.netlink.transport import Family
from kata_runtime.network.endpoint import Plan
from kata_runtime.network.endpoint.descriptors import DescriptorEndpoint
from kata_runtime.vmm.tap_device import create_tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.netlink.local import LocalTransport

# A user-space switch gets copies of the frames, and this host's own stack still receives them. It must not answer ARP
# nor accept router advertisements; strict reverse path filtering drops IPv4 packets, as no route leads to the TAP.
_QUIET = {"ipv6/conf/{}/disable_ipv6": "1", "ipv4/conf/{}/arp_ignore": "8", "ipv4/conf/{}/rp_filter": "1"}


class CreatedTapEndpoint(DescriptorEndpoint):
    """A back end with a TAP that ``plug`` creates, with name and MTU from the NIC's record."""

    def plug(self) -> None:
        """See ``Endpoint``."""
        nic = self._nic
        self._taps += self._namespace.run(lambda: create_tap(nic.device, nic.queues))
        self._namespace.run(self._silence)
        with self._namespace.transport() as transport:
            try:
                index = links_of(call(transport, Family.ROUTE, get_link(nic.device)))[0].index
                requests = [without_own_addresses(index), set_link(index, mtu=self._mtu), set_link(index, up=True)]
                call_each(transport, Family.ROUTE, requests)
                self._join(transport, index)
            except KernelError as error:
                raise HostError(f"cannot set up the TAP {nic.device!a}: {error}", errno=error.errno) from error
        super().plug()

    def plan(self) -> Plan:
        """See ``Endpoint``."""
        return Plan([f"host: create TAP {self._nic.device}, mtu {self._mtu}, up"], [], [])

    @property
    def _mtu(self) -> int:
        """The MTU of the TAP."""
        return self._nic.mtu

    def _join(self, transport: LocalTransport, index: int) -> None:
        """Add the TAP with this interface index to its switch.

        :raise KernelError, ConflictError, HostError, DeadlineError: it was not added.
        """
        raise NotImplementedError

    def _silence(self) -> None:
        for name, value in _QUIET.items():
            path = f"/proc/sys/net/{name.format(self._nic.device)}"
            try:
                with open(path, "w", encoding="ascii") as file:
                    file.write(value)
            except OSError as error:
                # The file does not exist on a host without IPv6.
                if error.errno != errno.ENOENT:
                    raise HostError.of(f"cannot write {path}", error) from error
