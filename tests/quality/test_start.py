"""What a short command may load: start-up is most of its time."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.quality.trees import SOURCE

if TYPE_CHECKING:
    from pathlib import Path

TOO_HEAVY = (
    "argparse", "asyncio", "concurrent.futures", "ctypes", "email", "importlib.metadata", "inspect", "ipaddress",
    "logging", "multiprocessing", "qemu", "random", "shutil", "ssl", "subprocess", "tarfile", "tempfile", "tomllib",
    "urllib.request", "typing", "re", "json", "socket", "selectors", "dataclasses", "datetime", "string", "enum",
    "signal", "contextlib", "functools", "collections", "types", "operator", "pathlib", "resource",
)  # fmt: skip
_SCRIPT = """
import sys
sys.path.append(sys.argv.pop(1))
from kata_runtime.cli.main import main
status = main()
print(status, *sorted(sys.modules), file=sys.stderr)
"""


def test_list_ifaces_loads_little(tmp_path: Path) -> None:
    """A list-ifaces that finds no container has loaded none of the modules known to be slow."""
    argv = [sys.executable, "-I", "-S", "-c", _SCRIPT, str(SOURCE), "--root", str(tmp_path)]
    argv += ["kata-network", "list-ifaces", "nosuch"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    status, *loaded = done.stderr.splitlines()[-1].split()
    assert (status, sorted(set(loaded) & set(TOO_HEAVY))) == ("1", [])


_ADD_IFACE = (
    "cli.network_commands", "cli.network_json", "network.requests", "network.interfaces", "network.endpoint.tap",
    "network.namespace", "sandbox.session", "sandbox.neighbours", "vmm.hotplug", "vmm.monitor",
)  # fmt: skip
_RESTORE = ("cli.ipvs_commands", "ipvs.commands", "ipvs.batch", "sandbox.session")
_IMPORTS = """
import sys
source, *names = sys.argv[1:]
sys.path.append(source)
for name in names:
    __import__(f"kata_runtime.{name}")
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize("names", [_ADD_IFACE, _RESTORE], ids=["add-iface", "restore"])
def test_changes_load_little(names: tuple[str, ...]) -> None:
    """What adds a NIC, and what restores virtual servers, brings none of the modules known to be slow along."""
    argv = [sys.executable, "-I", "-S", "-c", _IMPORTS, str(SOURCE), *names]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(set(loaded) & set(TOO_HEAVY)) == []
