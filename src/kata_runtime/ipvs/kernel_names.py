"""Names that come from a guest's kernel, checked before they reach terminals and saved rules."""

from __future__ import annotations

from kata_runtime.errors import ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.netlink.message import unpack_text

# IP_VS_SCHEDNAME_MAXLEN, IP_VS_PENAME_MAXLEN and IP_VS_IFNAME_MAXLEN, with the NUL (include/uapi/linux/ip_vs.h).
_NAME_BYTES = 16
# The characters of module names: in saved rules a space would begin another option.
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")


def interface_name(payload: bytes) -> str:
    """The name in an attribute; empty is possible.

    :raise ProtocolError: it is too long, or has control characters, which a terminal would obey.
    """
    text = unpack_text(payload[:_NAME_BYTES])
    if not text.isprintable() or len(payload) > _NAME_BYTES:
        raise ProtocolError(f"a name {text!a}")
    return text


# Cached: thousands of services share a few names.
@lru_cache(maxsize=64)
def module_name(payload: bytes) -> str:
    """The name of a scheduler or a persistence engine.

    :raise ProtocolError: no module is called so.
    """
    name = interface_name(payload)
    if name[:1] not in _FIRST or not _REST.issuperset(name):
        raise ProtocolError(f"a scheduler or persistence engine named {name!a}")
    return name
