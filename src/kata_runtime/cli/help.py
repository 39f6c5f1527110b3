"""The texts of ``--help``; imported only on request."""

from __future__ import annotations

import re
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING

from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS, PROGRAM, Command, Option
from kata_runtime.cli.help_paragraphs import parts_of, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH_MAX = 100
# A blank at which no line is broken, as in "--name NIC".
_BLANK = "\N{NO-BREAK SPACE}"
_BRACKETS = re.compile(r"\[[^\[\]]*\]")

_NIC = """\
FILE (- is standard input) holds one JSON object:
  {"device": "tap_test",     host TAP, or the label of a vhost-user NIC
   "name": "eth-test",       name in the container
   "hwAddr": "02:42:20:6f:a3:69",
   "mtu": 1500,              46-9600; Linux: 68 or more, with IPv6 1280
   "IPAddresses": [          optional, IPv4 and IPv6
      {"address": "172.16.0.3", "mask": "16"}],
   "queues": 2,              optional, queue pairs, 0-256
   "offload": false,         optional, needed with a user-space switch
   "dhcp": true,             optional, the IPv4 address comes by DHCP
   "vhostUserSocket": "/run/vhost/socket"}   optional

Prints the NIC and its PCI address, "pciAddr"; null when it fails."""
_ROUTE = """\
FILE (- is standard input) holds one JSON object or a list of them:
  {"dest": "default",          or an address, or address/prefix length
   "gateway": "172.16.0.1",    needed with default
   "device": "eth-test"}       name in the container
"""
_PORT = """\
PORT is the UUID or name of a port of Neutron, whose MAC and IP addresses, MTU and routes the NIC gets; clouds.yaml and
OS_* variables say where Neutron is, as for every client of OpenStack. A port that is bound to another host is taken
over only with --migrate.

With --bridge or --ovs FILE (- is standard input) holds the JSON of add-iface without "device": the TAP is made here,
plugged in, and deleted with the NIC. ovsdb-server is found by --ovsdb or [network] ovsdb.

Prints the NIC as add-iface does, and its "port"; null when it fails."""
GROUPS = {
    "kata-network": "NICs and routes of a running container",
    "kata-ipvs": "virtual servers and tracked connections of a running container",
    "image": "the kernel and root file system that guests boot, and templates of booted machines",
    "completion": "completion of command lines in shells",
}
DETAILS = {
    "kata-network add-iface": _NIC,
    "kata-network add-port": _PORT,
    "kata-network list-ports": """\
Prints the ports in the order they were added, null for none:
  [{"port":"kt0123456789","name":"eth0","device":"kt0123456789",
    "kind":"bridge","bridge":"br0","mac":"02:42:20:6f:a3:69",
    "ip":["172.16.0.3/16"],"mtu":1500}]""",
    "kata-network del-port": """\
PORT is the "port" that add-port printed, the name given to it, or the NIC's name in the container.

Prints null. What remains in Open vSwitch or Neutron because it does not answer is named on standard error.""",
    "kata-network list-ifaces": """\
Prints the NICs in the order they were added, null for none:
  [{"name":"eth-test","mac":"02:42:20:6f:a3:69",
    "ip":["172.16.0.3/16"],"mtu":1500}]""",
    "kata-network del-iface": """\
FILE (- is standard input) holds one JSON object; only its name is used:
  {"name": "eth-test"}
--name eth-test can replace the file.

Prints null; when it fails and the NIC is still there, the NIC. The host's TAP stays.""",
    "kata-network add-route": _ROUTE + "\nPrints the routes as given; null when it fails.",
    "kata-network del-route": _ROUTE
    + "\nOnly dest is needed. Every route that matches all given fields is deleted. Prints the fields as given.",
    "kata-network list-routes": """\
Prints the routes, IPv4 before IPv6, null for none:
  [{"dest":"172.16.0.0/16","gateway":"","device":"eth-test"}]""",
    "kata-network update-routes": _ROUTE
    + '\nnull is an empty list; "Source" and "Scope" are used, too. Prints the resulting routes.',
    "kata-network show": """\
Draws each NIC from the guest's addresses over the host's device to the bridge or port of Open vSwitch, with live rates,
and the routes:
  kata-runtime kata-network show web
  kata-runtime kata-network show --format svg > network.svg
It needs Rich, and for SVG Graphviz.""",
    "kata-ipvs top": """\
Keys: n a i c b w order by address, active and inactive connections, connections a second, bytes a second and weight;
r reverses, arrows and pages scroll, q quits. It needs Rich.""",
    "metrics": """\
  kata-runtime metrics --listen 9410
  kata-runtime metrics \\
    --textfile /var/lib/prometheus/node-exporter/kata.prom
A container that another command holds is reported as busy after half a second. It needs the Prometheus client.""",
    "kata-ipvs ipvsadm": """\
Give --parameters or --restore:
  kata-runtime kata-ipvs ipvsadm --parameters "-A -t 10.0.0.1:80" web
  kata-runtime kata-ipvs ipvsadm \\
    --parameters "-a -t 10.0.0.1:80 -r 10.0.0.2:80" web
  kata-runtime kata-ipvs ipvsadm --parameters "--list" web
  kata-runtime kata-ipvs ipvsadm --restore rules.txt web
Addresses and ports are numeric; forwarding of a single command defaults to NAT.""",
    "kata-ipvs cleanup": """\
  kata-runtime kata-ipvs cleanup --parameters "-d 10.0.0.1 -p tcp" web
Reports the number of deleted entries on standard error; none is success.""",
    "image build": """\
Packages come from the Debian release that this host's apt is set up for, 12 or 13; nothing is installed. What the image
needs and this host has not downloaded yet is fetched. An image that is there is replaced in one step by a complete one.

Another release, by an apt configuration of its own (see apt.conf(5)):
  APT_CONFIG=/root/trixie/apt.conf \\
    kata-runtime image build --destination /root/trixie/image""",
    "run": """\
The ID is printed when the guest's agent answers; without one, 64 random hexadecimal digits are made. The first
container boots its guest and keeps the booted machine as a template, from which later ones start.""",
    "exec": "Input, output, exit status and signals pass through; so do all words after ID.",
    "kill": "SIGNAL is a name (TERM, SIGKILL) or a number.",
    "kata-check": "Each finding is printed with its remedy. The exit status is 0 when sandboxes can run.",
    "completion bash": """\
Packages install it. By hand:
  kata-runtime completion bash > /etc/bash_completion.d/kata-runtime""",
    "completion zsh": """\
Packages install it. By hand, into a directory of zsh's fpath:
  kata-runtime completion zsh > \\
    /usr/local/share/zsh/site-functions/_kata-runtime""",
    "completion fish": """\
Packages install it. By hand:
  kata-runtime completion fish > \\
    /etc/fish/completions/kata-runtime.fish""",
    "completion candidates": """\
WORDs are those after kata-runtime. Prints a line for each candidate, with a tab and its meaning, or :files or
:directories, which the shell completes itself. Without candidates, or after an error, it prints nothing.""",
}


def help_text(words: tuple[str, ...]) -> str:
    """The text of ``--help`` for a command, a group of commands, or (no words) the program."""
    width = min(get_terminal_size().columns, _WIDTH_MAX)
    commands = [command for command in COMMANDS if command.words[: len(words)] == words]
    if len(commands) == 1 and commands[0].words == words:
        return "\n".join(_of_command(commands[0], width))
    before = " ".join((PROGRAM, *words))
    lines = [f"usage: {before if words else before + ' [OPTION...]'} COMMAND ...", ""]
    if words:
        lines += [*_wrapped(sentence(GROUPS[words[0]]), width), ""]
    lines += ["commands:", *_columns([(command.name, command.summary) for command in commands], width)]
    if not words:
        options = [*_rows(GLOBAL_OPTIONS), ("--version", "print the version")]
        lines += ["", "options:", *_columns(options, width)]
        lines += ["", "A <container-id> is a full ID or any unambiguous beginning of one."]
    lines += ["", f"{before} COMMAND --help describes one command."]
    return "\n".join(lines)


def _of_command(command: Command, width: int) -> list[str]:
    usage = _BRACKETS.sub(lambda found: found[0].replace(" ", _BLANK), command.usage)
    lines = [*_wrapped(f"usage: {usage}", width, 9), "", *_wrapped(sentence(command.summary), width)]
    for parts in parts_of(DETAILS[command.name]) if command.name in DETAILS else ():
        lines.append("")
        for is_literal, texts in parts:
            lines += [f"  {text}" for text in texts] if is_literal else _wrapped(" ".join(texts), width)
    if command.options:
        lines += ["", "options:", *_columns(_rows(command.options), width)]
    return lines


def _rows(options: Sequence[Option]) -> list[tuple[str, str]]:
    return [
        (
            f"{option.short}, " * bool(option.short) + option.name + f" {option.metavar}" * bool(option.metavar),
            option.help,
        )
        for option in options
    ]


def _columns(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names and their descriptions, which are wrapped in a column of their own."""
    column = max(len(name) for name, _ in rows)
    return [
        line
        for name, text in rows
        for line in _wrapped(f"  {name.replace(' ', _BLANK):{column}}  {text}", width, column + 4)
    ]


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    lines = wrap(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_BLANK, " ") for line in lines]
