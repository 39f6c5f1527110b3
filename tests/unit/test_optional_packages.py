"""Packages that only some commands need: found without the site module, and missed in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).parents[2] / "src"
_SCRIPT = """
import sys
sys.path.append(sys.argv[1])
from kata_runtime.optional_packages import Package, require
from kata_runtime.errors import HostError
before = list(sys.path)
try:
    require(Package(*sys.argv[2:]))
except HostError as error:
    print(error)
else:
    print(sys.argv[2] in sys.modules, sys.path[: len(before)] == before, "site" in sys.modules)
"""


def _require(*package: str, isolated: str = "-IS") -> str:
    argv = [sys.executable, isolated, "-c", _SCRIPT, str(_SOURCE), *package]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_found_without_site() -> None:
    """With -IS, as the program runs, a package of the virtual environment is found behind what was there before."""
    assert _require("rich", "rich", "python3-rich") == "True True True\n"


def test_found_with_site() -> None:
    """Where site has done its work, nothing is added twice."""
    assert _require("rich", "rich", "python3-rich", isolated="-I") == "True True True\n"


def test_found_by_the_program(tmp_path: Path) -> None:
    """The program of a virtual environment finds the packages of that one, by whatever link it is started."""
    link = tmp_path / "kata"
    link.symlink_to(Path(sys.executable).with_name("kata-runtime"))
    done = subprocess.run([link, "--root", tmp_path / "root", "metrics"], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'kata_containers{status="running"} 0.0\n' in done.stdout


def test_absent_package_is_one_line() -> None:
    """An absent package is named with the command that installs it."""
    assert _require("kata_absent", "kata-absent", "python3-kata-absent") == (
        "this command needs the Python package 'kata-absent', which is not installed; "
        f"install it with '{sys.prefix}/bin/python3 -m pip install kata-absent'\n"
    )


def test_absent_package_of_the_system() -> None:
    """Outside a virtual environment, where pip is refused, the Debian package is named."""
    system = Path("/usr/bin/python3")
    argv = [str(system), "-IS", "-c", _SCRIPT, str(_SOURCE), "kata_absent", "kata-absent", "python3-kata-absent"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == (
        "this command needs the Python package 'kata-absent', which is not installed; "
        "install it with 'apt-get install python3-kata-absent'\n"
    )
