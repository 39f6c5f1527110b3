"""Imports go downwards only: cli -> oci -> recovery -> network, ipvs -> sandbox -> guest, vmm -> netlink -> errors."""

from __future__ import annotations

import sys

from tests.quality.trees import SOURCE, imports, module_of, python_files

_PACKAGE = "kata_runtime"
# Parts of one rank do not know each other.
_RANKS = {
    "errors": 0, "named_tuple": 0, "c_library": 0, "fast_contextlib": 0, "fast_enum": 0, "fast_functools": 0,
    "fast_hashlib": 0, "fast_signal": 0,
    "address_types": 1, "fast_json": 1, "fast_toml": 1, "operation_log": 1, "optional_packages": 1, "shell_words": 1,
    "unix_socket": 1,
    "netlink": 2, "guest": 3, "vmm": 3, "sandbox": 4, "conntrack": 5, "ipvs": 5, "network": 5,
    "recovery": 6, "oci": 7, "cli": 8, "__main__": 9, "fast_start": 9,
}  # fmt: skip
# The folders of network, each of which knows only those before it.
_NETWORK_FOLDERS = ("clients", "endpoint", "ports")
_GUEST_SIDE = tuple(f"{_PACKAGE}.guest.{name}" for name in ("agent", "netlink_block", "wire"))


def _part(name: str) -> str:
    return name.split(".")[1] if "." in name else "errors"


def test_imports_go_downwards() -> None:
    """No module imports from its own rank's neighbours or from above, also not inside a function."""
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for path in python_files("src")
        for line, name in imports(path)
        if name.startswith(f"{_PACKAGE}.")
        and name != f"{_PACKAGE}.__version__"
        and _part(name) != _part(module_of(path))
        and _RANKS[_part(name)] >= _RANKS[_part(module_of(path))]
    ]
    assert wrong == []


def test_folders_of_network() -> None:
    """Clients of other services know no back ends, and back ends do not know the commands that make ports."""
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for place, folder in enumerate(_NETWORK_FOLDERS)
        for path in python_files(f"src/kata_runtime/network/{folder}")
        for line, name in imports(path)
        if name.startswith(tuple(f"{_PACKAGE}.network.{later}" for later in _NETWORK_FOLDERS[place + 1 :]))
    ]
    assert wrong == []


def test_guest_side_is_standard_library() -> None:
    """What runs in the guest needs nothing but Python and itself."""
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for path in python_files("src/kata_runtime/guest")
        if module_of(path).startswith(_GUEST_SIDE)
        for line, name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith(_GUEST_SIDE)
    ]
    assert wrong == []
