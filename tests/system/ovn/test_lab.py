"""The lab itself: whatever ends it, nothing of it is left."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.namespace import LabError
from lab.ovn_lab import ovn_lab
from tests.system.conftest import network_namespace

if TYPE_CHECKING:
    from collections.abc import Callable


def _left(prefix: str) -> list[str]:
    """Namespaces and directories whose names begin with ``prefix``."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    places = [path.name for path in Path(tempfile.gettempdir()).iterdir()]
    return [name for name in [*names.splitlines(), *places] if name.startswith(prefix)]


def _runs(pid: int) -> bool:
    """Whether a process has not ended; what nobody has waited for yet has (proc(5), state Z)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_is_left(unique: Callable[[str], str]) -> None:
    """An error inside, and a host that cannot be made, leave no process, namespace or directory."""
    prefix = unique("gone")
    pids: list[int] = []

    def fails_inside() -> None:
        with ovn_lab(prefix, 1) as lab:
            (host,) = lab.hosts
            daemons = (host.database, host.switch, host.controller, lab.central.northd, *lab.central.databases)
            pids.extend(daemon.pid for daemon in daemons)
            assert all(_runs(pid) for pid in pids)
            raise LabError("inside")

    with pytest.raises(LabError, match=r"^inside$"):
        fails_inside()
    with (
        network_namespace(f"{prefix}b-host2"),
        pytest.raises(LabError, match=f"{prefix}b-host2.*File exists"),
        ovn_lab(f"{prefix}b", 2),
    ):
        raise AssertionError
    assert (len(pids), [pid for pid in pids if _runs(pid)], _left(prefix)) == (6, [], [])
