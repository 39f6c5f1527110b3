"""The order in which ipvsadm 1.31 prints services and servers."""

from __future__ import annotations

from _operator import itemgetter
from _socket import AF_INET, AF_INET6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from kata_runtime.ipvs.model import ServerKey, ServiceKey

    T = TypeVar("T")

# A difference of two 32-bit words beyond this turns negative in C's int.
_FAR = 1 << 31


def by_service(pairs: Sequence[tuple[ServiceKey, T]]) -> list[T]:
    """Values keyed by service, sorted as ipvsadm sorts the services."""
    marks = [key.mark for key, _ in pairs]
    if _are_near([key.address for key, _ in pairs if not key.mark]) and _is_near_range(marks):
        # Keys without marks are in this order themselves.
        ordered = sorted(pairs, key=(lambda pair: _plain(pair[0])) if any(marks) else itemgetter(0))
    else:
        ordered = _merge_sort(list(pairs), lambda a, b: _compare_services(a[0], b[0]))
    return [item for _, item in ordered]


def servers_in_order(servers: Sequence[T], key: Callable[[T], ServerKey]) -> list[T]:
    """The servers of a service, or what stands for them, sorted as ipvsadm sorts them by ``key``."""
    ordered = sorted(servers, key=key)
    if not ordered:
        return ordered
    # The first and the last are of the extreme families and, where there is one family, have the extreme addresses.
    first, last = key(ordered[0]), key(ordered[-1])
    if first.family == last.family == AF_INET:
        is_near = int.from_bytes(last.address, "big") - int.from_bytes(first.address, "big") < _FAR
    else:
        is_near = first.family == last.family and _are_near([key(server).address for server in ordered])
    if is_near:
        return ordered
    return _merge_sort(list(servers), lambda a, b: _compare_servers(key(a), key(b)))


def _plain(key: ServiceKey) -> tuple[int, int, int, bytes, int]:
    return (key.mark, key.family, key.protocol, key.address, key.port)


def _is_near_range(numbers: Sequence[int]) -> bool:
    return not numbers or max(numbers) - min(numbers) < _FAR


def _are_near(addresses: Sequence[bytes]) -> bool:
    """Whether no two addresses of a family are so far apart that ipvsadm compares them the wrong way.

    Then its comparison is an order, and any sort that is stable gives the same.
    """
    four = [address for address in addresses if len(address) == 4]
    # As bytes they are in the order of the numbers.
    if four and not _is_near_range([int.from_bytes(extreme, "big") for extreme in (min(four), max(four))]):
        return False
    sixteen = [address for address in addresses if len(address) == 16]
    return all(
        _is_near_range([int.from_bytes(address[start : start + 4], "big") for address in sixteen])
        for start in range(0, 16, 4)
    )


def _signed(difference: int) -> int:
    """A difference as C keeps it in an int; ipvsadm compares addresses so, and far ones compare the wrong way."""
    return (difference + 0x80000000) % 0x100000000 - 0x80000000


def _compare_addresses(family: int, first: bytes, second: bytes) -> int:
    """By 32-bit words; ``family`` is that of the first, whatever the second is."""
    for start in range(0, 16 if family == AF_INET6 else 4, 4):
        words = (int.from_bytes(address[start : start + 4], "big") for address in (first, second))
        difference = _signed(next(words) - next(words))
        if difference:
            return difference
    return 0


def _compare_services(first: ServiceKey, second: ServiceKey) -> int:
    return (
        _signed(first.mark - second.mark)
        or first.family - second.family
        or first.protocol - second.protocol
        or _compare_addresses(first.family, first.address, second.address)
        or first.port - second.port
    )


def _compare_servers(first: ServerKey, second: ServerKey) -> int:
    return _compare_addresses(first.family, first.address, second.address) or first.port - second.port


def _merge_sort(items: list[T], compare: Callable[[T, T], int]) -> list[T]:
    """glibc's qsort(3) below 2.37: since the comparison is no order for far addresses, the algorithm shows."""
    if len(items) < 2:
        return items
    half = len(items) // 2
    left, right = _merge_sort(items[:half], compare), _merge_sort(items[half:], compare)
    merged: list[T] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if compare(left[i], right[j]) <= 0:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]
