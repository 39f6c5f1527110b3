"""Daemons of Open vSwitch and OVN: started, killed, and ended whatever happens."""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.namespace import LabError, ProgramError, run
from lab.threads import threads_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_END_SECONDS = 10.0
_SHOWN_LINES = 15


class Daemon:
    """A daemon with its files in ``directory``.

    It is ready when the parent ends: with ``--detach`` its child then listens on all its sockets (ovs-vswitchd(8)).
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.pid = 0
        self._pid_file = directory / f"{name}.pid"
        self._log = directory / f"{name}.log"
        common = [f"--pidfile={self._pid_file}", f"--log-file={self._log}"]
        self._argv = [*prefix, *arguments, "--detach", *common, "-vconsole:off", "-vsyslog:off"]
        self._environment = environment
        # ovn-controller knows no --unixctl: all use the default place.
        self._control = directory / arguments[0]
        self._handle = -1

    def start(self) -> None:
        """Start it, and wait until it is ready.

        :raise LabError: it does not become ready; with the end of its log
        """
        try:
            run(self._argv, self._environment)
        except LabError as error:
            raise LabError(f"{error}\n{self._end_of_log()}") from error
        self.pid = int(self._pid_file.read_text())
        self._handle = os.pidfd_open(self.pid)

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text() if self._log.exists() else ""

    def report(self) -> str:
        """Whether it runs, what each of its threads is doing, and the end of its log."""
        is_running = self._handle >= 0 and not select.select([self._handle], [], [], 0)[0]
        threads = threads_of(self.pid) if is_running else []
        state = "runs" if is_running else "has ended"
        return "\n".join([f"{self.name} (process {self.pid}) {state}", *threads, self._end_of_log()])

    def _end_of_log(self) -> str:
        return "\n".join(self.log().splitlines()[-_SHOWN_LINES:])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal, and wait until it is gone; kill it when it takes too long.

        Does nothing if it is not running.
        """
        if self._handle < 0:
            return
        handle, self._handle = self._handle, -1
        try:
            for sent in (number, signal.SIGKILL):
                try:
                    signal.pidfd_send_signal(handle, sent)
                except ProcessLookupError:
                    return
                if select.select([handle], [], [], _END_SECONDS)[0]:
                    return
            raise LabError(f"{self.name} (process {self.pid}) does not end")
        finally:
            os.close(handle)

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal and restart it."""
        self.end(number)
        self.start()

    def ask(self, *words: str) -> str:
        """The output of a command of ovs-appctl(8) or ovn-appctl(8)."""
        return run(["ovs-appctl", f"--target={self._control}.{self.pid}.ctl", *words])


@contextmanager
def explained(daemons: Iterable[Daemon]) -> Iterator[None]:
    """Add the reports of ``daemons`` to the error of a program that waited for them until its --timeout was over."""
    try:
        yield
    except ProgramError as error:
        # How the programs of Open vSwitch and OVN end then: ovs-vsctl(8), --timeout.
        if error.status != -signal.SIGALRM:
            raise
        raise LabError("\n".join([str(error), *(daemon.report() for daemon in daemons)])) from error
