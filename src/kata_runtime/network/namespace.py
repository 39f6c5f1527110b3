"""Network namespaces of this host by the path of their file (network_namespaces(7), setns(2))."""

from __future__ import annotations

import errno
import os

from kata_runtime.c_library import c_function
from kata_runtime.errors import HostError, KataError
from kata_runtime.sandbox.process import held_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TypeVar

    from kata_runtime.netlink.local import LocalTransport

    T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


class Namespace:
    """An open network namespace; it exists as long as it is open. A context manager."""

    def __init__(self, path: str) -> None:
        """``path`` is a bound file such as /run/netns/NAME, or /proc/PID/ns/net.

        :raise HostError: it cannot be opened.
        """
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError.of(f"cannot open the network namespace {path!a}", error) from error
        found = os.fstat(self._fd)
        # Device and inode number, by which records name it: 4:4026531840.
        self.identity = f"{found.st_dev}:{found.st_ino}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def run(self, function: Callable[[], T], /) -> T:
        """Call ``function`` in this namespace and return its result.

        It runs in a thread of its own, which then ends: so no thread has to return to its previous namespace.

        :raise HostError: the namespace cannot be entered.
        """
        # concurrent.futures, which loads logging, takes five times as long to import.
        from threading import Event, Thread

        results: list[T] = []
        failures: list[Exception] = []
        ended = Event()

        def work() -> None:
            try:
                self.enter()
                results.append(function())
            except (KataError, OSError, RuntimeError, MemoryError) as error:
                failures.append(error)
            finally:
                ended.set()

        thread = Thread(target=work)
        try:
            with held_signals():  # until the thread is known to run, or not to have started
                thread.start()
            ended.wait()
        finally:
            # A signal's exception ends the first wait: the caller must not undo anything while the function runs. Not
            # Thread.join, which takes a thread as ended after an exception (bpo-45274, Python 3.11).
            if thread.ident is not None:
                ended.wait()
        for failure in failures:
            raise failure
        return results[0]

    def transport(self) -> LocalTransport:
        """A netlink socket for the interfaces, addresses and routes of this namespace."""
        from kata_runtime.netlink.local import LocalTransport

        return LocalTransport(self.run)

    def enter(self) -> None:
        """Move this thread into the namespace.

        :raise HostError: the kernel refused: no root, or no network namespace.
        """
        try:
            c_function("setns")(self._fd, _CLONE_NEWNET)
        except OSError as error:
            hint = "root is needed" if error.errno == errno.EPERM else "give the file of a network namespace"
            raise HostError.of(f"cannot enter the network namespace {self.path!a}", error, hint=hint) from error


class OwnNamespace(Namespace):
    """The network namespace of the calling thread."""

    def __init__(self) -> None:
        """Open it.

        :raise HostError: /proc does not have it.
        """
        super().__init__("/proc/thread-self/ns/net")

    def run(self, function: Callable[[], T], /) -> T:
        """Call ``function`` and return its result; the thread is in the namespace already."""
        return function()


def enter_new_namespace() -> None:
    """Move this thread into a new network namespace.

    :raise HostError: the kernel refused.
    """
    try:
        c_function("unshare")(_CLONE_NEWNET)
    except OSError as error:
        raise HostError.of("cannot make a network namespace", error) from error
