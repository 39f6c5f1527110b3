"""The parts of the command line by themselves: answers, log, arguments that are checked before a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.typed_addresses import given_address, interface_address, mac

import kata_runtime
from kata_runtime.cli import log, network_json
from kata_runtime.cli.argument_parser import Call, parse
from kata_runtime.cli.check_commands import Finding, Verdict, find
from kata_runtime.cli.lifecycle_commands import signal_of
from kata_runtime.errors import HostError, UsageError
from kata_runtime.network.guest_nic import NicState
from kata_runtime.network.interfaces import AddedNic
from kata_runtime.network.request_fields import GivenAddress
from kata_runtime.sandbox.config import Config
from kata_runtime.sandbox.record import NicRecord

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

_ADDRESSES = (given_address("173.85.100.1/24"), GivenAddress(interface_address("fd00::1/64"), "FD00:0::1/64"))
_NIC = NicRecord("eth-test", "tap_test", mac("02:42:20:6e:03:01"), 1500, tuple(given.value for given in _ADDRESSES), 0)
_SHOWN = (
    '{"device":"tap_test","name":"eth-test","IPAddresses":['
    '{"Family":2,"Address":"173.85.100.1","Mask":"24"},{"Family":10,"Address":"FD00:0::1","Mask":"64"}'
    '],"mtu":1500,"hwAddr":"02:42:20:6e:03:01"'
)
_CANONICAL = _SHOWN.replace("FD00:0::1", "fd00::1")


def test_added_tap() -> None:
    """A NIC that was added is shown as given, both families, and with its place."""
    assert network_json.added_nic(AddedNic("01.0/00", _ADDRESSES), _NIC) == _SHOWN + ',"pciAddr":"01.0/00"}'


def test_added_vhost_user() -> None:
    """Socket, queues, offload and dhcp follow the MAC address when they were given."""
    nic = _NIC._replace(vhost_user_socket="/run/back", queues=2, offload=False, dhcp=True)
    assert network_json.added_nic(AddedNic("04.7/00", _ADDRESSES), nic) == (
        _SHOWN + ',"vhostUserSocket":"/run/back","queues":2,"offload":false,"dhcp":true,"pciAddr":"04.7/00"}'
    )


@pytest.mark.parametrize(("socket", "kind"), [("", "tap"), ("/run/back", "vhost-user")])
def test_remaining_nic(socket: str, kind: str) -> None:
    """A NIC that could not be removed is shown with its kind of link."""
    left = network_json.remaining_nic(_NIC._replace(vhost_user_socket=socket))
    assert left == f'{_CANONICAL},"linkType":"{kind}"}}'


def test_lists() -> None:
    """Lists are one line in the given order; an empty one is null."""
    nics = [
        NicState("eth0", mac("02:00:00:00:00:01"), 1500, (interface_address("172.16.0.3/16"),)),
        NicState("eth1", mac("02:00:00:00:00:02"), 68, ()),
    ]
    assert network_json.listed_nics(nics) == (
        '[{"name":"eth0","mac":"02:00:00:00:00:01","ip":["172.16.0.3/16"],"mtu":1500},'
        '{"name":"eth1","mac":"02:00:00:00:00:02","ip":[],"mtu":68}]'
    )
    assert network_json.listed_routes([("default", "172.16.0.1", "eth0")]) == (
        '[{"dest":"default","gateway":"172.16.0.1","device":"eth0"}]'
    )
    assert (network_json.listed_nics([]), network_json.listed_routes([])) == ("null", "null")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The package's logger, left as it was found."""
    before = (log.LOGGER.handlers[:], log.LOGGER.level, log.LOGGER.propagate)
    yield log.LOGGER
    for handler in log.LOGGER.handlers[:]:
        if handler not in before[0]:
            log.LOGGER.removeHandler(handler)
            handler.close()
    log.LOGGER.setLevel(before[1])
    log.LOGGER.propagate = before[2]


def _call(line: str) -> Call:
    asked = parse(line.split())
    assert isinstance(asked, Call)
    return asked


def test_json_log(tmp_path: Path, logger: logging.Logger) -> None:
    """Each record is one line of JSON, hostile operands and the traceback escaped within it."""
    path = tmp_path / "log"
    log.start_log(_call(f"--log {path} --log-format json --debug state we\x1bb"))
    log.log_end(1, HostError("no\nroom"))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["level"], record["pid"], record["name"], record["message"]) for record in records] == [
        ("info", os.getpid(), "kata_runtime", "state 'we\\x1bb'"),
        ("error", os.getpid(), "kata_runtime", "exit status 1: no\nroom"),
    ]
    assert records[1]["traceback"] == "kata_runtime.errors.HostError: no\nroom"


def test_text_log_appends_without_traceback(tmp_path: Path, logger: logging.Logger) -> None:
    """Without --debug a failure is its one line, after what the file held already."""
    path = tmp_path / "log"
    path.write_text("before\n")
    log.start_log(_call(f"--log {path} list"))
    log.log_end(1, HostError("no room"))
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert [line.partition(f" {os.getpid()} ")[2] for line in lines[1:]] == [
        "INFO kata_runtime: list ",
        "ERROR kata_runtime: exit status 1: no room",
    ]


def test_log_that_cannot_be(tmp_path: Path) -> None:
    """A log file that cannot be opened is named."""
    with pytest.raises(HostError) as raised:
        log.start_log(_call(f"--log {tmp_path} list"))
    assert str(raised.value) == f"cannot open the log {str(tmp_path)!r}: Is a directory"


def _run(*argv: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "kata_runtime", *argv], capture_output=True, text=True, timeout=30, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


_CONTRADICTIONS = [
    (
        ["kata-ipvs", "ipvsadm", "web"],
        "kata-ipvs ipvsadm has neither --parameters nor --restore; give one of the two",
    ),
    (
        ["kata-ipvs", "ipvsadm", "--parameters", "-L", "--restore", "f", "web"],
        "kata-ipvs ipvsadm has both --parameters and --restore; give one of the two",
    ),
    (
        ["kata-ipvs", "ipvsadm", "--replace", "--parameters", "-L", "web"],
        "kata-ipvs ipvsadm has --replace without --restore",
    ),
    (
        ["kata-ipvs", "cleanup", "web"],
        (
            "kata-ipvs cleanup lacks --parameters; "
            "usage: kata-runtime kata-ipvs cleanup [--parameters ARGUMENTS] [--dry-run] <container-id>"
        ),
    ),
    (
        ["kata-network", "add-port", "web", "f", "--bridge", "br0", "--ovs", "br1"],
        "add-port takes --bridge or --ovs, not both",
    ),
    (["kata-network", "add-port", "web", "f", "--iface-id", "x"], "--iface-id needs --ovs"),
    (
        ["kata-network", "add-port", "web", "f", "--bridge", "br0", "--ovsdb", "unix:/x"],
        "--ovsdb has no meaning with --bridge",
    ),
    (
        ["kata-network", "add-port", "web", "f", "--ovs", "br0", "--migrate"],
        "--migrate goes with a port of Neutron, not with --bridge or --ovs",
    ),
    (["kill", "web", "TERMINATE"], "there is no signal 'TERMINATE'; give a name such as TERM or a number"),
    (["kill", "web", "0"], "there is no signal '0'; give a name such as TERM or a number"),
    (["run"], "run needs --detach; a sandbox always runs in the background"),
]


@pytest.mark.parametrize(("argv", "message"), _CONTRADICTIONS, ids=[" ".join(argv) for argv, _ in _CONTRADICTIONS])
def test_arguments_that_contradict(argv: list[str], message: str) -> None:
    """A wrong combination of arguments is refused with 2 before any container is looked for."""
    assert _run(*argv) == (2, "", f"kata-runtime: {message}\n")


@pytest.mark.parametrize("text", ["15", "TERM", "term", "SIGTERM", "sigterm"])
def test_signal_spellings(text: str) -> None:
    """A signal is a number or a name, with and without SIG, in any case."""
    assert signal_of(text) == 15


@pytest.mark.parametrize("text", ["", "-15", "65", "\N{SUPERSCRIPT TWO}", "SIG", "__class__"])
def test_no_signal(text: str) -> None:
    """Whatever is no signal is a wrong command line."""
    with pytest.raises(UsageError):
        signal_of(text)


def test_version() -> None:
    """The version is the package's own, also for an interpreter that sees no package metadata."""
    source = str(Path(kata_runtime.__file__).parents[1])
    code = f"import sys; sys.path.append({source!r})\nfrom kata_runtime.cli.main import main\nsys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"kata-runtime {kata_runtime.__version__}\n", "")


def test_host_without_anything(tmp_path: Path) -> None:
    """A missing QEMU, image and memory are found, each with its remedy."""
    config = Config(
        path=str(tmp_path / "qemu"), kernel=str(tmp_path / "vmlinuz"), initrd="/nowhere", default_memory=1 << 40
    )
    findings = {finding.name: finding for finding in find(config, tmp_path / "root")}
    failed = {name: findings[name] for name in ("qemu", "kernel", "initrd", "memory")}
    assert {finding.verdict for finding in failed.values()} == {Verdict.FAIL}
    assert [finding.remedy for finding in failed.values()] == [
        "apt-get install qemu-system-x86, or set path in the configuration",
        "kata-runtime image build",
        "kata-runtime image build",
        "free memory, or lower default_memory in the configuration",
    ]
    assert list(tmp_path.iterdir()) == []


def test_image_of_another_version(tmp_path: Path) -> None:
    """An image whose inputs have changed since is reported; one that is no image of ours is not judged."""
    config = Config(initrd=str(tmp_path / "initrd.img"))
    assert "image" not in [finding.name for finding in find(config, tmp_path)]
    (tmp_path / "image.json").write_text('{"include": [], "key": "old", "sizes": {}}')
    assert [finding for finding in find(config, tmp_path) if finding.name == "image"] == [
        Finding("image", Verdict.SLOWER, "built by another version", "kata-runtime image build")
    ]
