"""The devices that a bundle requests: the guest has a few itself, and none of the host's."""

from __future__ import annotations

from kata_runtime.errors import InputError
from kata_runtime.oci.bundle import CONFIG
from kata_runtime.oci.json_object import JsonObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.oci.bundle import Bundle

# Names, majors and minors of devices that the guest's kernel has, too (Documentation/admin-guide/devices.txt).
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
            "fuse": (10, 229)}  # fmt: skip
_HINT_PRIVILEGED = "the configuration's privileged_without_host_devices leaves such devices out"


def with_guest_devices(bundle: Bundle, without_host_devices: Callable[[], bool]) -> Bundle:
    """The bundle without devices of the host.

    For a privileged container engines request all devices of the host, and allow it all devices. These requests are
    dropped if ``without_host_devices`` returns true; it is called only then.

    :raise InputError: it requests devices that the guest does not have.
    """
    linux = JsonObject(f"{CONFIG}: ", bundle.document).child("linux")
    devices = linux.children("devices")
    missing = [device for device in devices if not _is_in_guest(device)]
    if not missing:
        return bundle
    is_privileged = _allows_everything(linux)
    if not is_privileged or not without_host_devices():
        raise InputError(
            f"{missing[0].where}: {missing[0].text('path')} is a device of the host, which a VM does not have",
            field="linux.devices",
            hint=_HINT_PRIVILEGED if is_privileged else f"possible are {', '.join(_DEVICES)}",
        )
    kept = [device.fields for device in devices if device not in missing]
    return bundle._replace(document={**bundle.document, "linux": {**linux.fields, "devices": kept}})


def _is_in_guest(device: JsonObject) -> bool:
    numbers = (device.number("major"), device.number("minor"))
    kind = device.text("type")
    return kind == "p" or (kind in ("c", "u") and numbers in _DEVICES.values())


def _allows_everything(linux: JsonObject) -> bool:
    """Whether the container may use every device (runtime-spec, config-linux.md: "Allowed Device list")."""
    return any(
        rule.flag("allow")
        and rule.text("type", "a") == "a"
        and rule.number("major", -1) == rule.number("minor", -1) == -1
        and set("rwm") <= set(rule.text("access", "rwm"))
        for rule in linux.child("resources").children("devices")
    )
