"""A large OVN that exists in its databases only: chassis without hosts, with ports bound to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lab.namespace import run

if TYPE_CHECKING:
    from lab.central import Central

PORTS_OF_CHASSIS = 10
_PORTS_OF_NETWORK = 100
# Commands in one call: the kernel bounds a command line.
_BATCH = 250


class SimulatedOvn:
    """So many ports in networks of 100, as Neutron would write them, each bound to a chassis of 10."""

    def __init__(self, central: Central) -> None:
        self.ports = 0
        self._central = central

    @property
    def chassis(self) -> int:
        """How many there are."""
        return self.ports // PORTS_OF_CHASSIS

    def grow(self, ports: int) -> None:
        """Make it that large, and wait until the existing hosts have processed it."""
        numbers = range(self.ports, ports)
        chassis = range(self.chassis, ports // PORTS_OF_CHASSIS)
        self._southbound([["chassis-add", f"sim-{number}", "geneve", _tunnel_end(number)] for number in chassis])
        networks = [number for number in numbers if number % _PORTS_OF_NETWORK == 0]
        self._northbound([["ls-add", _network(number)] for number in networks])
        commands = []
        for number in numbers:
            name, addresses = _port(number), _addresses(number)
            commands.append(["lsp-add", _network(number), name])
            commands.append(["lsp-set-addresses", name, addresses])
            commands.append(["lsp-set-port-security", name, addresses])
        self._northbound(commands)
        self._central.nbctl("--wait=sb", "sync")
        self._bind(numbers)
        self.ports = ports
        self._central.settle()

    def _bind(self, numbers: range) -> None:
        """Bind each port to its chassis; ovn-sbctl's lsp-bind would search all ports for each."""
        chassis = self._identities("Chassis", "name")
        bindings = self._identities("Port_Binding", "logical_port")
        operations: list[object] = [
            {
                "op": "update",
                "table": "Port_Binding",
                "where": [["_uuid", "==", ["uuid", bindings[_port(number)]]]],
                "row": {"chassis": ["uuid", chassis[f"sim-{number // PORTS_OF_CHASSIS}"]], "up": True},
            }
            for number in numbers
        ]
        for start in range(0, len(operations), _BATCH):
            transaction = json.dumps(["OVN_Southbound", *operations[start : start + _BATCH]])
            answers = json.loads(run(["ovsdb-client", "transact", self._central.southbound, transaction]))
            wrong = [answer for answer in answers if answer.get("count") != 1]
            if wrong:
                raise RuntimeError(f"OVN's southbound database refused {wrong[0]}")

    def _identities(self, table: str, column: str) -> dict[str, str]:
        """The UUID of each row by its name."""
        found = json.loads(self._central.sbctl("--format=json", f"--columns={column},_uuid", "list", table))
        return {name: identity[1] for name, identity in found["data"]}

    def _northbound(self, commands: list[list[str]]) -> None:
        for batch in _batches(commands):
            self._central.nbctl(*batch)

    def _southbound(self, commands: list[list[str]]) -> None:
        for batch in _batches(commands):
            self._central.sbctl(*batch)


def _batches(commands: list[list[str]]) -> list[list[str]]:
    found = []
    for start in range(0, len(commands), _BATCH):
        words = [word for command in commands[start : start + _BATCH] for word in ("--", *command)]
        found.append(words[1:])
    return found


def _network(number: int) -> str:
    return f"sim-net-{number // _PORTS_OF_NETWORK}"


def _port(number: int) -> str:
    return f"sim-port-{number}"


def _addresses(number: int) -> str:
    high, low = divmod(number % _PORTS_OF_NETWORK + 10, 250)
    return f"0a:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x} 10.100.{high}.{low}"


def _tunnel_end(number: int) -> str:
    # Of the block for benchmarks (RFC 2544), to which no packet is sent: the ports do not exist.
    return f"198.18.{number >> 8}.{number & 255}"
