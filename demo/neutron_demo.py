"""Two hosts, a network of OpenStack Neutron and two containers that talk: `make demo-neutron`.

Neutron, OVN and Open vSwitch are real; the hosts are network namespaces. All of it is removed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from demo.stage import PROGRAM, explain, performed, show, typed
from lab.neutron_lab import running_neutron
from lab.ovn_lab import ovn_lab

if TYPE_CHECKING:
    from contextlib import ExitStack

    from lab.host import Host
    from lab.neutron_lab import Document, Neutron

_SHOWN = ("id", "name", "mac_address", "fixed_ips", "cidr", "mtu", "status", "binding:host_id", "binding:vif_type")


class Operator:
    """Somebody at a host, with that host's containers."""

    def __init__(self, stack: ExitStack, host: Host, neutron: Neutron) -> None:
        self.host = host
        self._root = Path(tempfile.mkdtemp(prefix="kata-demo-"))
        stack.callback(shutil.rmtree, self._root)
        self._config = self._root / ".configuration.toml"
        self._config.write_text(f'[network]\novsdb = "{host.ovsdb}"\n')
        self._prompt = f"{host.name.rpartition('-')[2]}#"
        variables = [f"OS_CLIENT_CONFIG_FILE={neutron.clouds}", "OS_CLOUD=lab"]
        self._prefix = [*host.namespace.prefix, "env", *variables]

    def type(self, command: str) -> str:
        """Show a command line and its output; the output."""
        options = f"--root {self._root} --kata-config {self._config}"
        return typed(self._prompt, command, self._prefix, options)

    def end(self, container: str) -> None:
        """Remove a container, also after a failed step."""
        argv = [*self._prefix, str(PROGRAM), "--root", str(self._root), "--kata-config", str(self._config)]
        subprocess.run([*argv, "delete", "--force", container], stderr=subprocess.DEVNULL, check=False)


def create(neutron: Neutron, kind: str, **fields: object) -> Document:
    """Show a request to Neutron's API and what matters of its answer."""
    show("neutron>", f"POST /v2.0/{kind}s {json.dumps(fields)}")
    made = neutron.create(kind, **fields)
    print(json.dumps({key: made[key] for key in _SHOWN if key in made}))
    return made


def story(stack: ExitStack) -> None:
    """Network, ports, containers, packets, a move, and the end."""
    explain(
        "1. OVN's databases and northd; two hosts, each with Open vSwitch in user space and ovn-controller; a network\n"
        "   between them, which carries tunnels (Geneve); and Neutron with MariaDB. This takes some 15 s."
    )
    lab = stack.enter_context(ovn_lab(f"kd{os.getpid()}"))
    neutron = stack.enter_context(running_neutron(lab))
    first, second = (Operator(stack, host, neutron) for host in lab.hosts)
    print(lab.central.sbctl("show"))
    explain("2. A tenant's network, with an address range and two ports. Neutron chooses MAC, address and MTU.")
    network = create(neutron, "network", name="private")
    create(neutron, "subnet", network_id=network["id"], ip_version=4, cidr="10.20.0.0/24", name="private-v4")
    ports = [create(neutron, "port", network_id=network["id"], name=name) for name in ("web", "db")]
    explain("3. A container on each host: a virtual machine with no network yet.")
    for operator in (first, second):
        name = "web" if operator is first else "db"
        stack.callback(operator.end, name)
        operator.type(f"kata-runtime run --detach {name}")
    explain(
        "4. One command a port: it asks Neutron, binds the port to this host, makes a TAP, plugs it into the switch,\n"
        "   adds the NIC to the running machine, configures it in the guest, and waits until Neutron says ACTIVE."
    )
    first.type("kata-runtime kata-network add-port web web")
    second.type("kata-runtime kata-network add-port db db")
    second.type("kata-runtime kata-network list-ports db")
    for port in ports:
        seen = neutron.show("port", port["id"])
        print(json.dumps({key: seen[key] for key in _SHOWN if key in seen}))
    explain(
        "5. The containers talk, through the tunnel between their hosts. (The first packet waits for ARP and is lost.)"
    )
    address = ports[1]["fixed_ips"][0]["ip_address"]
    first.type(f"kata-runtime exec web ping -c 4 -i 0.3 {address}")
    print(lab.central.sbctl("show"))
    explain("6. The database's port moves to the other host, into the container there, with its address.")
    first.type("kata-runtime kata-network add-port web db --name moved --migrate")
    first.type("kata-runtime kata-network list-ifaces web")
    explain("7. Ports go while the containers run on; Neutron keeps them, unbound, for the next container.")
    first.type("kata-runtime kata-network del-port web db")
    first.type("kata-runtime kata-network del-port web web")
    for port in ports:
        seen = neutron.show("port", port["id"])
        print(json.dumps({key: seen[key] for key in _SHOWN if key in seen}))
    first.type("kata-runtime delete --force web")
    second.type("kata-runtime delete --force db")


if __name__ == "__main__":
    sys.exit(performed(story))
