"""Ports of Open vSwitch on this host, read from its database by ovs-vsctl(8)."""

from __future__ import annotations

import json
import shutil
import subprocess

from kata_runtime.errors import HostError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_SECONDS = 5


class SwitchPort(NamedTuple):
    """A port of a bridge of Open vSwitch; ``datapath`` is "system" or "netdev" (user space).

    ``socket`` is the socket of a vhost-user port; ``tag`` the VLAN, 0 for none; ``link`` is "up", "down" or empty;
    ``error`` is Open vSwitch's message on why the port does not work.
    """

    bridge: str
    datapath: str
    name: str
    kind: str
    tag: int = 0
    socket: str = ""
    link: str = ""
    error: str = ""


def switch_ports(addresses: Iterable[str]) -> list[SwitchPort]:
    """All ports of all bridges in the databases at ``addresses``; none where Open vSwitch is not installed or running.

    :raise HostError: a database does not answer properly.
    """
    program = shutil.which("ovs-vsctl")
    if program is None:
        return []
    return [port for address in dict.fromkeys(addresses) for port in _ports_of(program, address)]


def _ports_of(program: str, address: str) -> list[SwitchPort]:
    argv = [program, f"--db={address}", "--no-wait", f"--timeout={_SECONDS}", "--format=json"]
    tables = []
    for table, columns in (
        ("Bridge", "name,datapath_type,ports"),
        ("Port", "_uuid,tag,interfaces"),
        ("Interface", "_uuid,name,type,options,link_state,error"),
    ):
        try:
            done = subprocess.run(
                [*argv, f"--columns={columns}", "list", table],
                capture_output=True,
                timeout=2 * _SECONDS,
                check=False,
                text=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise HostError(f"ovs-vsctl cannot be run: {error}") from error
        if done.returncode != 0:
            # Installed but not running: no container can have a port in it.
            return []
        tables.append(done.stdout)
    return ports_in(*tables)


def ports_in(bridges: str, ports: str, interfaces: str) -> list[SwitchPort]:
    """The ports in the three tables as ovs-vsctl prints them with --format=json (RFC 7047, section 5.1, for values).

    :raise HostError: they are not in that format.
    """
    try:
        by_port = {str(row["_uuid"][1]): row for row in _rows(ports)}
        by_interface = {str(row["_uuid"][1]): row for row in _rows(interfaces)}
        return [
            _port(bridge, by_port[port], by_interface[interface])
            for bridge in _rows(bridges)
            for port in _references(bridge["ports"])
            for interface in _references(by_port[port]["interfaces"])
        ]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise HostError(f"ovs-vsctl prints what is no table of its database: {error}") from error


def _port(bridge: Mapping[str, Any], port: Mapping[str, Any], interface: Mapping[str, Any]) -> SwitchPort:
    options = interface["options"]
    pairs = dict(options[1]) if isinstance(options, list) else {}
    tag = port["tag"]
    return SwitchPort(
        bridge=str(bridge["name"]),
        datapath=str(bridge["datapath_type"]) or "system",
        name=str(interface["name"]),
        kind=str(interface["type"]) or "system",
        tag=tag if isinstance(tag, int) else 0,
        socket=str(pairs.get("vhost-server-path", "")),
        link=_optional_text(interface["link_state"]),
        error=_optional_text(interface["error"]),
    )


def _rows(text: str) -> Iterator[Mapping[str, Any]]:
    document = json.loads(text)
    for row in document["data"]:
        yield dict(zip(document["headings"], row, strict=True))


def _references(value: Any) -> list[str]:
    """UUIDs of ``["uuid", ID]`` or ``["set", [["uuid", ID], ...]]``."""
    if value[0] == "uuid":
        return [str(value[1])]
    return [str(each[1]) for each in value[1]]


def _optional_text(value: object) -> str:
    """A column that may hold no value, which is an empty set."""
    return value if isinstance(value, str) else ""
