"""TAP interfaces of this host, opened for QEMU (Documentation/networking/tuntap.rst of the kernel).

TUNSETIFF creates an interface where there is none, so its existence is checked before and after.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from kata_runtime.errors import ConflictError, HostError, InputError, KernelError
from kata_runtime.netlink.exchange import call
from kata_runtime.netlink.link import TUN_TYPE_TAP, Link, get_link, links_of
from kata_runtime.netlink.local import LocalTransport
from kata_runtime.netlink.message import parse_attributes, unpack_u32
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# include/uapi/linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000

# include/uapi/linux/if_link.h; the counts are given for a multi-queue TAP only.
_IFLA_LINKINFO = 18
_IFLA_INFO_DATA = 2
_IFLA_TUN_NUM_QUEUES = 8
_IFLA_TUN_NUM_DISABLED_QUEUES = 9
_LINK_HEADER_BYTES = 16

# include/uapi/linux/vhost.h, VHOST_GET_FEATURES
_VHOST_GET_FEATURES = 0x8008AF00

# struct ifreq: name, flags, padding to the union's size.
_IFREQ = struct.Struct("16sH22x")


def open_tap(name: str, queues: int) -> list[int]:
    """Descriptors of the existing TAP ``name`` of the caller's network namespace, one per queue pair (at least one).

    Each frame on them begins with a struct virtio_net_hdr (IFF_VNET_HDR).

    :raise InputError: there is no such interface, or it is no TAP, or lacks the queues.
    :raise ConflictError: another process holds it.
    :raise HostError: the kernel refused.
    """
    with LocalTransport() as transport:
        link = _free(transport, name, queues)
        opened: list[int] = []
        try:
            while len(opened) < max(queues, 1):
                opened.append(_open_queue(link))
            found, attached = _look_up(transport, name)
            if found.index != link.index:
                # Closing the descriptors removes what TUNSETIFF made.
                raise HostError(f"the interface {name!r} was replaced by another meanwhile")
            if link.tun_multi_queue and attached != len(opened):
                raise _held(name)
        except BaseException:
            close_all(opened)
            raise
    return opened


def check_tap(name: str, queues: int) -> None:
    """Check over netlink alone that ``open_tap`` finds a free TAP: opening it would change its queueing discipline.

    :raise InputError, ConflictError, HostError: as ``open_tap``, except what only opening it shows (permission).
    """
    with LocalTransport() as transport:
        # A single queue is not counted, but there is a carrier only while a process is attached (drivers/net/tun.c).
        if _free(transport, name, queues).carrier:
            raise _held(name)


def create_tap(name: str, queues: int = 0) -> list[int]:
    """Descriptors of a new TAP in the caller's network namespace, which is deleted when the last copy is closed.

    There is one for each queue pair (at least one); frames on them are as those of ``open_tap``.

    :raise ConflictError: there is an interface of that name. :raise HostError: the kernel refused.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    opened: list[int] = []
    try:
        while len(opened) < max(queues, 1):
            opened.append(_open_device())
            exclusive = _IFF_TUN_EXCL if len(opened) == 1 else 0
            fcntl.ioctl(opened[-1], _TUNSETIFF, _IFREQ.pack(name.encode(), flags | exclusive))
    except OSError as error:
        is_taken = len(opened) == 1 and error.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL)
        close_all(opened)
        if is_taken:
            raise ConflictError(f"there is an interface {name!r} already") from error
        raise _refused(name, error) from error
    except BaseException:
        close_all(opened)
        raise
    return opened


def open_vhost_net(queues: int) -> list[int]:
    """Descriptors of the kernel's vhost-net, one per queue pair; none where the host has no working one.

    Only for KVM: with QEMU's own translator, vhost has no way to raise an interrupt in the guest by itself.
    """
    opened: list[int] = []
    try:
        for _ in range(max(queues, 1)):
            opened.append(os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC))
            fcntl.ioctl(opened[-1], _VHOST_GET_FEATURES, bytearray(8))
    except OSError:
        close_all(opened)
        return []
    return opened


def require_attached(name: str, descriptors: Iterable[int]) -> None:
    """Refuse descriptors whose TAP or macvtap has been deleted.

    :raise HostError: it has.
    """
    for descriptor in descriptors:
        try:
            fcntl.ioctl(descriptor, _TUNGETIFF, bytearray(_IFREQ.size))
        except OSError as error:
            raise HostError(
                f"the interface {name!r} was deleted meanwhile", errno=error.errno or 0, hint="create it again"
            ) from error


def held_taps(pid: int) -> Collection[str] | None:
    """The TAPs that a process has open (proc(5), fdinfo: ``iff`` of /dev/net/tun); None where that cannot be read."""
    directory = f"/proc/{pid}/fdinfo"
    try:
        names = os.listdir(directory)
    except OSError:
        return None
    found = set()
    for name in names:
        try:
            with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue  # closed meanwhile
        found |= {line.partition(":")[2].strip() for line in lines if line.startswith("iff:")}
    return found - {""}  # that of a TAP that was deleted


def close_all(descriptors: list[int]) -> None:
    """Close them all and empty the list."""
    while descriptors:
        os.close(descriptors.pop())


def _free(transport: LocalTransport, name: str, queues: int) -> Link:
    """The TAP, when it has the queues and none is attached that the kernel counts."""
    link, attached = _look_up(transport, name)
    _check(link, queues)
    if attached:
        raise _held(name)
    return link


def _look_up(transport: LocalTransport, name: str) -> tuple[Link, int]:
    """The interface, and how many queues are attached according to the kernel."""
    try:
        messages = call(transport, Family.ROUTE, get_link(name))
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        raise InputError(
            f"there is no interface {name!r} in this network namespace",
            field="device",
            hint=f"create it with 'ip tuntap add {name} mode tap'",
        ) from None
    links = links_of(messages)
    if len(links) != 1:
        raise HostError(f"this host's kernel describes {len(links)} interfaces {name!r}")
    attributes = parse_attributes(messages[0].payload[_LINK_HEADER_BYTES:])
    tun = parse_attributes(parse_attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_DATA, b""))
    counts = [tun.get(kind) for kind in (_IFLA_TUN_NUM_QUEUES, _IFLA_TUN_NUM_DISABLED_QUEUES)]
    attached = sum(unpack_u32(count) for count in counts if count is not None) if links[0].kind == "tun" else 0
    return links[0], attached


def _check(link: Link, queues: int) -> None:
    if link.kind != "tun" or link.tun_type != TUN_TYPE_TAP:
        other = "a TUN interface" if link.kind == "tun" else f"of the kind {link.kind!r}"
        what = f"but {other}" if link.kind else "but no virtual interface at all"
        raise InputError(
            f"the interface {link.name!r} is no TAP {what}",
            field="device",
            hint="a TAP is made with 'ip tuntap add NAME mode tap'",
        )
    if queues > 1 and not link.tun_multi_queue:
        raise InputError(
            f"the TAP {link.name!r} has one queue, not {queues}",
            field="queues",
            hint=f"create it with 'ip tuntap add {link.name} mode tap multi_queue vnet_hdr'",
        )


def _open_device() -> int:
    try:
        return os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HostError.of("cannot open /dev/net/tun", error, hint="'modprobe tun' may help") from error


def _open_queue(link: Link) -> int:
    opened = _open_device()
    # The first process that attaches decides on IFF_VNET_HDR; only the number of queues is fixed at creation.
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if link.tun_multi_queue else 0)
    try:
        fcntl.ioctl(opened, _TUNSETIFF, _IFREQ.pack(link.name.encode(), flags))
    except OSError as error:
        os.close(opened)
        raise _refused(link.name, error) from error
    return opened


def _refused(name: str, error: OSError) -> ConflictError | HostError:
    if error.errno == errno.EBUSY:
        return _held(name)
    if error.errno == errno.E2BIG:
        return HostError(f"the TAP {name!r} has no room for so many queues", errno=errno.E2BIG)
    if error.errno == errno.EPERM:
        return HostError(
            f"opening the TAP {name!r} is not permitted", errno=errno.EPERM, hint="run as root or as its owner"
        )
    return HostError.of(f"cannot open the TAP {name!r}", error)


def _held(name: str) -> ConflictError:
    return ConflictError(f"the TAP {name!r} is held by another process")
