"""The configuration file; its keys have Kata Containers' names where the meaning is the same."""

from __future__ import annotations

import os

from kata_runtime import fast_toml
from kata_runtime.errors import HostError, InputError
from kata_runtime.guest.image import DEFAULT_DESTINATION, INITRD_NAME, KERNEL_NAME
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.vmm.architecture import ARCHITECTURE
from kata_runtime.vmm.qemu_arguments import ROOT_PORTS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

DEFAULT_PATH = "/etc/kata-runtime/configuration.toml"

_MEMORY_MIN = 128  # MiB; a guest with less cannot unpack its initrd
_MEMORY_MAX = 16 * 1024 * 1024
_VCPUS_MAX = 255
_RULES_MAX = 10_000_000
_SHOWN_CHARACTERS = 80


class Config(NamedTuple):
    """The settings of new sandboxes; memory is in MiB."""

    path: str = ARCHITECTURE.qemu
    kernel: str = f"{DEFAULT_DESTINATION}/{KERNEL_NAME}"
    initrd: str = f"{DEFAULT_DESTINATION}/{INITRD_NAME}"
    machine_type: str = ARCHITECTURE.machine_type
    accelerator: str = "auto"
    default_vcpus: int = 1
    default_memory: int = 512
    default_root_ports: int = ROOT_PORTS_MAX
    kernel_params: str = ""
    shared_memory: bool = True
    template: str = "auto"
    template_path: str = "/var/lib/kata-runtime/templates"
    virtio_fs_daemon: str = ""
    enable_debug: bool = False
    ipvs_rule_limit: int = 20_000
    follow_network: bool = True
    privileged_without_host_devices: bool = False
    ovsdb: str = "unix:/run/openvswitch/db.sock"


# Constraints on values, besides the type of the default.
RANGES = {
    "default_vcpus": (-1, _VCPUS_MAX),
    "default_memory": (_MEMORY_MIN, _MEMORY_MAX),
    "default_root_ports": (0, ROOT_PORTS_MAX),
    "ipvs_rule_limit": (0, _RULES_MAX),
}
CHOICES = {
    "machine_type": (ARCHITECTURE.machine_type,),
    "accelerator": ("auto", "kvm", "tcg"),
    "template": ("auto", "off"),
}
_RUNTIME_KEYS = ("ipvs_rule_limit", "follow_network", "privileged_without_host_devices")
_NETWORK_KEYS = ("ovsdb",)
SECTIONS = {
    ("hypervisor", "qemu"): tuple(key for key in Config._fields if key not in _RUNTIME_KEYS + _NETWORK_KEYS),
    ("network",): _NETWORK_KEYS,
    ("runtime",): _RUNTIME_KEYS,
}


def load_config(path: str | None, warn: Callable[[str], None]) -> Config:
    """Read the configuration in ``path``, or in the default file if that exists; ``warn`` is called for unknown keys.

    :raise HostError: the file cannot be read. :raise InputError: it is invalid.
    """
    chosen = path or DEFAULT_PATH
    try:
        with open(chosen, "rb") as file:
            text = file.read()
    except FileNotFoundError as error:
        if path is None:
            return _with_counted_processors(Config())
        raise HostError.of(f"cannot read the configuration {path!r}", error) from error
    except OSError as error:
        raise HostError.of(f"cannot read the configuration {chosen!r}", error) from error
    try:
        document = fast_toml.loads(text.decode())
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError; ValueError also for too many digits of a number, RecursionError for deeply nested lists.
        raise InputError(f"{chosen}: not TOML: {error}") from error
    return _with_counted_processors(_read(chosen, document, warn))


def _read(path: str, document: Mapping[str, Any], warn: Callable[[str], None]) -> Config:
    values: dict[str, Any] = {}
    for section, table in _tables(document):
        known = SECTIONS.get(section)
        name = ".".join(section)
        if known is None:
            warn(f"{path}: section [{name}] means nothing here; ignored")
            continue
        for key, value in table.items():
            if key not in known:
                from difflib import get_close_matches

                near = get_close_matches(key, known, 1)
                advice = f"; did you mean {near[0]}?" if near else ""
                warn(f"{path}: [{name}] {key} means nothing here; ignored{advice}")
                continue
            values[key] = _checked(path, key, value)
    return Config(**values)


def _tables(document: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The sections, which are two levels deep, such as hypervisor.qemu."""
    found: list[tuple[tuple[str, ...], Mapping[str, Any]]] = []
    loose = {key: value for key, value in document.items() if not isinstance(value, dict)}
    if loose:
        found.append((("",), loose))
    for name, table in document.items():
        if not isinstance(table, dict):
            continue
        direct = {key: value for key, value in table.items() if not isinstance(value, dict)}
        if direct or not table:
            found.append(((name,), direct))
        found += [((name, inner), value) for inner, value in table.items() if isinstance(value, dict)]
    return found


def _checked(path: str, key: str, value: object) -> object:
    wanted = type(Config._field_defaults[key])
    if type(value) is not wanted:
        names = {str: "a string", int: "a whole number", bool: "true or false"}
        raise InputError(f"{path}: {key} is {_shown(value)}", field=key, hint=f"it must be {names[wanted]}")
    if key in RANGES and isinstance(value, int):
        low, high = RANGES[key]
        if not low <= value <= high:
            raise InputError(f"{path}: {key} is {_shown(value)}", field=key, hint=f"{low} to {high} is possible")
    if key in CHOICES and value not in CHOICES[key]:
        raise InputError(f"{path}: {key} is {value!a}", field=key, hint=f"possible: {', '.join(CHOICES[key])}")
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{path}: {key} holds control characters", field=key)
    return value


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:
        return "a number of thousands of digits"  # too large for Python to convert to text
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _with_counted_processors(config: Config) -> Config:
    # As in Kata: 0 means the default, 1; a negative number means as many as the host has.
    vcpus = config.default_vcpus
    if vcpus < 0:
        vcpus = min(len(os.sched_getaffinity(0)), _VCPUS_MAX)
    return config._replace(default_vcpus=max(vcpus, 1))
