"""Mirrors changes of a network namespace into the running container, from within another program's poll loop."""

from __future__ import annotations

import os
import select

from kata_runtime.errors import KataError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.network.namespace_watch import NamespaceWatch
from kata_runtime.network.reconcile import reconcile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.session import Session


class Follower:
    """Poll ``fileno()`` and call ``ready`` when it is readable; ``ready`` never blocks.

    The work is done by a thread, since it takes the sandbox's lock and waits for QEMU and the guest. Changes during a
    round cause one further round, however many there are. What failed is tried again at the namespace's next change.
    """

    def __init__(
        self,
        namespace: Namespace,
        open_session: Callable[[], AbstractContextManager[Session]],
        notify: Callable[[str], None],
    ) -> None:
        """Follow ``namespace``, beginning with a first round; ``notify`` gets a line for each thing that fails.

        :raise HostError: the kernel refused.
        """
        from concurrent.futures import ThreadPoolExecutor

        self._namespace = namespace
        self._open_session = open_session
        self._notify = notify
        self._told: list[str] = []
        self._watch = NamespaceWatch(namespace)
        self._thread = ThreadPoolExecutor(1)
        self._round: Future[list[str]] | None = None
        self._due = True
        # Readable now, for the first round; later whenever a round has ended.
        self._ended = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.epoll()
        self._poll.register(self._watch.fileno(), select.EPOLLIN)
        self._poll.register(self._ended, select.EPOLLIN)

    def fileno(self) -> int:
        """The epoll descriptor of everything that the follower waits for."""
        return self._poll.fileno()

    def ready(self) -> None:
        """Read notifications and, if anything changed, start a round.

        :raise HostError: the namespace cannot be watched any longer.
        """
        self._due = self._watch.drain() or self._due
        # Read before the thread's state: a round that ends in between is seen now or makes it readable again.
        with suppress(BlockingIOError):
            os.eventfd_read(self._ended)
        if self._round is not None and self._round.done():
            notes = self._round.result()
            self._round = None
            for note in notes:
                if note not in self._told:
                    self._notify(note)
            self._told = notes
        if self._due and self._round is None:
            self._due = False
            self._round = self._thread.submit(self._follow)
            self._round.add_done_callback(lambda _: os.eventfd_write(self._ended, 1))

    def close(self) -> None:
        """Stop following; waits for a running round, in which everything has a deadline."""
        self._thread.shutdown()
        self._poll.close()
        self._watch.close()
        os.close(self._ended)

    def _follow(self) -> list[str]:
        try:
            with self._open_session() as session:
                return reconcile(session, self._namespace, creating=False)
        except KataError as error:
            return [str(error)]
        except (OSError, RuntimeError, MemoryError) as error:
            # The host is out of descriptors, threads or memory: the container must not end of that.
            return [f"cannot follow the network namespace {self._namespace.path}: {error or 'out of memory'}"]
