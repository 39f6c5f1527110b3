"""A host: a network namespace with Open vSwitch in user space and OVN's controller."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lab.daemon import Daemon, explained
from lab.namespace import HostNamespace, made_namespace, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.central import Central
    from lab.underlay import Underlay

INTEGRATION_BRIDGE = "br-int"
_PHYSICAL_BRIDGE = "br-phy"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_UPLINK = "uplink"
WAIT_SECONDS = 30


class Host:
    """A host of the lab. ``name`` is that of its namespace, its chassis, and its host name for OVN and Neutron."""

    def __init__(self, name: str, namespace: HostNamespace, directory: Path, address: str, central: Central) -> None:
        self.name = name
        self.namespace = namespace
        self.directory = directory
        self.address = address
        self.ovsdb = f"unix:{directory}/db.sock"
        self._central = central
        self._environment = {
            "OVS_RUNDIR": str(directory), "OVS_LOGDIR": str(directory), "OVS_DBDIR": str(directory),
            "OVN_RUNDIR": str(directory), "OVN_LOGDIR": str(directory),
        }  # fmt: skip
        database = ["ovsdb-server", str(directory / "conf.db"), f"--remote=punix:{directory}/db.sock"]
        self.database = self._daemon("ovsdb-server", database)
        self.switch = self._daemon("ovs-vswitchd", ["ovs-vswitchd", self.ovsdb])
        self.controller = self._daemon("ovn-controller", ["ovn-controller", self.ovsdb])
        self.daemons = [self.database, self.switch, self.controller]

    def _daemon(self, name: str, arguments: list[str]) -> Daemon:
        return Daemon(name, self.directory, arguments, self._environment, self.namespace.prefix)

    def vsctl(self, *words: str) -> str:
        """Change or ask the switch's database, and wait until the switch has done it: ovs-vsctl(8).

        :raise LabError: it failed; after ``WAIT_SECONDS`` with what the host's daemons are doing
        """
        argv = ["ovs-vsctl", f"--db={self.ovsdb}", f"--timeout={WAIT_SECONDS}", *words]
        with explained(self.daemons):
            return self.namespace.run(*argv, environment=self._environment).strip()

    def ports(self) -> list[str]:
        """Ports of the integration bridge that are not OVN's own (tunnels, patches)."""
        names = self.vsctl("list-ports", INTEGRATION_BRIDGE).split()
        return [name for name in names if not name.startswith(("ovn-", "patch-"))]

    def interface(self, name: str) -> dict[str, str]:
        """The external_ids of an interface of the switch."""
        rows = json.loads(self.vsctl("--format=json", "--columns=external_ids", "find", "Interface", f"name={name}"))[
            "data"
        ]
        return dict(rows[0][0][1]) if rows else {}

    def is_installed(self, name: str) -> bool:
        """Whether OVN's controller has installed the flows of an interface of the switch."""
        return self.interface(name).get("ovn-installed") == "true"

    def plug(self, device: str, port: str, mac: str) -> None:
        """Make ``device``, which exists, the logical port ``port``, and wait until OVN has installed its flows."""
        self.vsctl(
            "add-port", INTEGRATION_BRIDGE, device, "--", "set", "Interface", device,
            f"external_ids:iface-id={port}", f"external_ids:attached-mac={mac}",
        )  # fmt: skip
        self.wait_installed(device)

    def wait_installed(self, device: str) -> None:
        """Wait until ``is_installed``."""
        self.vsctl("wait-until", "Interface", device, 'external_ids:ovn-installed="true"')

    def unplug(self, device: str) -> None:
        """Take ``device`` off the switch."""
        self.vsctl("--if-exists", "del-port", INTEGRATION_BRIDGE, device)

    def restart_switch(self) -> None:
        """Kill ovs-vswitchd, restart it, and restore the address of the bridge's own interface, which it deletes."""
        self.switch.restart()
        self._hide_zero_nat()
        self.raise_underlay()

    def raise_underlay(self) -> None:
        """Give the physical bridge's own interface the address that tunnels end at; it is a TAP of ovs-vswitchd's."""
        self.namespace.ip(f"address replace {self.address}/24 dev {_PHYSICAL_BRIDGE}")
        self.namespace.ip(f"link set {_PHYSICAL_BRIDGE} up")
        self.namespace.run("ethtool", "-K", _PHYSICAL_BRIDGE, "tx", "off")

    def configure(self) -> None:
        """Make both bridges and say where OVN's central part is."""
        facts = {
            "system-id": self.name, "hostname": self.name, "ovn-remote": self._central.southbound,
            "ovn-encap-type": "geneve", "ovn-encap-ip": self.address, "ovn-bridge": INTEGRATION_BRIDGE,
            "ovn-bridge-datapath-type": "netdev",
        }  # fmt: skip
        self.vsctl("--no-wait", "init")
        self.vsctl(
            "--no-wait", "set", "Open_vSwitch", ".", *(f"external_ids:{key}={value}" for key, value in facts.items())
        )
        self.switch.start()
        # The Datapath, which ovn-controller would create, is for _hide_zero_nat.
        self.vsctl(
            "--id=@netdev", "create", "Datapath", 'datapath_version=""',
            "--", "set", "Open_vSwitch", ".", "datapaths:netdev=@netdev",
            "--", "add-br", INTEGRATION_BRIDGE, "--", "set", "Bridge", INTEGRATION_BRIDGE,
            "datapath_type=netdev", "fail_mode=secure",
            "--", "add-br", _PHYSICAL_BRIDGE, "--", "set", "Bridge", _PHYSICAL_BRIDGE,
            "datapath_type=netdev", "fail_mode=standalone", "--", "add-port", _PHYSICAL_BRIDGE, _UPLINK,
        )  # fmt: skip
        self._hide_zero_nat()
        self.raise_underlay()

    def _hide_zero_nat(self) -> None:
        """Keep OVN from translating connections to their own addresses, which ends ovs-vswitchd.

        OVN (23.03) does that with all connections that its rules track ("nat(src)" in its flows) if the switch reports
        the capability. Open vSwitch 3.1 in user space then holds two entries for a connection. When a client whose
        connection was refused uses its port again, the first entry is taken as expired, the packet finds the second,
        and an assertion fails (lib/conntrack.c: conn_update_state). Later versions hold one entry. ovs-vswitchd reports
        its capabilities once, when it starts.
        """
        datapath = self.vsctl("get", "Open_vSwitch", ".", "datapaths:netdev")
        self.vsctl("set", "Datapath", datapath, "capabilities:ct_zero_snat=false")


@contextmanager
def running_host(name: str, directory: Path, number: int, central: Central, underlay: Underlay) -> Iterator[Host]:
    """The ``number``-th host on ``underlay``, registered as a chassis; ``directory`` must be empty."""
    with ExitStack() as stack:
        namespace = stack.enter_context(made_namespace(name))
        host = Host(name, namespace, directory, underlay.connect(namespace, number, _UPLINK), central)
        run(["ovsdb-tool", "create", str(directory / "conf.db"), _SCHEMA])
        for daemon in host.daemons:
            stack.callback(daemon.end)
        host.database.start()
        host.configure()
        host.controller.start()
        central.sbctl("wait-until", "Chassis", name, f"name={name}")
        yield host
