"""The whole lab: OVN's central part, an underlay, and hosts on it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab.central import Central, running_central
from lab.host import Host, running_host
from lab.namespace import made_namespace
from lab.underlay import Underlay

if TYPE_CHECKING:
    from collections.abc import Iterator

# An Ethernet that carries guests' packets of 1500 bytes would need 1558.
_UNDERLAY_MTU = 1500


class Lab(NamedTuple):
    """The running parts of a lab."""

    directory: Path
    central: Central
    underlay: Underlay
    hosts: list[Host]

    def report(self) -> str:
        """What each daemon is doing, and the end of its log."""
        sections = []
        for name, daemons in (("central", self.central.daemons), *((host.name, host.daemons) for host in self.hosts)):
            sections += [f"{name}: {daemon.report()}" for daemon in daemons]
        return "\n".join(sections)


@contextmanager
def ovn_lab(prefix: str, hosts: int = 2, mtu: int = _UNDERLAY_MTU) -> Iterator[Lab]:
    """A lab whose namespaces and directories begin with ``prefix``; all of it is gone at the end."""
    with ExitStack() as stack:
        # Short: the path of a socket has at most 107 bytes (unix(7)).
        directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        stack.callback(shutil.rmtree, directory)
        for name in ("central", *(f"host{number}" for number in range(1, hosts + 1))):
            (directory / name).mkdir()
        central = stack.enter_context(running_central(directory / "central"))
        underlay = Underlay(stack.enter_context(made_namespace(f"{prefix}-fabric")), "fabric", "192.0.2", mtu)
        made = [
            stack.enter_context(
                running_host(f"{prefix}-host{number}", directory / f"host{number}", number, central, underlay)
            )
            for number in range(1, hosts + 1)
        ]
        central.settle()
        yield Lab(directory, central, underlay, made)
