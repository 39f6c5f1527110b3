"""How many services IPVS has in all, as the uses of its kernel modules show.

Each service is a use of IPVS, whatever its family and its network namespace. A scheduler or persistence engine is two:
as a module that needs IPVS, and since it is registered there. Synchronisation daemons and requests that are being
served are uses, too: there are never fewer uses than services.
Source: net/netfilter/ipvs, the callers of ip_vs_use_count_inc; kernel/module/procfs.c, m_show.
"""

from __future__ import annotations

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs.model import SCHEDULERS
from kata_runtime.ipvs.proc_file import rows
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_WHAT = "modules"
_IPVS = "ip_vs"
_ENGINE_PREFIX = "ip_vs_pe_"
_SCHEDULERS = frozenset(f"ip_vs_{name}" for name in SCHEDULERS)
_FIELDS = 5  # name, size, uses, the modules that use it, state
# A kernel has a few hundred.
_MODULES_MAX = 4096


class _Module(NamedTuple):
    uses: int
    users: list[str]
    is_live: bool


def are_of(pieces: Iterable[bytes], services: int) -> bool:
    """Whether all uses in /proc/modules are of ``services`` services, none of which has a persistence engine.

    :raise ProtocolError: the file is broken.
    """
    modules: dict[str, _Module] = {}
    for line in rows(pieces, 0, _WHAT):
        name, module = _parsed(line)
        modules[name] = module
        if len(modules) > _MODULES_MAX:
            raise ProtocolError(f"more than {_MODULES_MAX} modules in the guest's list of {_WHAT}")
    ipvs = modules.get(_IPVS)
    if ipvs is None or not ipvs.is_live:
        return False
    for name in ipvs.users:
        user = modules.get(name)
        if user is None or not user.is_live:
            return False
        # Others, such as the helper for FTP, count in other ways. An engine is used once by each service that has it.
        if name not in _SCHEDULERS and not (name.startswith(_ENGINE_PREFIX) and not user.uses):
            return False
    return ipvs.uses == services + 2 * len(ipvs.users)


def _parsed(line: str) -> tuple[str, _Module]:
    """``ip_vs 188416 3 ip_vs_wlc, Live 0x0000000000000000``; a hyphen stands for no user."""
    fields = line.split(" ")
    if len(fields) < _FIELDS or not fields[2].isdecimal():
        raise ProtocolError(f"a line {line[:80]!a} in the guest's list of {_WHAT}")
    name, _, uses, users, state, *_ = fields
    return name, _Module(int(uses), [user for user in users.split(",") if user not in ("", "-")], state == "Live")
