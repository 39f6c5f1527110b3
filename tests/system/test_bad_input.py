"""What add-iface and del-iface refuse: each by one line, and nothing is changed by any."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import Namespace, Runtime, Sandbox, booted, nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAME = "a NIC name has 1-15 characters of A-Z a-z 0-9 _ - . and starts with a letter"
_TAP = "a TAP is made with 'ip tuntap add NAME mode tap'"
_GOOD = nic("tap0", "eth0", "10.0.0.3/24", mac="02:00:00:00:00:01")
_DROP = object()


def _address(address: object, mask: object = "24") -> dict[str, object]:
    return {"IPAddresses": [{"address": address, "mask": mask}]}


def _changed(field: str, value: object, reason: str) -> tuple[dict[str, object], str]:
    return {field: value}, reason


def _mask(shown: str) -> str:
    return f"IPAddresses[0].mask is {shown}; it must be a prefix length, 1-32"


# Changes to a valid NIC, and the error message for each.
_WRONG_FIELDS: list[tuple[dict[str, object], str]] = [
    *(_changed(field, _DROP, f"the NIC lacks '{field}'") for field in ("device", "name", "hwAddr", "mtu")),
    ({"adress": "x"}, "a NIC has no field 'adress'; did you mean 'IPAddresses'?"),
    *(
        _changed(field, value, f"{field} is {value!a}; {_NAME}")
        for field in ("device", "name")
        for value in ("a/b", "a b", "a\n", "a" * 16, "\U0001f600", "0a", "")
    ),
    ({"name": "a\0b"}, r"the input holds a NUL character in 'a\x00b'"),
    ({"device": 1}, "device is 1; it must be a string"),
    ({"name": None}, "name is null; it must be a string"),
    ({"mtu": 45}, "mtu is 45; it must be 46-9600"),
    ({"mtu": 9601}, "mtu is 9601; it must be 46-9600"),
    ({"mtu": -1}, "mtu is -1; it must be 46-9600"),
    ({"mtu": 1500.5}, "mtu is 1500.5; it must be a whole number, 46-9600"),
    ({"mtu": "1500"}, "mtu is '1500'; it must be a whole number, 46-9600"),
    ({"mtu": True}, "mtu is true; it must be a whole number, 46-9600"),
    ({"mtu": 46}, "mtu 46 is too small: the container's kernel takes 68 or more for Ethernet"),
    ({"mtu": 67}, "mtu 67 is too small: the container's kernel takes 68 or more for Ethernet"),
    (
        {"mtu": 1279, "IPAddresses": [{"address": "fd00::1", "mask": "64"}]},
        "mtu 1279 is too small: the container's kernel takes 1280 or more for IPv6",
    ),
    (
        {"hwAddr": "01:00:5e:00:00:01"},
        "hwAddr 01:00:5e:00:00:01 is a multicast address; a NIC needs a unicast one",
    ),
    (
        {"hwAddr": "00:00:00:00:00:00"},
        "hwAddr 00:00:00:00:00:00 is the zero address; a NIC needs a unicast one",
    ),
    ({"hwAddr": "02:00"}, "hwAddr is '02:00'; a MAC address is written like 02:42:20:6e:03:01"),
    (
        {"hwAddr": "zz:00:00:00:00:01"},
        "hwAddr is 'zz:00:00:00:00:01'; a MAC address is written like 02:42:20:6e:03:01",
    ),
    *(
        (_address(value), f"IPAddresses[0].address is {value!r}; it must be an IPv4 or IPv6 address")
        for value in ("300.1.1.1", "10.0.0", "fd00::g", "", "fe80::1%eth0")
    ),
    (
        _address("224.0.0.1"),
        "IPAddresses[0].address 224.0.0.1 is a multicast address; give a host's address",
    ),
    *((_address("10.0.0.3", value), _mask(repr(value))) for value in ("33", "-1", "x", "")),
    (_address("10.0.0.3", None), _mask("null")),
    ({"IPAddresses": [{"address": "10.0.0.3"}]}, "IPAddresses[0] lacks 'mask'"),
    ({"IPAddresses": {}}, 'IPAddresses is an object; it must be a list of {"address","mask"}'),
    (
        {"IPAddresses": [{"address": "10.0.0.3", "mask": "24"}] * 2},
        "IPAddresses[1] repeats the address 10.0.0.3",
    ),
    ({"queues": -1}, "queues is -1; it must be 0-256"),
    ({"queues": 300}, "queues is 300; it must be 0-256"),
    ({"queues": 1.5}, "queues is 1.5; it must be a whole number, 0-256"),
    ({"queues": "2"}, "queues is '2'; it must be a whole number, 0-256"),
    ({"vhostUserSocket": "relative"}, "vhostUserSocket is 'relative'; it must be an absolute path"),
    (
        {"device": "nosuch"},
        ("there is no interface 'nosuch' in this network namespace; create it with 'ip tuntap add nosuch mode tap'"),
    ),
    ({"device": "br0"}, f"the interface 'br0' is no TAP but of the kind 'bridge'; {_TAP}"),
    ({"device": "tun0"}, f"the interface 'tun0' is no TAP but a TUN interface; {_TAP}"),
    ({"device": "lo"}, f"the interface 'lo' is no TAP but no virtual interface at all; {_TAP}"),
    ({"device": "held"}, "the TAP 'held' is held by another process"),
    (
        {"device": "taken"},
        "device 'taken' serves NIC 'used' of this container already; a device serves one NIC",
    ),
    ({"name": "used"}, "the container has a NIC 'used' already; choose another name"),
    ({"hwAddr": "02:00:00:00:00:99"}, "hwAddr 02:00:00:00:00:99 is that of NIC 'used' already"),
    ({"name": "lo"}, "the container has an interface 'lo' of its own; choose another name"),
]

# Input that is no NIC at all.
_WRONG_INPUT: list[tuple[bytes, str]] = [
    (b'{"device":"tap0"', "the input is not JSON: it ends too early (line 1 column 17)"),
    (b"", "the input is empty; give JSON text"),
    (b"[]", "the input is a list; a NIC is described by one JSON object"),
    (b"null", "the input is null; a NIC is described by one JSON object"),
    (
        b'{"device":"a","Device":"b"}',
        "the input has the key 'Device' twice, the first time as 'device'; keep one of them",
    ),
    (b"{} x", "the input continues after its JSON value at line 1 column 4; give one value"),
    (b"\xff\xfe\0\1", "the input is not UTF-8: byte 1 is 0xff; give JSON text"),
    (b" " * 20_000_000, "standard input is larger than 16 MiB"),
]

_HOLD = """
import sys
from kata_runtime.vmm.tap_device import open_tap
open_tap("held", 1)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _held_tap(namespace: Namespace) -> Iterator[None]:
    with subprocess.Popen(
        [*namespace.prefix, sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()
        assert holder.wait(10) == 0


def _said(sandbox: Sandbox, verb: str, stdin: bytes) -> tuple[int, str, str]:
    done = sandbox.cli("kata-network", verb, sandbox.id, "-", stdin=stdin)
    return done.returncode, done.stdout, done.stderr


def _refusal(reason: str) -> tuple[int, str, str]:
    return 1, "null\n", f"kata-runtime: {reason}\n"


def test_refusals_change_nothing(
    sandbox: Sandbox, namespace: Namespace, runtime: Runtime, unique: Callable[[str], str]
) -> None:
    """Every wrong value, in the input or on the host, is reported in one line; nothing is changed."""
    for name in ("tap0", "taken", "held", "faraway"):
        namespace.tap(name)
    namespace.run("ip", "link", "add", "br0", "type", "bridge")
    namespace.run("ip", "tuntap", "add", "tun0", "mode", "tun")
    used = nic("taken", "used", mac="02:00:00:00:00:99")
    with booted(runtime, unique("b")) as other, _held_tap(namespace):
        assert sandbox.network("add-iface", used).stderr == ""
        assert other.network("add-iface", {**used, "device": "faraway"}).stderr == ""
        before = sandbox.snapshot()
        foreign = f"device 'faraway' serves container {other.id} already; a device serves one container"
        wrong_fields = [*_WRONG_FIELDS, _changed("device", "faraway", foreign)]
        for change, reason in wrong_fields:
            document = {key: value for key, value in {**_GOOD, **change}.items() if value is not _DROP}
            assert _said(sandbox, "add-iface", json.dumps(document).encode()) == _refusal(reason)
        for data, reason in _WRONG_INPUT:
            assert _said(sandbox, "add-iface", data) == _refusal(reason)
        for data, reason in (
            (b"{}", "the NIC lacks 'name'"),
            (b'{"name":1}', "name is 1; it must be a string"),
            (
                b'{"name":"nosuch"}',
                (
                    f"container {sandbox.id} has no NIC 'nosuch' that was added with add-iface; "
                    "list-ifaces shows those that can be deleted"
                ),
            ),
        ):
            assert _said(sandbox, "del-iface", data) == _refusal(reason)
        assert sandbox.snapshot() == before
        assert sandbox.network("del-iface", {"name": "used"}).stdout == "null\n"


def test_containers_that_cannot_be_meant(runtime: Runtime, sandbox: Sandbox, unique: Callable[[str], str]) -> None:
    """An unknown and an ambiguous ID are distinguished."""
    first, second = sandbox.id, unique("x")
    stem = first[: next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)]
    with booted(runtime, second):
        several = ", ".join(sorted((first, second)))
        for text, reason in (
            ("nosuch", "container 'nosuch' does not exist; 'kata-runtime list' shows those that do"),
            ("", "container '' does not exist; 'kata-runtime list' shows those that do"),
            ("../x", "container '../x' does not exist; 'kata-runtime list' shows those that do"),
            (stem, f"container '{stem}' is ambiguous: it could be {several}; give more of the ID"),
        ):
            done = runtime.cli("kata-network", "list-ifaces", text)
            assert (done.returncode, done.stdout, done.stderr) == _refusal(reason)
