"""Splits files of /proc/net, which arrive in pieces, into lines, without keeping the whole."""

from __future__ import annotations

from kata_runtime.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LINE_MAX = 4096  # characters; the longest real one has about two hundred


def rows(pieces: Iterable[bytes], heading: int, what: str) -> Iterator[str]:
    """The lines behind the ``heading`` first ones, without their ends; ``what`` the file lists.

    :raise ProtocolError: a line is endless or not printable, or the last one or the heading is cut short.
    """
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece.decode("ascii", "replace")).split("\n")
        if len(rest) > _LINE_MAX:
            raise ProtocolError(f"a line of {len(rest)} characters in the guest's list of {what}")
        for line in lines[heading:]:
            if len(line) > _LINE_MAX or not (line.isascii() and line.isprintable()):
                raise ProtocolError(f"a line {line[:80]!a} in the guest's list of {what}")
            yield line
        heading = max(heading - len(lines), 0)
    if rest or heading:
        raise ProtocolError(f"the guest's list of {what} is cut short")
