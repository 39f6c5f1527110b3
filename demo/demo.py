"""Shows the main commands, each with its output: `make demo`.

Everything is made in network namespaces of its own and removed at the end.
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

from demo.stage import PROGRAM, DemoError, explain, performed, typed

if TYPE_CHECKING:
    from contextlib import ExitStack


class Stage:
    """Two namespaces: the host, where the operator types, and a client on the same bridge."""

    def __init__(self, stack: ExitStack) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kata-demo-"))
        stack.callback(shutil.rmtree, self.root)
        self.host, self.client = (f"kata-demo-{name}-{os.getpid()}" for name in ("host", "client"))
        for name in (self.host, self.client):
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)

    def type(self, command: str, *, stdin: str | None = None, where: str | None = None) -> str:
        """Show a command line and its output, as the operator sees them; the output."""
        place = where or self.host
        prompt = "client#" if place == self.client else "host#"
        return typed(prompt, command, ["ip", "netns", "exec", place], f"--root {self.root}", stdin=stdin)


def wire_up(stage: Stage) -> None:
    """What an operator, or Neutron, does: make a TAP on a bridge, and a client."""
    stage.type("ip link add br0 type bridge && ip link set br0 up")
    stage.type("ip tuntap add tap_test mode tap && ip link set tap_test master br0 up")
    wire = f"ip -n {stage.host} link add to-client master br0 up type veth peer name eth0 netns {stage.client}"
    subprocess.run(wire.split(), check=True)
    stage.type("ip address add 172.16.0.1/16 dev eth0 && ip link set eth0 up", where=stage.client)


def story(stage: Stage) -> None:
    """Boot, add, ping, route, delete."""
    explain("1. A secure container is a virtual machine. This boots one and prints its ID when its agent answers.")
    stage.type("kata-runtime run --detach demo")
    stage.type("kata-runtime list")
    explain("2. It has no network yet. The host gets a bridge with a TAP on it, and a client beside it.")
    wire_up(stage)
    explain("3. The TAP becomes a NIC of the running container, configured and up.")
    nic = {
        "device": "tap_test",
        "name": "eth-test",
        "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
        "hwAddr": "02:42:20:6e:03:01",
        "mtu": 1500,
    }
    stage.type("kata-runtime kata-network add-iface demo -", stdin=json.dumps(nic))
    stage.type("kata-runtime kata-network list-ifaces demo")
    explain("4. The client reaches the container through the bridge: real packets, real replies.")
    stage.type("ping -n -c 3 172.16.0.3", where=stage.client)
    explain("5. The client also owns 203.0.113.7, which the container cannot know: a route tells it.")
    stage.type("ip address add 203.0.113.7/32 dev eth0", where=stage.client)
    route = {"dest": "203.0.113.0/24", "gateway": "172.16.0.1", "device": "eth-test"}
    stage.type("kata-runtime kata-network add-route demo -", stdin=json.dumps(route))
    stage.type("kata-runtime kata-network list-routes demo")
    stage.type("kata-runtime exec demo ping -c 2 203.0.113.7")
    explain("6. It can balance connections, with the grammar and the listings of ipvsadm.")
    service = "-t 172.16.0.3:80"
    stage.type(f'kata-runtime kata-ipvs ipvsadm --parameters "-A {service} -s rr" demo')
    stage.type(f'kata-runtime kata-ipvs ipvsadm --parameters "-a {service} -r 172.16.0.1:8080" demo')
    stage.type('kata-runtime kata-ipvs ipvsadm --parameters "-L" demo')
    explain("7. The NIC goes while the container runs on; the TAP stays, it is the operator's.")
    stage.type("kata-runtime kata-network del-iface demo -", stdin='{"name":"eth-test"}')
    stage.type("kata-runtime kata-network list-ifaces demo")
    explain("8. The container is shut down and removed without a trace.")
    stage.type("kata-runtime kill demo")
    stage.type("kata-runtime delete demo")
    if stage.type("kata-runtime list --quiet"):
        raise DemoError("the container is still listed")


def main(stack: ExitStack) -> None:
    """Run the demonstration in namespaces of its own."""
    stage = Stage(stack)
    # Also when a step fails, the container is deleted.
    end = [str(PROGRAM), "--root", str(stage.root), "delete", "--force", "demo"]
    stack.callback(subprocess.run, end, stderr=subprocess.DEVNULL, check=False)
    story(stage)


if __name__ == "__main__":
    sys.exit(performed(main))
