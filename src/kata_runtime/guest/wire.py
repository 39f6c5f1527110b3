"""The protocol between the host and the guest's agent on virtio-serial ports.

A port is a byte stream on which either side can stop in the middle of a frame. Therefore frames have a delimiter and no
length field: SLIP (RFC 1055) escapes END inside a frame, and a client starts with an OPENING that invalidates a
partial frame of the previous client. A frame is ``kind:u8 request:u32 payload``, in network byte order. A client first
sends HELLO with a nonce and discards everything that it reads until that nonce is returned.

This module runs on both sides; it imports only the standard library and raises only ``FrameError``.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 6
NONCE_BYTES = 16
# The largest body (kind, request and payload) that either side accepts.
MAX_BODY_BYTES = 512 * 1024
_MAX_ERRNO = 4095  # include/linux/err.h, MAX_ERRNO
# The longest text in a DONE: a page, the largest value of a sysctl.
_TEXT_BYTES = 4096

CONTROL_PORT = "org.kata-runtime.control"
EXEC_PORT_PREFIX = "org.kata-runtime.exec."

# Kinds of frames. Plain integers: this module is on the start-up path of every command.
HELLO = 1  # nonce -> nonce, version:u16
NETLINK = 2  # family:u16 last_sequence:u32 how:u8 messages (see ``netlink_block``) -> DATA*, DONE
DATA = 3
DONE = 4  # errno:u32 text
SUBSCRIBE = 5  # family:u16 group:u32 -> DONE, then NOTIFY*
NOTIFY = 6
UNSUBSCRIBE = 7  # -> DONE
SYSCTL = 8  # name [NUL value] -> DONE with the value read
SHUTDOWN = 9  # -> DONE, then the guest powers off
READ = 10  # name of a file in /proc/net, or MODULES -> DATA*, DONE
MODULES = "modules"  # /proc/modules; /proc/net has no file of this name
RENEW = 11  # seed, time of day, host name -> DONE; the identity of a guest that was restored from a template
# number:u32 of a socket option, (size:u32 length:u16 argument)* with one length -> DATA*, ``size`` bytes of each, DONE
OPTIONS = 12
EXEC = 16  # JSON {"argv": [...], "fixed_addresses": bool, false if absent} -> STARTED | DONE(errno)
STARTED = 17  # pid:u32
STDIN = 18  # bytes; empty: end of file
STDIN_TAKEN = 19  # count:u32 of bytes written to the process or discarded
STDOUT = 20  # bytes; empty: end of file; from the host: nobody reads the output any more
STDERR = 21  # the same
SIGNAL = 22  # number:u8
EXIT = 23  # wait status as os.waitstatus_to_exitcode gives it, i32
CREATE = 24  # JSON {"id", "bundle", "terminal", "setup"} -> STARTED: the container is created | DONE(errno, reason)
# "setup" of CREATE: {"mounts": [[source, target, type, flags, options], ...], "paths": [path, ...],
# "sysctls": [[name, value], ...], "forgets_names": whether the guest's cache of names is dropped}
# JSON {"id", "process", "terminal", "cgroup"} -> as CREATE
# "terminal" is [rows, columns] or null; "cgroup" is a path within the container's cgroup, or empty.
CONTAINER_EXEC = 25
RESIZE = 26  # rows:u16 columns:u16

# How many bytes of standard input may be sent ahead: they cost the agent little memory when the process does not read,
# and are enough to keep the port busy.
STDIN_WINDOW_BYTES = 64 * 1024

_END = b"\xc0"
# The first bytes of a client: an invalid escape, then END. They end a partial frame of the previous client and make it
# invalid. With END alone, half a block of netlink messages could be taken for a whole one.
OPENING = b"\xdb\xc0"
_INVALID_LAST_BYTE = 0xDB
_ESC = b"\xdb"
_ESC_END = b"\xdb\xdc"
_ESC_ESC = b"\xdb\xdd"

_HEADER = struct.Struct("!BI")
_FAMILY_SEQUENCE = struct.Struct("!HI")
_NUMBER = struct.Struct("!I")
_SIZE = struct.Struct("!HH")
_OPTION_HEADER = struct.Struct("!IH")
# The largest value of a socket option: the agent holds it in memory as a whole.
OPTION_BYTES = 8 * 1024 * 1024
SEED_BYTES = 64
_RENEWAL = struct.Struct(f"!{SEED_BYTES}sQ")


class FrameError(Exception):
    """The peer sent bytes that are no valid frame."""


def pack_frame(kind: int, request: int, payload: bytes | memoryview = b"") -> bytes:
    """Encode a frame, with escapes and the final END."""
    # Copies are most of the cost of sending, and ``count`` looks at byte after byte (Python 3.11): a frame without
    # escapes is copied once and searched twice.
    frame = b"".join((_HEADER.pack(kind, request), payload, _END))
    if _ESC in frame:
        frame = frame.replace(_ESC, _ESC_ESC)
    if frame.find(_END) < len(frame) - 1:
        frame = frame[:-1].replace(_END, _ESC_END) + _END
    return frame


def unpack_body(raw: bytes) -> tuple[int, int, bytes]:
    """Decode the bytes between two ENDs: ``(kind, request, payload)``.

    :raise FrameError: they are too short or too long, or contain an invalid escape.
    """
    if _ESC in raw:
        escaped = raw.replace(_ESC_END, _END)
        raw = escaped.replace(_ESC_ESC, _ESC)
        # ``count`` looks at byte after byte (Python 3.11): it is called once.
        if raw.count(_ESC) != len(escaped) - len(raw):
            raise FrameError("an escape byte that escapes nothing")
    if not _HEADER.size <= len(raw) <= MAX_BODY_BYTES:
        raise FrameError(f"a frame of {len(raw)} bytes")
    kind, request = _HEADER.unpack_from(raw)
    return kind, request, raw[_HEADER.size :]


class Decoder:
    """Splits a byte stream into raw frames; buffers at most one frame, of ``MAX_BODY_BYTES`` without its escapes."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._escapes = 0  # in the first ``_searched`` bytes of ``_pending``
        self._searched = 0
        self._skips = False

    def reset(self) -> None:
        """Discard a partial frame."""
        self._pending.clear()
        self._escapes = self._searched = 0
        self._skips = False

    def feed(self, data: bytes) -> list[bytes]:
        """The raw frames that ``data`` completes, for ``unpack_body``; empty and invalidated ones are dropped.

        :raise FrameError: a frame is larger than the limit. The other frames of this ``data`` are lost, and the rest of
            the large one is dropped when it arrives.
        """
        if _END not in data:
            self._hold(data)
            return []
        first, *rest = data.split(_END)
        self._hold(first)
        frames = [bytes(self._pending), *rest[:-1]]
        self.reset()
        self._hold(rest[-1])
        # Only a frame that is too long with its escapes has to be measured without them.
        if any(len(frame) - frame.count(_ESC) > MAX_BODY_BYTES for frame in frames if len(frame) > MAX_BODY_BYTES):
            raise _too_large()
        # A valid frame never ends in ESC, which is always followed by the byte that it escapes.
        return [frame for frame in frames if frame and frame[-1] != _INVALID_LAST_BYTE]

    def _hold(self, data: bytes) -> None:
        if self._skips:
            return
        self._pending += data
        if len(self._pending) <= MAX_BODY_BYTES:
            return
        # Only a frame that is too long with its escapes is searched for them.
        self._escapes += self._pending.count(_ESC, self._searched)
        self._searched = len(self._pending)
        if self._searched - self._escapes > MAX_BODY_BYTES:
            self.reset()
            self._skips = True
            raise _too_large()


def _too_large() -> FrameError:
    return FrameError(f"a frame of more than {MAX_BODY_BYTES} bytes")


def pack_target(family: int, number: int) -> bytes:
    """The start of the payload of NETLINK (``number``: last sequence) and SUBSCRIBE (``number``: multicast group)."""
    return _FAMILY_SEQUENCE.pack(family, number)


def unpack_target(payload: bytes) -> tuple[int, int, bytes]:
    """Decode what ``pack_target`` makes: ``(family, number, the bytes that follow)``.

    :raise FrameError: the payload is too short.
    """
    if len(payload) < _FAMILY_SEQUENCE.size:
        raise FrameError("a target that is cut short")
    family, number = _FAMILY_SEQUENCE.unpack_from(payload)
    return family, number, payload[_FAMILY_SEQUENCE.size :]


def proc_file(name: str) -> str:
    """The path of the file that READ names so."""
    return f"/proc/{name}" if name == MODULES else f"/proc/net/{name}"


def pack_options(number: int, asked: Sequence[tuple[int, bytes]]) -> bytes:
    """The payload of OPTIONS; ``asked`` has sizes of answers, and arguments of one length for the kernel."""
    parts = [_NUMBER.pack(number)]
    for size, argument in asked:
        parts += (_OPTION_HEADER.pack(size, len(argument)), argument)
    return b"".join(parts)


def unpack_options(payload: bytes) -> tuple[int, Sequence[int], Sequence[bytes]]:
    """Decode the payload of OPTIONS: ``(number, sizes, arguments)``.

    :raise FrameError: an item is cut short or unlike the first, or a size is too large or smaller than the argument.
    """
    number = unpack_count(payload)
    items = memoryview(payload)[_NUMBER.size :]
    if not items:
        return number, (), ()
    try:
        _, length = _OPTION_HEADER.unpack_from(items)
        # All at once: the agent's processor may be emulated, and 200,000 rules are asked for by 10,000 of them.
        count = len(items) // (_OPTION_HEADER.size + length)
        fields = struct.unpack("!" + f"IH{length}s" * count, items)
    except struct.error:
        raise FrameError("a socket option that is cut short") from None
    sizes, lengths, arguments = fields[::3], fields[1::3], fields[2::3]
    if set(lengths) != {length} or min(sizes) < length or max(sizes) > OPTION_BYTES:
        raise FrameError(f"socket options of {min(sizes)} to {max(sizes)} bytes with arguments of {length}")
    return number, sizes, arguments


def pack_done(errno: int, text: str = "") -> bytes:
    """The payload of DONE; ``errno`` 0 is success."""
    return _NUMBER.pack(errno) + text.encode("utf-8", "replace")


def unpack_done(payload: bytes) -> tuple[int, str]:
    """Decode the payload of DONE: ``(errno, text)``; a text that is too long is cut.

    :raise FrameError: the payload is too short, or the errno larger than a kernel's can be.
    """
    number = unpack_count(payload)
    if number > _MAX_ERRNO:
        raise FrameError(f"errno {number}")
    return number, payload[_NUMBER.size : _NUMBER.size + _TEXT_BYTES].decode("utf-8", "replace")


def pack_renewal(seed: bytes, now: int, host_name: str) -> bytes:
    """The payload of RENEW: ``seed`` of 64 bytes, ``now`` in nanoseconds since 1970."""
    return _RENEWAL.pack(seed, now) + host_name.encode()


def unpack_renewal(payload: bytes) -> tuple[bytes, int, str]:
    """Decode the payload of RENEW: ``(seed, nanoseconds since 1970, host name)``.

    :raise FrameError: the payload is too short.
    """
    if len(payload) < _RENEWAL.size:
        raise FrameError("a renewal that is cut short")
    seed, now = _RENEWAL.unpack_from(payload)
    return seed, now, payload[_RENEWAL.size :].decode("utf-8", "replace")


def pack_count(count: int) -> bytes:
    """A count, a pid or a wait status (two's complement) as u32."""
    return _NUMBER.pack(count & 0xFFFFFFFF)


def unpack_count(payload: bytes) -> int:
    """The u32 at the start of a payload.

    :raise FrameError: the payload is too short.
    """
    if len(payload) < _NUMBER.size:
        raise FrameError("a number that is cut short")
    value: int = _NUMBER.unpack_from(payload)[0]
    return value


def unpack_status(payload: bytes) -> int:
    """The exit status in EXIT; negative: the number of the signal that ended the process.

    :raise FrameError: the payload is too short.
    """
    value = unpack_count(payload)
    return value - (1 << 32) if value >= 1 << 31 else value


def pack_size(rows: int, columns: int) -> bytes:
    """The payload of RESIZE."""
    return _SIZE.pack(rows, columns)


def unpack_size(payload: bytes) -> tuple[int, int]:
    """Decode the payload of RESIZE: ``(rows, columns)``.

    :raise FrameError: the payload has another length.
    """
    if len(payload) != _SIZE.size:
        raise FrameError("a terminal's size that is not two numbers")
    rows, columns = _SIZE.unpack(payload)
    return rows, columns
