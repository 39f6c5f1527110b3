"""Devices of a bundle: the guest's, and the host's, which are refused or left out."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.oci.test_bundle import bundle, linux

from kata_runtime.errors import InputError
from kata_runtime.oci.guest_devices import with_guest_devices

_NULL = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}
_PIPE = {"path": "/dev/pipe", "type": "p"}
_DISK = {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}
# A block device with the numbers of a character device of the guest.
_RAM_DISK = {"path": "/dev/ram3", "type": "b", "major": 1, "minor": 3}
# As Podman, Docker and containerd write it for a privileged container.
_EVERYTHING = {"allow": True, "access": "rwm"}
_REFUSED = "config.json: linux.devices[1]: /dev/sda is a device of the host, which a VM does not have; "


def _devices(*devices: dict[str, Any], rules: tuple[dict[str, Any], ...], key: bool) -> object:
    """The devices that the guest's crun gets."""
    given = bundle(linux=linux(devices=list(devices), resources={"devices": list(rules)}))
    section = with_guest_devices(given, lambda: key).document["linux"]
    assert isinstance(section, dict)
    return section["devices"]


def test_devices_of_the_guest() -> None:
    """Devices that the guest has, and pipes, are its own, whatever the configuration says."""
    assert [_devices(_NULL, _PIPE, rules=(), key=key) for key in (False, True)] == [[_NULL, _PIPE]] * 2


def test_a_privileged_container_without_host_devices() -> None:
    """With the key in the configuration a container that may use all devices gets those of the guest."""
    denied = {"allow": False, "access": "rwm"}
    assert _devices(_NULL, _DISK, _PIPE, _RAM_DISK, rules=(denied, _EVERYTHING), key=True) == [_NULL, _PIPE]


@pytest.mark.parametrize(
    ("rules", "key", "hint"),
    [
        ((_EVERYTHING,), False, "the configuration's privileged_without_host_devices leaves such devices out"),
        ((), True, "possible are null, zero, full, random, urandom, tty, fuse"),
        (({**_EVERYTHING, "allow": False},), True, "possible are null, zero, full, random, urandom, tty, fuse"),
        (({**_EVERYTHING, "access": "r"},), True, "possible are null, zero, full, random, urandom, tty, fuse"),
        (({**_EVERYTHING, "type": "b"},), True, "possible are null, zero, full, random, urandom, tty, fuse"),
        (({**_EVERYTHING, "major": 8},), True, "possible are null, zero, full, random, urandom, tty, fuse"),
    ],
    ids=["no key", "no rule", "denied", "read only", "one kind", "one major"],
)
def test_devices_of_the_host_are_refused(rules: tuple[dict[str, Any], ...], key: bool, hint: str) -> None:
    """A device of the host is refused by name, unless the container is privileged and the configuration has the key."""
    with pytest.raises(InputError) as raised:
        _devices(_NULL, _DISK, rules=rules, key=key)
    assert str(raised.value) == _REFUSED + hint
