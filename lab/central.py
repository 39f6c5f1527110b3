"""OVN's central part: both databases and the daemon that translates one into the other."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lab.daemon import Daemon, explained
from lab.namespace import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMAS = "/usr/share/ovn"
WAIT_SECONDS = 30


class Central:
    """The databases NB and SB, listening on Unix sockets, which work across network namespaces; and ovn-northd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.northbound = f"unix:{directory}/nb.sock"
        self.southbound = f"unix:{directory}/sb.sock"
        self._environment = {"OVN_RUNDIR": str(directory), "OVS_RUNDIR": str(directory)}
        self.databases = [self._database("nb"), self._database("sb")]
        databases = [f"--ovnnb-db={self.northbound}", f"--ovnsb-db={self.southbound}"]
        self.northd = Daemon("ovn-northd", directory, ["ovn-northd", *databases], self._environment)
        self.daemons = [*self.databases, self.northd]

    def _database(self, name: str) -> Daemon:
        arguments = ["ovsdb-server", str(self.directory / f"{name}.db"), f"--remote=punix:{self.directory}/{name}.sock"]
        return Daemon(f"ovsdb-{name}", self.directory, arguments, self._environment)

    def create(self) -> None:
        """Make empty databases."""
        for name in ("nb", "sb"):
            run(["ovsdb-tool", "create", str(self.directory / f"{name}.db"), f"{_SCHEMAS}/ovn-{name}.ovsschema"])

    def nbctl(self, *words: str) -> str:
        """Change or ask the northbound database: ovn-nbctl(8)."""
        return self._run("ovn-nbctl", self.northbound, *words)

    def sbctl(self, *words: str) -> str:
        """Change or ask the southbound database: ovn-sbctl(8)."""
        return self._run("ovn-sbctl", self.southbound, *words)

    def _run(self, program: str, database: str, *words: str) -> str:
        with explained(self.daemons):
            return run([program, f"--db={database}", f"--timeout={WAIT_SECONDS}", *words]).strip()

    def settle(self) -> None:
        """Wait until every host has done what the northbound database asks for."""
        self.nbctl("--wait=hv", "sync")


@contextmanager
def running_central(directory: Path) -> Iterator[Central]:
    """OVN's central part with its files in ``directory``, which must be empty."""
    central = Central(directory)
    central.create()
    with ExitStack() as stack:
        for daemon in central.daemons:
            daemon.start()
            stack.callback(daemon.end)
        central.nbctl("init")
        central.sbctl("init")
        yield central
