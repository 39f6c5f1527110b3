"""Runs a container of a bundle without an engine: create, start, wait, delete."""

from __future__ import annotations

import os

from kata_runtime import fast_signal as signal
from kata_runtime.fast_contextlib import ExitStack, contextmanager
from kata_runtime.oci.bundle import read_bundle
from kata_runtime.oci.create import CreateContext, CreateRequest, create
from kata_runtime.oci.operations import start
from kata_runtime.oci.removal import delete
from kata_runtime.sandbox.guest_command import forwarded_signals
from kata_runtime.sandbox.lock import LockWait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_runtime.oci.foreground_terminal import ForegroundTerminal


def run_detached(request: CreateRequest, context: CreateContext) -> None:
    """Create and start a container. :raise KataError: as create and start; nothing of it is left then."""
    with _deleted_on_failure(request, context):
        start(context.root, create(request, context), context.progress)


def run_attached(request: CreateRequest, context: CreateContext) -> int:
    """Run a container with this process's streams and signals, and delete it; returns its exit status."""
    with _deleted_on_failure(request, context), ExitStack() as stack:
        terminal = None
        if not request.console_socket and read_bundle(request.bundle).terminal:
            from kata_runtime.oci.foreground_terminal import ForegroundTerminal

            terminal = ForegroundTerminal(stack)
            request = request._replace(console_socket=terminal.console_socket)
        container = create(request, context)
        with forwarded_signals() as wakeup:
            if terminal is not None:
                terminal.take()
            start(context.root, container, context.progress)
            status = _await(container.shim, wakeup, terminal)
        delete(context.root, container.container_id, LockWait(notify=context.progress), force=True)
    return status


def _await(shim: int, wakeup: int, terminal: ForegroundTerminal | None) -> int:
    """Wait for a shim, a child of this process; signals are forwarded to it. Returns its exit status."""
    import select

    process = os.pidfd_open(shim)
    try:
        while True:
            poller = select.poll()
            wanted = {process: select.POLLIN, wakeup: select.POLLIN} | (terminal.events() if terminal else {})
            for fd, mask in wanted.items():
                poller.register(fd, mask)
            ready = dict(poller.poll())
            if wakeup in ready:
                for number in os.read(wakeup, 64):
                    if number == signal.SIGWINCH and terminal is not None:
                        terminal.resize()
                    else:
                        signal.pidfd_send_signal(process, number)
            if terminal is not None:
                terminal.serve(ready)
            if process in ready:
                if terminal is not None:
                    terminal.drain()
                status = os.waitstatus_to_exitcode(os.waitpid(shim, 0)[1])
                return status if status >= 0 else 128 - status
    finally:
        os.close(process)


@contextmanager
def _deleted_on_failure(request: CreateRequest, context: CreateContext) -> Iterator[None]:
    made = False
    try:
        made = not os.path.exists(os.path.join(context.root, request.container_id))
        yield
    except BaseException:
        # An ID that was in use before belongs to another container.
        if made:
            delete(context.root, request.container_id, LockWait(), force=True)
        raise
