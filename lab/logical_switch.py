"""Logical switches, ports and rules in OVN's northbound database, as Neutron would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lab.central import Central


class LogicalPort(NamedTuple):
    """A port of a logical switch; ``name`` is what an interface's iface-id says."""

    name: str
    mac: str
    address: str


class LogicalSwitch:
    """A network of its own, 10.``number``.0.0/16, with addresses from OVN's DHCP."""

    def __init__(self, central: Central, name: str, number: int, mtu: int) -> None:
        self.name = name
        self.mtu = mtu
        self.gateway = f"10.{number}.0.1"
        self.ports: dict[str, LogicalPort] = {}
        self._central = central
        self._number = number
        cidr = f"10.{number}.0.0/16"
        central.nbctl("ls-add", name)
        self._dhcp = central.nbctl(
            "create", "DHCP_Options", f"cidr={cidr}",
            f"options:server_id={self.gateway}", f'options:server_mac="02:00:{number:02x}:00:00:01"',
            "options:lease_time=3600", f"options:router={self.gateway}", f"options:mtu={mtu}",
        )  # fmt: skip

    def add_ports(self, *names: str) -> list[LogicalPort]:
        """Ports with a MAC, an address, and no right to send with others (port security)."""
        made = []
        words: list[str] = []
        for name in names:
            index = len(self.ports) + 10
            high, low = divmod(index, 250)
            port = LogicalPort(
                name, f"02:01:{self._number:02x}:00:{high:02x}:{low:02x}", f"10.{self._number}.{high}.{low}"
            )
            addresses = f"{port.mac} {port.address}"
            words += ["lsp-add", self.name, name, "--", "lsp-set-addresses", name, addresses, "--"]
            words += ["lsp-set-port-security", name, addresses, "--", "lsp-set-dhcpv4-options", name, self._dhcp, "--"]
            self.ports[name] = port
            made.append(port)
        self._central.nbctl("--wait=sb", *words[:-1])
        return made

    def allow_any_address(self, port: LogicalPort) -> None:
        """Let ``port`` send and get packets with others' addresses, as a router does."""
        self._central.nbctl("--wait=sb", "lsp-set-port-security", port.name, "")

    def delete(self) -> None:
        """Delete it with all that is in it."""
        self._central.nbctl("--wait=hv", "ls-del", self.name, "--", "destroy", "DHCP_Options", self._dhcp)
