"""Random command lines through ours and the real ipvsadm: both take the same, and make the same table."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kata_runtime.errors import KataError
from kata_runtime.ipvs.commands import read_command, run_ipvsadm

if TYPE_CHECKING:
    from tests.system.ipvs.conftest import Balancer

_LINES = 450
_CHUNK = 50
_SERVICES = (
    "-t 10.0.0.1:80",
    "-t10.0.0.2:80",
    "-u 10.0.0.1:53",
    "-t [fd00::1]:80",
    "--sctp-service=10.0.0.1:9",
    "-f 7",
    "-f 7 -6",
)
_WRONG_SERVICES = ("-t 10.0.0.1:65536", "-t 300.0.0.1:80", "-t nohost:80", "-f 0", "", "-t 10.0.0.1:0", "-t [fd00::1]")
# All with ports: without one the real program gives a NAT server port 0, ours that of its service.
_SERVERS = ("10.1.0.1:80", "10.1.0.2:8080", "10.1.0.3:80", "10.1.0.1:443")
_SERVERS6 = ("[fd00::11]:80", "[fd00::12]:8080")
_WRONG_SERVERS = ("10.1.0.1:99999", "nohost", "[fd00::11", "10.1.0.1:x")


def _pick(choice: random.Random, right: tuple[str, ...], wrong: tuple[str, ...]) -> str:
    return choice.choice(wrong if choice.random() < 0.06 else right)


def _line(choice: random.Random) -> str:
    """A command line of which most are valid; forwarding is always given, since ours has another default."""
    service = _pick(choice, _SERVICES, _WRONG_SERVICES)
    is_six = "[" in service or service.endswith("-6")
    command = choice.choices(("-A", "-E", "-D", "-a", "-e", "-d", "-Z"), (5, 2, 1, 8, 3, 2, 1))[0]
    parts = [service]
    if command in ("-A", "-E"):
        parts.append(_pick(choice, ("-s rr", "-s wlc", "--scheduler=sh", "-ssed", "", "-s mh"), ("-s nosuch", "-w 3")))
        parts.append(_pick(choice, ("", "-p", "-p 300", "--persistent=60"), ("-p 0", "-p x", "-p 9999999")))
        parts.append(choice.choice(("", "", "", "-o")))
        if not is_six:
            parts.append(choice.choice(("", "", "-M 255.255.255.0", "-M 0.0.0.0")))
    elif command in ("-a", "-e", "-d"):
        servers = _SERVERS6 if is_six else _SERVERS
        parts.append(f"-r {_pick(choice, servers, _WRONG_SERVERS)}" if choice.random() > 0.03 else "")
        if command != "-d":
            parts.append(choice.choice(("-m", "--masquerading", "-g", "-i", "--ipip")))
            parts.append(_pick(choice, ("", "-w 5", "--weight=0", "-w65535"), ("-w -1", "-w x")))
            parts.append(choice.choice(("", "", "-x 100 -y 50", "-x 20")))
    rest = [part for part in parts if part]
    choice.shuffle(rest)
    if "-p" in rest:
        # Before another option the real program takes that for the number of seconds; ours does not.
        rest.remove("-p")
        rest.append("-p")
    return " ".join([command, *rest])


def _ours(balancer: Balancer, lines: list[str]) -> list[bool]:
    taken = []
    with balancer.sandbox.session() as session:
        for line in lines:
            try:
                run_ipvsadm(session, read_command(line), output=print, fmt="text")
            except KataError:
                taken.append(False)
            else:
                taken.append(True)
    return taken


# What -S leaves out, the thresholds, is in the listing.
_SHOW = "ipvsadm -Sn; echo; ipvsadm -Ln --thresholds\n"


def _real(balancer: Balancer, lines: list[str], start: str) -> tuple[list[bool], str]:
    """What the real program takes of ``lines``, and the table and listing they make of ``start``; it is put back."""
    put_start = f"ipvsadm -C\nipvsadm -R <<end\n{start}end\n"
    tried = "".join(f"ipvsadm {line} >/dev/null 2>&1; echo $?\n" for line in lines)
    done = balancer.sandbox.guest("sh", "-s", stdin=f"{put_start}{tried}echo\n{_SHOW}{put_start}")
    assert (done.returncode, done.stderr) == (0, "")
    statuses, _, shown = done.stdout.partition("\n\n")
    return [status == "0" for status in statuses.split()], shown


def test_random_lines(balancer: Balancer) -> None:
    """450 command lines, valid and not: acceptance, table and listing agree throughout."""
    choice = random.Random(131)
    accepted = 0
    table = ""
    for _ in range(_LINES // _CHUNK):
        lines = [_line(choice) for _ in range(_CHUNK)]
        real, expected = _real(balancer, lines, table)
        ours = _ours(balancer, lines)
        assert list(zip(lines, ours, strict=True)) == list(zip(lines, real, strict=True))
        shown = balancer.sandbox.guest("sh", "-s", stdin=_SHOW)
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, expected, "")
        accepted += sum(real)
        table, _, _ = expected.rpartition("\n\n")
        table += "\n" if table else ""
    assert _LINES * 0.25 < accepted < _LINES * 0.95
